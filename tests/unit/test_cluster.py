"""The files that say where it runs are valid, and their check can fail."""

import importlib.util
from pathlib import Path

import pytest

CLUSTER = Path(__file__).parents[2] / "cluster"
spec = importlib.util.spec_from_file_location("validate", CLUSTER / "validate.py")
assert spec is not None
assert spec.loader is not None
validate = importlib.util.module_from_spec(spec)
spec.loader.exec_module(validate)


def test_every_file_is_valid() -> None:
    assert len(list(CLUSTER.glob("*.yaml"))) == 5
    assert validate.main() == 0


@pytest.mark.parametrize(
    ("name", "old", "new", "says"),
    [
        ("aws.yaml", "idle_timeout_minutes: 5", "idle_minutes: 5", "idle_minutes"),
        ("gcp.yaml", "head_node_type: head", "head_node_type: boss", "no node type boss"),
        ("kuberay-rayjob.yaml", "backoffLimit: 3", "backOffLimit: 3", "backOffLimit"),
        ("kuberay-rayjob.yaml", "mountPath:", "mount_path:", "mount"),
        ("kuberay-raycluster.yaml", "maxReplicas: 16", "maxWorkers: 16", "maxWorkers"),
        ("kuberay-raycluster.yaml", "rayVersion: 2.60.0", "rayVersion: 2.9.0", "2.9.0"),
        ("sky.yaml", "workdir: .", "work_dir: .", "work_dir"),
    ],
)
def test_a_mistake_is_found(tmp_path: Path, name: str, old: str, new: str, says: str) -> None:
    text = (CLUSTER / name).read_text(encoding="utf-8")
    assert old in text
    (tmp_path / name).write_text(text.replace(old, new, 1), encoding="utf-8")
    [found] = validate.problems(tmp_path / name)
    assert says in found
