"""What an ONNX graph of a checkpoint may contain."""

import math
from collections.abc import Iterator

import numpy as np
import onnx
import onnx.numpy_helper
from google.protobuf.message import DecodeError

from stn_cli.errors import ModelError
from stn_cli.networks.config import MOST_ELEMENTS

OPERATORS = frozenset(
    """
    Abs Add And ArgMax Atan AveragePool BatchNormalization Cast Clip Concat Constant Conv Cos Div Equal Erf Exp Expand
    Flatten Gather Gelu Gemm GlobalAveragePool Greater GreaterOrEqual GridSample GroupNormalization HardSigmoid
    HardSwish Identity InstanceNormalization IsNaN LayerNormalization LeakyRelu Less Log MatMul Max MaxPool Min Mul Neg
    Not Or Pad Pow ReduceMax ReduceMean ReduceSum Relu Reshape Shape Sigmoid Sign Sin Slice Softmax Split Sqrt Squeeze
    Sub Tanh Transpose Unsqueeze Where
    """.split()  # noqa: SIM905  a list of strings is four times as long
)
"""Those of our exports, and of the usual backbones; none of them loops, branches, calls out or reads a file."""


_MOST_NODES = 5_000
_INVALID = (
    *(DecodeError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError),
    *(ValueError, TypeError, KeyError, IndexError),
)
_NESTED = {
    getattr(onnx.AttributeProto, kind)
    for kind in ("GRAPH", "GRAPHS", "SPARSE_TENSOR", "SPARSE_TENSORS", "TENSORS", "TYPE_PROTO", "TYPE_PROTOS")
}
"""Attributes that hold more than a value or a tensor."""


def check_graph(data: bytes, name: str) -> None:
    """ModelError unless the graph is valid, self-contained, finite, of allowed operators alone and not too large."""
    try:
        model = onnx.load_model_from_string(data)
        if len(model.graph.node) > _MOST_NODES:
            raise ModelError(f"{name} has {len(model.graph.node)} nodes, more than any net of stn")
        onnx.checker.check_model(model)
        sizes = _sizes(model)
        are_finite = all(map(_is_finite, _constants(model.graph)))
    except _INVALID as error:
        raise ModelError(f"{name} is not a valid ONNX graph: {error}") from error
    foreign = {node.op_type for node in model.graph.node if node.domain not in ("", "ai.onnx")}
    foreign |= {node.op_type for node in model.graph.node} - OPERATORS
    if foreign or model.functions:
        raise ModelError(f"{name} uses operators beyond the allowed ones: {', '.join(sorted(foreign)) or 'functions'}")
    kinds = {attribute.type for node in model.graph.node for attribute in node.attribute}
    if model.graph.sparse_initializer or kinds & _NESTED:
        raise ModelError(f"{name} has sparse weights, or graphs within it")
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _constants(model.graph)):
        raise ModelError(f"{name} refers to data in other files")
    if not are_finite:
        raise ModelError(f"{name} has weights that are not finite")
    unknown = sorted(value for value, size in sizes.items() if size is None)
    if unknown:
        raise ModelError(f"{name} computes values of unknown size: {', '.join(unknown[:3])}")
    largest = max((size for size in sizes.values() if size is not None), default=0)
    if largest > MOST_ELEMENTS:
        raise ModelError(f"{name} computes a value of {largest} elements, more than any net of stn")


def _sizes(model: onnx.ModelProto) -> dict[str, int | None]:
    """Elements of all that a graph computes of a single image; None of what is not known before it runs."""
    alone = onnx.ModelProto()
    alone.CopyFrom(model)
    for given in alone.graph.input:
        given.type.tensor_type.shape.dim[0].dim_value = 1
    del alone.graph.value_info[:]  # stated for any number of images, by whoever wrote the graph
    for output in alone.graph.output:
        output.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(alone, data_prop=True).graph
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    found = {value.name: _elements(value.type.tensor_type) for value in values}
    return {name: found.get(name) for name in (*found, *(name for node in model.graph.node for name in node.output))}


def _elements(tensor: onnx.TypeProto.Tensor) -> int | None:
    if not tensor.HasField("shape") or not all(side.HasField("dim_value") for side in tensor.shape.dim):
        return None
    return math.prod(int(side.dim_value) for side in tensor.shape.dim)


def _constants(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        yield from (attribute.t for attribute in node.attribute if attribute.type == onnx.AttributeProto.TENSOR)


def _is_finite(tensor: onnx.TensorProto) -> bool:
    return bool(np.isfinite(onnx.numpy_helper.to_array(tensor)).all())
