"""Weights: the lock file's grammar, fetching by a real pip, refusing what is wrong, degrading."""

import base64
import copy
import hashlib
import json
import os
import re
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from emer_ray import models, weights, weights_tfjs
from emer_ray.errors import ModelError

CONTENT = b"forty-two parameters" * 1000


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _wheel(folder: Path, package: str, files: dict[str, bytes]) -> Path:
    """Write a wheel that pip accepts."""
    info = f"{package}-1.0.dist-info"
    files = files | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n"
        "Requires-Dist: a-framework-nobody-has\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{name},sha256={base64.urlsafe_b64encode(bytes.fromhex(_sha(data))).decode()[:-1]},"
        f"{len(data)}\n"
        for name, data in files.items()
    )
    path = folder / f"{package}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, data in (files | {f"{info}/RECORD": record.encode()}).items():
            wheel.writestr(zipfile.ZipInfo(name), data)
    return path


def _source(archive: Path, package: str, name: str, inside: str) -> dict[str, Any]:
    data = archive.read_bytes()
    file = {
        "name": name,
        "inside": [inside],
        "convert": None,
        "sha256": _sha(CONTENT),
        "size": len(CONTENT),
        "licence": "MIT",
    }
    return {
        "package": package,
        "version": "1.0",
        "registry": "pypi",
        "archive": archive.name,
        "sha256": _sha(data),
        "size": len(data),
        "gives": f"what {package} is for",
        "note": "made by this test",
        "files": [file],
    }


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A lock file with one set of two local wheels, an own cache, and a pip that stays local."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    sources = [
        _source(
            _wheel(wheels, name, {f"{name}/w.bin": CONTENT}), name, f"{name}.bin", f"{name}/w.bin"
        )
        for name in ("eyes", "ears")
    ]
    monkeypatch.setenv("EMER_MODELS", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    value = {"sets": {"tiny": {"about": "", "sources": sources}}}
    monkeypatch.setattr(weights, "_lock", lambda: value)
    return value


def _tiny(lock: dict[str, Any]) -> list[dict[str, Any]]:
    sources: list[dict[str, Any]] = lock["sets"]["tiny"]["sources"]
    return sources


# the lock file


@pytest.mark.parametrize("name", weights.names())
def test_every_source_and_file_is_pinned(name: str) -> None:
    targets = []
    for source in weights.sources(name):
        assert re.fullmatch(r"\d+(\.\d+)+", source.version), source.package
        assert source.gives
        assert source.note
        assert source.files
        assert re.fullmatch(r"[0-9a-f]{64}", source.sha256), source.package
        assert source.size > 0
        # no wheel of one Python or of a list of platforms: `pip download --platform` takes one name
        kind = r".+\.tgz" if source.registry == "npm" else r".+py3-none-[a-z0-9_]+\.whl"
        assert re.fullmatch(kind, source.archive), source.archive
        for file in source.files:
            assert re.fullmatch(r"[0-9a-f]{64}", file.sha256), file.name
            assert file.size > 0
            assert file.licence
            assert ".." not in file.name
            assert not file.name.startswith("/")
            assert file.inside
            targets.append(file.name)
    assert len(set(targets)) == len(targets)


def test_the_embedded_set_has_the_names_perception_asks_for() -> None:
    names = {file.name for source in weights.sources("embedded") for file in source.files}
    assert names == {
        "face_detection_full_range.tflite",
        "face_landmark.tflite",
        "fer_mini_xception.tflite",
        "face_expression.onnx",
        "silero_vad.onnx",
        "minilm.onnx",
        "minilm_tokenizer.json",
        "moonshine/encoder_model.ort",
        "moonshine/decoder_model_merged.ort",
        "moonshine/tokenizer.bin",
    }


def test_an_unknown_set_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ModelError, match="known sets: embedded"):
        weights.fetch("omni")


# fetching


