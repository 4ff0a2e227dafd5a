"""What an ONNX graph of a checkpoint may contain."""

from collections.abc import Iterator

import numpy as np
import onnx
import onnx.numpy_helper
from google.protobuf.message import DecodeError

from stn_cli.errors import ModelError

OPERATORS = frozenset(
    """
    Add ArgMax Atan BatchNormalization Cast Clip Concat Constant Conv Cos Div Equal Exp Expand Flatten Gather Gemm
    GlobalAveragePool Greater GreaterOrEqual Identity IsNaN Less MatMul MaxPool Mul Neg Pow ReduceMax ReduceMean
    ReduceSum Relu Reshape Shape Sigmoid Sin Slice Softmax Sqrt Squeeze Sub Tanh Transpose Unsqueeze Where
    """.split()  # noqa: SIM905  a list of strings is four times as long
)
"""Those that our exports use; none of them loops, branches, calls out or reads a file."""


def check_graph(data: bytes, name: str) -> None:
    """ModelError unless the graph is valid, self-contained, finite and of allowed operators alone."""
    try:
        model = onnx.load_model_from_string(data)
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError, ValueError) as error:
        raise ModelError(f"{name} is not a valid ONNX graph: {error}") from error
    foreign = {node.op_type for node in model.graph.node if node.domain not in ("", "ai.onnx")}
    foreign |= {node.op_type for node in model.graph.node} - OPERATORS
    if foreign or model.functions:
        raise ModelError(f"{name} uses operators beyond the allowed ones: {', '.join(sorted(foreign)) or 'functions'}")
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _constants(model.graph)):
        raise ModelError(f"{name} refers to data in other files")
    if not all(_is_finite(tensor) for tensor in _constants(model.graph)):
        raise ModelError(f"{name} has weights that are not finite")


def _constants(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        yield from (attribute.t for attribute in node.attribute if attribute.type == onnx.AttributeProto.TENSOR)


def _is_finite(tensor: onnx.TensorProto) -> bool:
    return bool(np.isfinite(onnx.numpy_helper.to_array(tensor)).all())
