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
        (
            "kuberay-raycluster.yaml",
            "rayVersion: 2.60.0",
            "rayVersion: 2.9.0",
            "'2.60.0' was expected",
        ),
        ("sky.yaml", "workdir: .", "work_dir: .", "work_dir"),
        ("aws.yaml", "MarketType: spot", "MarketTyp: spot", "MarketTyp"),
        ("aws.yaml", "InstanceType: m7i", "InstanceKind: m7i", "InstanceKind"),
        ("aws.yaml", "resources: {CPU: 0}", "resources: {CPU: 4}", "beside the driver"),
        ("kuberay-rayjob.yaml", 'num-cpus: "0"', "num-cpus: 0", "0 is not of type 'string'"),
        ("kuberay-rayjob.yaml", "K8sJobMode", "K8SJobMode", "K8SJobMode"),
        ("kuberay-rayjob.yaml", 'num-cpus: "0"', 'num-cpus: "4"', "beside the driver"),
        ("kuberay-raycluster.yaml", "sizeLimit: 10Gi", "sizeLimit: 1Gi", "/dev/shm"),
        ("kuberay-raycluster.yaml", "Seconds: 60 # above", "Seconds: 20 # above", "grace period"),
    ],
)
def test_a_mistake_is_found(tmp_path: Path, name: str, old: str, new: str, says: str) -> None:
    text = (CLUSTER / name).read_text(encoding="utf-8")
    assert old in text
    (tmp_path / name).write_text(text.replace(old, new, 1), encoding="utf-8")
    assert says in " ".join(validate.problems(tmp_path / name))
