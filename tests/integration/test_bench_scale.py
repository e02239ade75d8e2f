"""`bench scale` as it runs: replicas on nodes with GPUs that are only said to be there."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json
from emer_ray.bench import scale
run = scale.Run(replicas=2, shape=scale.SMALL_FRAMES, batch_s=0.4, decoders=1)
print(json.dumps(scale.measure(run, 2 * 24 * scale.BATCH)))
"""


@pytest.mark.slow
def test_replicas_on_gpus_of_other_nodes_are_fed() -> None:
    # a process of its own: this one may have joined another Ray
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=280, check=False
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found["clips"] == 768
    assert 0.5 < found["occupancy"] <= 1.0
    assert {"driver", "Explain", "ParseWrite"} <= found["cpu_ms_per_batch"].keys()
