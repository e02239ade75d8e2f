"""Let torchvision from the package index import beside the CPU build of torch.

That wheel is built for CUDA: beside a CPU torch its import fails, because operators that its Python
code registers against are not there. Their schemas are declared first; the transforms, which video
processors use, then work. With this folder on PYTHONPATH every Python of a test run does it at its
start, Ray's workers included; nothing of it is in the package.
"""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType


class _BeforeTorchvision(importlib.abc.MetaPathFinder):
    """Declare the missing operators just before torchvision is imported, once."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            if torch.version.cuda is None:
                library = torch.library.Library("torchvision", "FRAGMENT")
                # declarations die with this object, and who only looks for torchvision drops us
                torch.torchvision_stand_in = library
                for operator in ("nms", "qnms"):
                    schema = (
                        f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                    )
                    library.define(schema)
        return None


if not any(type(finder).__name__ == "_BeforeTorchvision" for finder in sys.meta_path):
    sys.meta_path.insert(0, _BeforeTorchvision())
