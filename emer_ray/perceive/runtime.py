"""Load networks on one thread: two busy actors on two cores must not fight for them."""

from pathlib import Path
from typing import Any

import onnxruntime
from ai_edge_litert.interpreter import Interpreter


def session(path: Path) -> onnxruntime.InferenceSession:
    """Load an ONNX model."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def interpreter(path: Path) -> Any:
    """Load a LiteRT model."""
    model = Interpreter(str(path), num_threads=1)
    model.allocate_tensors()
    return model
