"""Turn the TensorFlow.js weights of the face-api expression network into an ONNX file.

The network is a small densely connected one (four blocks of separable convolutions, one linear
layer); the graph is written down here, the numbers come from the package's quantised weights.
Neither TensorFlow nor its converter is needed, and the same input gives the same bytes.
"""

import json
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

EXPRESSIONS: Final = ("neutral", "happy", "sad", "angry", "fearful", "disgusted", "surprised")
"""Order of the seven outputs."""

MEAN_RGB: Final = (122.782, 117.001, 104.298)
"""Subtracted from 0..255 pixels before the division by 255 (face-api, FaceExpressionNet)."""

SIDE_PX: Final = 112

Array = npt.NDArray[np.float32]


def expression_onnx(weights: bytes, manifest: bytes) -> bytes:
    """Build the ONNX model.

    Input `rgb`: float32 [n, 112, 112, 3], 0..255. Output `probabilities`: float32 [n, 7] in the
    order of EXPRESSIONS.
    """
    return _Graph(dequantise(weights, manifest)).model()


def dequantise(weights: bytes, manifest: bytes) -> dict[str, Array]:
    """Read one shard of tfjs weights into float32 arrays by name."""
    arrays: dict[str, Array] = {}
    offset = 0
    for entry in (entry for group in json.loads(manifest) for entry in group["weights"]):
        quantised = entry.get("quantization")
        dtype = np.dtype(quantised["dtype"] if quantised else entry["dtype"])
        count = int(np.prod(entry["shape"], dtype=np.int64))
        raw = np.frombuffer(weights, dtype, count, offset).astype(np.float32)
        offset += count * dtype.itemsize
        if quantised:
            raw = raw * np.float32(quantised["scale"]) + np.float32(quantised["min"])
        arrays[entry["name"]] = raw.reshape(entry["shape"])
    return arrays


class _Graph:
    """Nodes and constants in the order they are written."""

    def __init__(self, weights: dict[str, Array]) -> None:
        self.weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def model(self) -> bytes:
        x = self.op("Sub", "rgb", self.constant("mean", np.asarray(MEAN_RGB, np.float32)))
        x = self.op("Div", x, self.constant("scale", np.asarray([255.0], np.float32)))
        x = self.op("Transpose", x, perm=[0, 3, 1, 2])
        for block in range(4):
            x = self.block(x, f"dense{block}/conv", first=block == 0)
        x = self.op("AveragePool", x, kernel_shape=[7, 7], strides=[2, 2])
        x = self.op("Flatten", x)
        x = self.op("MatMul", x, self.constant("fc/weights", self.weights["fc/weights"]))
        x = self.op("Add", x, self.constant("fc/bias", self.weights["fc/bias"]))
        self.nodes.append(helper.make_node("Softmax", [x], ["probabilities"], axis=1))
        graph = helper.make_graph(
            self.nodes,
            "face_expression",
            [_tensor("rgb", ["n", SIDE_PX, SIDE_PX, 3])],
            [_tensor("probabilities", ["n", len(EXPRESSIONS)])],
            self.constants,
        )
        # fixed versions: what the installed onnx would choose must not change the bytes
        opset = helper.make_opsetid("", 17)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=9)
        onnx.checker.check_model(model)
        data: bytes = model.SerializeToString(deterministic=True)
        return data

    def block(self, x: str, key: str, *, first: bool) -> str:
        """Halve the picture, then add three convolutions, each fed with the sum of those before."""
        start = (
            self.convolution(x, f"{key}0/filters", f"{key}0/bias", stride=2)
            if first
            else self.separable(x, f"{key}0", stride=2)
        )
        total = self.op("Relu", start)
        for layer in (1, 2, 3):
            fed = total if layer == 1 else self.op("Relu", total)
            total = self.op("Add", total, self.separable(fed, f"{key}{layer}"))
        return self.op("Relu", total)

    def separable(self, x: str, key: str, stride: int = 1) -> str:
        x = self.convolution(x, f"{key}/depthwise_filter", None, stride=stride)
        return self.convolution(x, f"{key}/pointwise_filter", f"{key}/bias")

    def convolution(self, x: str, filters: str, bias: str | None, stride: int = 1) -> str:
        kernel = self.weights[filters]  # [height, width, in, out], depthwise [height, width, in, 1]
        depthwise = filters.endswith("depthwise_filter")
        kernel = kernel.transpose((2, 3, 0, 1) if depthwise else (3, 2, 0, 1))
        inputs = [x, self.constant(filters, kernel)]
        if bias is not None:
            inputs.append(self.constant(bias, self.weights[bias]))
        groups = len(kernel) if depthwise else 1
        return self.op(
            "Conv", *inputs, strides=[stride, stride], group=groups, auto_pad="SAME_UPPER"
        )

    def constant(self, name: str, values: Array) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        output = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output


def _tensor(name: str, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
