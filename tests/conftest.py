"""Fixtures for the whole suite; a session-wide server starts when the first test asks for it."""

import importlib.util
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from emer_ray import runner
from emer_ray import weights as weights_module
from tests import browser as browsers
from tests import s3_server, synth

settings.register_profile("untimed", deadline=None)  # timing decides no test
settings.load_profile("untimed")

STAND_IN = str(Path(__file__).parent / "torchvision_cpu")
INSIDE_ENGINES = str(Path(__file__).parent / "vllm_cpu")

if importlib.util.find_spec("torch"):
    # for this process, and by the environment for every Python it starts, Ray's workers included
    paths = [STAND_IN, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models only lose time to threads
    spec = importlib.util.spec_from_file_location("sitecustomize", f"{STAND_IN}/sitecustomize.py")
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))

if importlib.util.find_spec("vllm"):
    os.environ["PYTHONPATH"] = os.pathsep.join([os.environ["PYTHONPATH"], INSIDE_ENGINES])
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB of an engine's cache
    cores = sorted(os.sched_getaffinity(0))
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", f"{cores[0]}-{cores[-1]}")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tiny random models by architecture; skips where torch is not installed."""
    for name in ("torch", "torchvision", "transformers", "accelerate"):
        pytest.importorskip(name, reason="needs the extra: pip install 'emer-ray[transformers]'")
    from emer_ray.bench import tiny_models

    folder = tmp_path_factory.mktemp("tiny")
    for make in tiny_models.ALL:
        make(folder / make.__name__)
    return folder


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real S3 server on loopback; the environment of this process names it and holds its keys."""
    with s3_server.seaweedfs(tmp_path_factory.mktemp("s3")) as endpoint:
        before = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        for name in before:
            del os.environ[name]
        os.environ.update(s3_server.credentials(endpoint))
        try:
            yield endpoint
        finally:
            for name in s3_server.credentials(endpoint):
                os.environ.pop(name, None)
            os.environ.update(before)


@pytest.fixture
def bucket(s3_endpoint: str) -> str:
    """The URI of a fresh, empty bucket."""
    name = f"test-{uuid.uuid4().hex[:20]}"
    s3_server.client(s3_endpoint).create_bucket(Bucket=name)
    return f"s3://{name}"


@pytest.fixture(scope="session")
def weights() -> dict[str, Path]:
    """The embedded weights by target name, fetched into the user's cache the first time."""
    weights_module.fetch("embedded", print)
    absent = weights_module.missing("embedded")
    assert not absent, f"the tests need every embedded weight: {absent}"
    return weights_module.locate("embedded")


@pytest.fixture(scope="session")
def local_ray(s3_endpoint: str) -> Iterator[runner.Cluster]:
    """One local Ray for the session; its workers inherit the S3 server's address and keys."""
    os.environ["EMER_TEST_KEY"] = "sk-very-secret"  # of endpoints that tests stand up
    yield runner.connect()
    runner.disconnect()


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small real clips: c0.mp4 to c5.mp4, `mute.mp4` without sound, `voice.wav`."""
    folder = tmp_path_factory.mktemp("synthetic")
    for number in range(6):
        synth.clip(folder / f"c{number}.mp4", seconds=1, tone_hz=200 + 50 * number)
    synth.clip(folder / "mute.mp4", seconds=1, audio=False)
    synth.sound(folder / "voice.wav", seconds=1)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium, for one module: its driver keeps an event loop in this thread."""
    with browsers.chromium() as found:
        yield found


@pytest.fixture
def visit(browser: Any) -> Iterator[browsers.Visit]:
    """A fresh window of the browser."""
    with browsers.visiting(browser) as opened:
        yield opened
