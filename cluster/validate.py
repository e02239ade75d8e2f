"""Check what lies in this folder against the schemas that install: part of `make check`.

The cluster YAML against the schema inside the Ray package; the pods of KubeRay's resources against
that of Kubernetes; the fields that belong to Ray against the names of its v1 API, which no package
carries. What a cloud makes of its own `node_config` is not checked.
"""

import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import ray
import yaml

HERE = Path(__file__).parent
KUBERNETES = "1.33"

JOB = {
    *("entrypoint", "submissionMode", "backoffLimit", "activeDeadlineSeconds", "metadata"),
    *("shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "rayClusterSpec", "runtimeEnvYAML"),
    *("suspend", "clusterSelector", "submitterPodTemplate", "submitterConfig", "jobId"),
}
CLUSTER = {
    *("rayVersion", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec"),
    *("workerGroupSpecs", "authOptions"),
}
GROUP = {"rayStartParams", "template", "serviceType"}
WORKERS = GROUP | {"groupName", "replicas", "minReplicas", "maxReplicas", "idleTimeoutSeconds"}
SKY = {"name", "resources", "envs", "workdir", "setup", "run", "num_nodes", "file_mounts"}


def problems(path: Path) -> list[str]:
    """Say what is wrong with a file; nothing where all is well."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    try:
        if path.name.startswith("kuberay-"):
            return _kuberay(content)
        if path.name == "sky.yaml":
            return _unknown(content, SKY, "")
        schema = Path(ray.__file__).parent / "autoscaler" / "ray-schema.json"
        jsonschema.validate(content, json.loads(schema.read_text(encoding="utf-8")))
    except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as error:
        return [f"{'.'.join(map(str, error.path))}: {error.message}"]
    if content["head_node_type"] not in content["available_node_types"]:
        return [f"head_node_type: there is no node type {content['head_node_type']}"]
    return []


def _kuberay(content: dict[str, Any]) -> list[str]:
    spec = content["spec"]
    found = []
    if content["kind"] == "RayJob":
        found += _unknown(spec, JOB, "spec")
        spec = spec["rayClusterSpec"]
    found += _unknown(spec, CLUSTER, "cluster")
    found += _unknown(spec["headGroupSpec"], GROUP, "headGroupSpec")
    if spec["rayVersion"] != ray.__version__:
        found.append(f"rayVersion: {spec['rayVersion']}, and this is {ray.__version__}")
    for group in spec["workerGroupSpecs"]:
        found += _unknown(group, WORKERS, group["groupName"])
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, **group["template"]}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    return found


def _unknown(found: dict[str, Any], known: set[str], where: str) -> list[str]:
    return [f"{where}: unknown field {name}" for name in sorted(found.keys() - known)]


def main() -> int:
    """Print what is wrong; 1 where anything is."""
    wrong = [(path, text) for path in sorted(HERE.glob("*.yaml")) for text in problems(path)]
    for path, text in wrong:
        print(f"{path.name}: {text}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
