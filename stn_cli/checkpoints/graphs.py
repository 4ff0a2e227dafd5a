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


def check_graph(data: bytes, name: str) -> None:
    """ModelError unless the graph is valid, self-contained, finite, of allowed operators alone and not too large."""
    try:
        model = onnx.load_model_from_string(data)
        if len(model.graph.node) > _MOST_NODES:
            raise ModelError(f"{name} has {len(model.graph.node)} nodes, more than any net of stn")
        onnx.checker.check_model(model)
        largest = max((_elements(value) for value in _values(model)), default=0)
    except (DecodeError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        raise ModelError(f"{name} is not a valid ONNX graph: {error}") from error
    if largest > MOST_ELEMENTS:
        raise ModelError(f"{name} computes a value of {largest} elements, more than any net of stn")
    foreign = {node.op_type for node in model.graph.node if node.domain not in ("", "ai.onnx")}
    foreign |= {node.op_type for node in model.graph.node} - OPERATORS
    if foreign or model.functions:
        raise ModelError(f"{name} uses operators beyond the allowed ones: {', '.join(sorted(foreign)) or 'functions'}")
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _constants(model.graph)):
        raise ModelError(f"{name} refers to data in other files")
    if not all(_is_finite(tensor) for tensor in _constants(model.graph)):
        raise ModelError(f"{name} has weights that are not finite")


def _values(model: onnx.ModelProto) -> Iterator[onnx.ValueInfoProto]:
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    yield from (*inferred.input, *inferred.value_info, *inferred.output)


def _elements(value: onnx.ValueInfoProto) -> int:
    """Of a value, as far as it is known before the graph runs."""
    return math.prod(dimension.dim_value or 1 for dimension in value.type.tensor_type.shape.dim)


def _constants(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        yield from (attribute.t for attribute in node.attribute if attribute.type == onnx.AttributeProto.TENSOR)


def _is_finite(tensor: onnx.TensorProto) -> bool:
    return bool(np.isfinite(onnx.numpy_helper.to_array(tensor)).all())