def test_fetch_takes_the_files_out_and_asks_nobody_again(
    lock: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    folder = weights.fetch("tiny", said.append)
    assert [line.split()[0] for line in said] == ["eyes", "ears"]
    assert weights.locate("tiny") == {n: folder / n for n in ("eyes.bin", "ears.bin")}
    assert (folder / "eyes.bin").read_bytes() == CONTENT
    assert stat.S_IMODE((folder / "eyes.bin").stat().st_mode) & 0o044, "others must read it"
    assert weights.missing("tiny") == {}
    left = sorted(path.name for path in folder.iterdir())
    assert left == [".lock", "ears.bin", "eyes.bin"], "a fetch leaves nothing behind"

    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")  # any download would now fail
    said.clear()
    weights.fetch("tiny", said.append)
    assert said == []


def test_a_wheel_of_another_platform_gives_its_files_here(
    lock: dict[str, Any], tmp_path: Path
) -> None:
    source = _tiny(lock)[0]
    foreign = source["archive"].replace("any", "win_arm64")
    (tmp_path / "wheels" / source["archive"]).rename(tmp_path / "wheels" / foreign)
    source["archive"] = foreign
    weights.fetch("tiny")
    assert set(weights.locate("tiny")) == {"eyes.bin", "ears.bin"}


def test_fetch_resumes_with_what_is_absent_or_wrong(lock: dict[str, Any]) -> None:
    folder = weights.fetch("tiny")
    (folder / "ears.bin").write_bytes(b"x" * len(CONTENT))
    (folder / ".fetch-killed").mkdir()
    (folder / ".fetch-killed" / "half.whl").write_bytes(b"half")
    assert "fails its checksum" in weights.missing("tiny")["ears.bin"]
    said: list[str] = []
    weights.fetch("tiny", said.append)
    assert len(said) == 1
    assert said[0].startswith("ears 1.0: fetching")
    assert (folder / "ears.bin").read_bytes() == CONTENT
    assert not (folder / ".fetch-killed").exists()


def test_the_revision_names_what_is_present(lock: dict[str, Any]) -> None:
    folder = weights.fetch("tiny")
    whole = weights.revision("tiny")
    (folder / "ears.bin").unlink()
    assert weights.revision("tiny") != whole
    weights.fetch("tiny")
    assert weights.revision("tiny") == whole


def test_a_wrong_archive_is_refused_with_both_checksums(lock: dict[str, Any]) -> None:
    right = _tiny(lock)[0]["sha256"]
    _tiny(lock)[0]["sha256"] = "0" * 64
    with pytest.raises(ModelError, match=f"{right}.*{'0' * 64}"):
        weights.fetch("tiny")
    assert weights.locate("tiny") == {}


def test_a_wrong_file_in_a_right_archive_is_refused(lock: dict[str, Any]) -> None:
    _tiny(lock)[0]["files"][0]["sha256"] = "f" * 64
    with pytest.raises(ModelError, match=f"eyes.bin out of .*{_sha(CONTENT)}.*{'f' * 64}"):
        weights.fetch("tiny")
    assert not (weights.cache_dir() / "tiny" / "eyes.bin").exists()


def test_a_withdrawn_package_costs_its_own_part_only(lock: dict[str, Any]) -> None:
    _tiny(lock)[0]["version"] = "9.9"
    said: list[str] = []
    weights.fetch("tiny", said.append)
    assert set(weights.locate("tiny")) == {"ears.bin"}
    assert said[1] == (
        "eyes 9.9: pypi: ERROR: No matching distribution found for eyes==9.9; "
        "going on without what eyes is for"
    )
    assert weights.missing("tiny") == {
        "eyes.bin": "eyes 9.9 was not fetched; run: emer models fetch tiny"
    }


def test_nothing_at_all_is_an_error(lock: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    with pytest.raises(ModelError, match=r"nothing of 'tiny' could be fetched: eyes 1.0: .*ears"):
        weights.fetch("tiny")


def test_without_npm_its_part_is_missing_and_the_others_work(
    lock: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _tiny(lock)[0] |= {"registry": "npm", "archive": "eyes-1.0.tgz"}
    (tmp_path / "no-npm").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "no-npm"))
    said: list[str] = []
    outcome = models.models_fetch("tiny", said.append)
    assert outcome["files"] == 1
    [missing] = outcome["missing"]
    assert missing["file"] == "eyes.bin"
    assert missing["lost"] == "what eyes is for"
    assert "npm is not installed" in missing["reason"]
    assert any("npm is not installed; going on without" in line for line in said)


def _npm(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a script in npm's place; npm itself runs in the tests marked `weights`."""
    folder.mkdir()
    (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_a_package_out_of_npm(
    lock: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "who-eyes-1.0.tgz"
    (tmp_path / "w.bin").write_bytes(CONTENT)
    with tarfile.open(archive, "w:gz") as package:
        package.add(tmp_path / "w.bin", "package/w.bin")
    source = _source(archive, "@who/eyes", "eyes.bin", "package/w.bin")
    _tiny(lock)[0] = source | {"registry": "npm"}
    script = f'[ "$1 $6" = "pack @who/eyes@1.0" ] && cp {archive} "$5"'
    _npm(tmp_path / "bin", script, monkeypatch)
    weights.fetch("tiny")
    assert weights.locate("tiny")["eyes.bin"].read_bytes() == CONTENT


def test_what_npm_says_is_passed_on(
    lock: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _tiny(lock)[0] |= {"registry": "npm", "archive": "eyes-1.0.tgz"}
    script = 'echo "npm error code ETARGET" >&2; echo "npm error and much more" >&2; exit 1'
    _npm(tmp_path / "bin", script, monkeypatch)
    said: list[str] = []
    weights.fetch("tiny", said.append)
    line = "eyes 1.0: npm: npm error code ETARGET; going on without what eyes is for"
    assert line in said


def test_an_environment_without_pip_is_told_what_to_do(
    lock: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"has no pip.*uv pip install pip"):
        weights.fetch("tiny")


def test_a_cache_that_cannot_be_written_is_named(
    lock: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("EMER_MODELS", str(tmp_path / "file"))
    with pytest.raises(ModelError, match=r"cannot write the model cache .*EMER_MODELS"):
        weights.fetch("tiny")


FETCHER = """
import json, sys
from emer_ray import weights
lock = json.loads(sys.argv[1])
weights._lock = lambda: lock
said = []
weights.fetch("tiny", said.append)
print(json.dumps([said, sorted(weights.locate("tiny"))]))
"""


def test_two_fetchers_at_once_download_once(lock: dict[str, Any]) -> None:
    command = [sys.executable, "-c", FETCHER, json.dumps(lock)]
    fetchers = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)
    ]
    outcomes = []
    for fetcher in fetchers:
        out, err = fetcher.communicate(timeout=60)
        assert fetcher.returncode == 0, err.decode()
        outcomes.append(json.loads(out))
    assert sum(len(said) for said, _ in outcomes) == 2, "each wheel is fetched by one of them"
    assert [present for _, present in outcomes] == [["ears.bin", "eyes.bin"]] * 2


# sharing


def test_push_to_a_folder_and_list(lock: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nothing of 'tiny' is here to push"):
        weights.push("tiny", str(tmp_path / "shared"))
    weights.fetch("tiny")
    outcome = models.models_push("tiny", str(tmp_path / "shared"))
    assert len(outcome["files"]) == 2
    assert (tmp_path / "shared" / "tiny" / "eyes.bin").read_bytes() == CONTENT
    listed = models.models_list()
    assert [(row["file"], row["missing"]) for row in listed["files"]] == [
        ("eyes.bin", None),
        ("ears.bin", None),
    ]
    json.dumps(listed)


@pytest.mark.s3
def test_a_node_reads_the_bucket_once(
    lock: dict[str, Any], bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights.fetch("tiny")
    weights.push("tiny", f"{bucket}/weights")
    monkeypatch.setenv("EMER_MODELS", f"{bucket}/weights")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "node"))
    paths = weights.locate("tiny")
    assert paths["eyes.bin"] == tmp_path / "node" / "emer_ray" / "models" / "tiny" / "eyes.bin"
    assert paths["eyes.bin"].read_bytes() == CONTENT
    before = paths["eyes.bin"].stat().st_mtime_ns

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody answers there
    assert weights.locate("tiny")["eyes.bin"].stat().st_mtime_ns == before


@pytest.mark.s3
def test_a_bucket_that_lacks_or_spoils_a_file(
    lock: dict[str, Any], bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = weights.fetch("tiny")
    (folder / "ears.bin").unlink()
    weights.push("tiny", bucket)
    monkeypatch.setenv("EMER_MODELS", bucket)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "node"))
    assert set(weights.locate("tiny")) == {"eyes.bin"}
    assert f"not in {bucket}" in weights.missing("tiny")["ears.bin"]

    weights.storage.write(weights.storage.join(bucket, "tiny", "ears.bin"), b"something else")
    with pytest.raises(ModelError, match=r"ears.bin out of .* is refused"):
        weights.locate("tiny")


# the converter


def test_dequantise_reads_shapes_scales_and_plain_floats() -> None:
    manifest = [
        {
            "weights": [
                {
                    "name": "a",
                    "shape": [2, 2],
                    "dtype": "float32",
                    "quantization": {"dtype": "uint8", "scale": 0.5, "min": -1.0},
                },
                {"name": "b", "shape": [], "dtype": "float32"},
            ]
        }
    ]
    data = bytes([0, 2, 4, 255]) + np.float32(3.25).tobytes()
    arrays = weights_tfjs.dequantise(data, json.dumps(manifest).encode())
    assert arrays["a"].tolist() == [[-1.0, 0.0], [1.0, 126.5]]
    assert arrays["b"] == 3.25


def _random_network() -> tuple[bytes, bytes]:
    """The expression network's shapes with small random weights, not quantised."""
    shapes: dict[str, list[int]] = {}
    for block, (inputs, outputs) in enumerate([(3, 4), (4, 6), (6, 8), (8, 8)]):
        for layer in range(4):
            key, fan_in = f"dense{block}/conv{layer}", inputs if layer == 0 else outputs
            if block == layer == 0:
                shapes[f"{key}/filters"] = [3, 3, fan_in, outputs]
            else:
                shapes[f"{key}/depthwise_filter"] = [3, 3, fan_in, 1]
                shapes[f"{key}/pointwise_filter"] = [1, 1, fan_in, outputs]
            shapes[f"{key}/bias"] = [outputs]
    shapes |= {"fc/weights": [8, 7], "fc/bias": [7]}
    rng = np.random.default_rng(7)
    arrays = {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}
    manifest = [{"weights": [{"name": n, "shape": shapes[n], "dtype": "float32"} for n in arrays]}]
    return b"".join(a.tobytes() for a in arrays.values()), json.dumps(manifest).encode()


def _by_hand(arrays: dict[str, Any], rgb: Any) -> Any:
    """Compute the same network in numpy, loops over the kernel and nothing clever."""

    def convolve(x: Any, kernel: Any, stride: int) -> Any:
        side, size = x.shape[1], kernel.shape[0]
        out = -(-side // stride)
        pad = max((out - 1) * stride + size - side, 0)
        before = pad // 2
        x = np.pad(x, ((0, 0), (before, pad - before), (before, pad - before), (0, 0)))
        span = (out - 1) * stride + 1
        return sum(
            x[:, i : i + span : stride, j : j + span : stride] @ kernel[i, j]
            for i in range(size)
            for j in range(size)
        )

    def separable(x: Any, key: str, stride: int = 1) -> Any:
        # a depthwise kernel is a diagonal one
        depthwise = np.stack(
            [[np.diag(k[:, 0]) for k in row] for row in arrays[f"{key}/depthwise_filter"]]
        )
        x = convolve(x, depthwise, stride)
        return x @ arrays[f"{key}/pointwise_filter"][0, 0] + arrays[f"{key}/bias"]

    relu = lambda x: np.maximum(x, 0)  # noqa: E731
    x = (rgb - np.asarray(weights_tfjs.MEAN_RGB, np.float32)) / 255
    for block in range(4):
        key = f"dense{block}/conv"
        if block == 0:
            a = relu(convolve(x, arrays[f"{key}0/filters"], 2) + arrays[f"{key}0/bias"])
        else:
            a = relu(separable(x, f"{key}0", 2))
        b = separable(a, f"{key}1")
        c = separable(relu(a + b), f"{key}2")
        d = separable(relu(a + b + c), f"{key}3")
        x = relu(a + b + c + d)
    x = x.mean((1, 2)) @ arrays["fc/weights"] + arrays["fc/bias"]
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def test_the_onnx_graph_is_the_network_and_its_bytes_are_stable() -> None:
    network = _random_network()
    model = weights_tfjs.expression_onnx(*network)
    assert model == weights_tfjs.expression_onnx(*copy.deepcopy(network))
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    rgb = np.random.default_rng(1).uniform(0, 255, (2, 112, 112, 3)).astype(np.float32)
    [found] = session.run(None, {"rgb": rgb})
    assert found.shape == (2, len(weights_tfjs.EXPRESSIONS))
    expected = _by_hand(weights_tfjs.dequantise(*network), rgb)
    assert np.ptp(expected) > 0.05, "a flat answer would prove nothing"
    np.testing.assert_allclose(found, expected, atol=1e-5)


# the real thing


@pytest.mark.weights
def test_the_embedded_weights_load(weights: dict[str, Path]) -> None:
    for name, path in weights.items():
        if path.suffix == ".onnx":
            onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        assert path.stat().st_size > 0, name


@pytest.mark.weights
def test_no_network_when_all_is_there(
    weights: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert weights
    monkeypatch.setenv("PATH", str(tmp_path))  # no npm
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))  # no wheels
    outcome = models.models_fetch("embedded")
    assert outcome["missing"] == []
    assert outcome["files"] == len(weights)
