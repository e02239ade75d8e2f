"""What travels to a cluster, under which name, and what is refused before anything does."""

import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from emer_ray import jobserver, submit
from emer_ray.errors import ConfigError, JobError
from emer_ray.jobserver import Job

CONFIG = '[input]\nmanifest = "clips.csv"\n[output]\nrun = "s3://bucket/runs/first"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkout with a job, a configuration that git ignores, and what no job needs."""
    files = {
        "jobs/relabel.py": "print()\n",
        "mine.toml": CONFIG,
        ".gitignore": "mine.toml\n/runs/\n",
        "emer_ray/cli.py": "x = 1\n",
        ".venv/lib/big.py": "x",
        "env/pyvenv.cfg": "",
        "env/lib/big.py": "x",
        "runs/first/run.json": "{}",
        "runs/first/part.parquet": "x",
        "emer_ray/__pycache__/cli.pyc": "x",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def ordered(folder: Path, *overrides: str) -> submit.Order:
    return submit.order(folder, submit.RELABEL, ["mine.toml"], overrides)


def packed(wanted: submit.Order, into: Path) -> list[str]:
    files, size = submit.pack(wanted, into)
    with zipfile.ZipFile(into) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
    assert (files, size) == (len(names), into.stat().st_size)
    return names


@pytest.mark.parametrize("git", [True, False])
def test_what_travels_is_what_git_would_keep_and_the_configuration(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, *, git: bool
) -> None:
    if git:
        subprocess.run(["git", "init", "-q", str(folder)], check=True)
        (folder / ".git/info/exclude").write_text(".venv\nenv\n__pycache__\n")
    out = tmp_path_factory.mktemp("out")
    names = packed(ordered(folder), out / "a.zip")
    seen = {"emer_ray/cli.py", "jobs/relabel.py", "mine.toml"}
    assert set(names) == seen | ({".gitignore"} if git else set())
    packed(ordered(folder), out / "b.zip")
    assert (out / "a.zip").read_bytes() == (out / "b.zip").read_bytes()  # Ray uploads it once


def test_a_folder_too_large_is_refused_with_its_largest_files(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobserver, "PACKAGE_BYTES", 2**20)
    (folder / "noise.bin").write_bytes(os.urandom(2**20))
    (folder / "zeros.bin").write_bytes(bytes(2**22))
    with pytest.raises(JobError, match=r"1 MB packed, and Ray takes 1; .*are noise\.bin \(1\.0 MB"):
        submit.pack(ordered(folder), tmp_path / "a.zip")


def test_the_command_is_that_of_the_job(folder: Path) -> None:
    wanted = ordered(folder, "input.where=split = 'test'", "output.run=s3://other/run")
    assert wanted.run == "s3://other/run"
    assert wanted.command == (
        "python jobs/relabel.py mine.toml --set 'input.where=split = '\"'\"'test'\"'\"'' "
        "--set output.run=s3://other/run"
    )
    (folder / "jobs/evaluate.py").touch()
    other = submit.order(folder, "jobs/evaluate.py", ["s3://a/run", "--reference", "b.csv"], ())
    assert (other.command, other.run) == (
        "python jobs/evaluate.py s3://a/run --reference b.csv",
        None,
    )


def test_mistakes_are_said_before_anything_travels(folder: Path) -> None:
    for door, arguments, overrides, said in (
        ("jobs/none.py", ["mine.toml"], (), "no such file"),
        (submit.RELABEL, [str(folder / "mine.toml")], (), "inside of"),
        (submit.RELABEL, [], (), "inside of"),
        (submit.RELABEL, ["none.toml"], (), "inside of"),
    ):
        with pytest.raises(JobError, match=said):
            submit.order(folder, door, arguments, overrides)
    with pytest.raises(ConfigError, match=r"output\.runs"):
        ordered(folder, "output.runs=x")


def job(wanted: submit.Order, attempt: int, status: str) -> Job:
    about = {"emer_order": submit._key(wanted), "emer_attempt": str(attempt)}
    name = f"emer-first-{about['emer_order']}-{attempt}"
    return Job(name=name, status=status, exit_code=None, message="", metadata=about)


def test_a_run_has_one_job_at_a_time(folder: Path) -> None:
    wanted = ordered(folder)
    foreign = Job(name="x", status="RUNNING", exit_code=None, message="", metadata={})
    known = [job(wanted, 1, "FAILED"), job(wanted, 2, "STOPPED"), foreign]
    name, attempt = submit._named(wanted, known)
    assert (name, attempt) == (f"emer-first-{submit._key(wanted)}-3", 3)
    with pytest.raises(JobError, match=r"runs/first: job emer-first-.*-3 is PENDING already"):
        submit._named(wanted, [*known, job(wanted, 3, "PENDING")])
    assert submit._named(ordered(folder, "output.run=s3://b/2"), known)[1] == 1


def test_no_server_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in jobserver.ADDRESSES:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(JobError, match="no cluster named; give --address"):
        jobserver.Server(None)
    monkeypatch.setenv(jobserver.ADDRESSES[0], "http://127.0.0.1:1")  # --address wins
    with pytest.raises(JobError, match=r"127\.0\.0\.1:2: no job server answers"):
        jobserver.Server("http://127.0.0.1:2")
