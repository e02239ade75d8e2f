"""Check what lies in this folder against the schemas that install: part of `make check`.

The cluster YAML against the schema inside the Ray package, and AWS's part of it against the API
model inside botocore; the pods of KubeRay's resources against the schema of Kubernetes. The fields
of KubeRay's own v1 API, whose definitions no package carries, are held against names and types
written down here. Beyond schemas: a head that runs no stage, shared memory that holds the object
store, a grace period in which what is in flight can be stored. Google's part is not checked.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import botocore.validate
import jsonschema
import kubernetes_validate
import ray
import yaml

from emer_ray.config import BudgetConfig

HERE = Path(__file__).parent
KUBERNETES = "1.33"

SHM = "/dev/shm"  # noqa: S108 - of the pods

TEXT, FLAG, COUNT = {"type": "string"}, {"type": "boolean"}, {"type": "integer", "minimum": 0}
TEXTS = {"type": "object", "additionalProperties": TEXT}
POD = {"type": "object"}


def _fields(needed: tuple[str, ...] = (), **fields: Any) -> dict[str, Any]:
    """Describe an object with these fields and no others."""
    return {
        "type": "object",
        "properties": fields,
        "required": list(needed),
        "additionalProperties": False,
    }


SERVICE = {"enum": ["ClusterIP", "NodePort", "LoadBalancer"]}
HEAD = _fields(
    ("rayStartParams", "template"), rayStartParams=TEXTS, template=POD, serviceType=SERVICE
)
WORKERS = _fields(
    ("groupName", "rayStartParams", "template", "minReplicas", "maxReplicas"),
    groupName=TEXT,
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    idleTimeoutSeconds=COUNT,
    rayStartParams=TEXTS,
    template=POD,
)
CLUSTER = _fields(
    ("rayVersion", "headGroupSpec", "workerGroupSpecs"),
    rayVersion={"const": ray.__version__},
    enableInTreeAutoscaling=FLAG,
    autoscalerOptions=_fields(
        idleTimeoutSeconds=COUNT,
        upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
        resources=POD,
    ),
    authOptions=_fields(mode={"enum": ["disabled", "token"]}),
    headGroupSpec=HEAD,
    workerGroupSpecs={"type": "array", "items": WORKERS, "minItems": 1},
)
JOB = _fields(
    ("entrypoint", "rayClusterSpec"),
    entrypoint=TEXT,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
    submitterConfig=_fields(backoffLimit=COUNT),
    backoffLimit=COUNT,
    activeDeadlineSeconds={"type": "integer", "minimum": 1},
    shutdownAfterJobFinishes=FLAG,
    ttlSecondsAfterFinished=COUNT,
    suspend=FLAG,
    jobId=TEXT,
    metadata=TEXTS,
    runtimeEnvYAML=TEXT,
    rayClusterSpec=CLUSTER,
)
RESOURCE = {
    kind: _fields(
        ("apiVersion", "kind", "metadata", "spec"),
        apiVersion={"const": "ray.io/v1"},
        kind={"const": kind},
        metadata=_fields(("name",), name=TEXT, namespace=TEXT, labels=TEXTS),
        spec=spec,
    )
    for kind, spec in (("RayJob", JOB), ("RayCluster", CLUSTER))
}
SKY = {"name", "resources", "envs", "workdir", "setup", "run", "num_nodes", "file_mounts"}


def problems(path: Path) -> list[str]:
    """Say what is wrong with a file; nothing where all is well."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    try:
        if path.name.startswith("kuberay-"):
            return list(_kuberay(content))
        if path.name == "sky.yaml":
            return [f"unknown field {name}" for name in sorted(content.keys() - SKY)]
        schema = Path(ray.__file__).parent / "autoscaler" / "ray-schema.json"
        jsonschema.validate(content, json.loads(schema.read_text(encoding="utf-8")))
    except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as error:
        return [f"{'.'.join(map(str, error.path))}: {error.message}"]
    return list(_launched(content))


def _launched(content: dict[str, Any]) -> Iterator[str]:
    """Look at what Ray's cluster launcher starts."""
    kinds = content["available_node_types"]
    head = content["head_node_type"]
    if head not in kinds:
        yield f"head_node_type: there is no node type {head}"
    elif kinds[head]["resources"].get("CPU") != 0:
        yield f"{head}: its CPUs are not 0, and stages would run beside the driver"
    if content["provider"]["type"] == "aws":
        model = botocore.session.get_session().get_service_model("ec2")
        shape = model.operation_model("RunInstances").input_shape
        for name, kind in kinds.items():
            given = {"MinCount": 1, "MaxCount": 1, **kind["node_config"]}  # Ray adds the two
            report = botocore.validate.ParamValidator().validate(given, shape)
            if report.has_errors():
                yield f"{name}: {report.generate_report()}"


def _kuberay(content: dict[str, Any]) -> Iterator[str]:
    """Look at a resource of KubeRay, and at its pods."""
    if content["kind"] not in RESOURCE:
        raise jsonschema.ValidationError(f"kind {content['kind']}: none of {list(RESOURCE)}")
    wrong = list(jsonschema.Draft202012Validator(RESOURCE[content["kind"]]).iter_errors(content))
    yield from (f"{'.'.join(map(str, error.path))}: {error.message}" for error in wrong)
    if wrong:
        return
    spec = content["spec"].get("rayClusterSpec", content["spec"])
    if spec["headGroupSpec"]["rayStartParams"].get("num-cpus") != "0":
        yield 'headGroupSpec: num-cpus is not "0", and stages would run beside the driver'
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        name = group.get("groupName", "head")
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, **group["template"]}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)
        inside = group["template"]["spec"]
        if inside.get("terminationGracePeriodSeconds", 30) <= BudgetConfig().drain_s:
            yield f"{name}: its grace period is over before budget.drain_s is"
        store = int(group["rayStartParams"].get("object-store-memory", 0))
        mounted = {
            mount["name"]
            for container in inside["containers"]
            for mount in container.get("volumeMounts", ())
            if mount["mountPath"] == SHM
        }
        sizes = [
            int(volume["emptyDir"]["sizeLimit"].removesuffix("Gi")) * 2**30
            for volume in inside.get("volumes", ())
            if volume["name"] in mounted
        ]
        if not store or store > sum(sizes):
            yield f"{name}: {SHM} of {sum(sizes)} bytes, object-store-memory of {store}"


def main() -> int:
    """Print what is wrong; 1 where anything is."""
    wrong = [(path, text) for path in sorted(HERE.glob("*.yaml")) for text in problems(path)]
    for path, text in wrong:
        print(f"{path.name}: {text}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
