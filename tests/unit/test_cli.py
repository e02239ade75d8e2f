import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from emer_ray import cli, cost
from emer_ray.store import claims, index, lease, record
from tests.unit.test_store import FINGERPRINT, manifest, write


def emer(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(cli.main, list(arguments))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture
def run(tmp_path: Path) -> str:
    """A run of three clips, one of them failed."""
    run = str(tmp_path / "run")
    index.save_manifest(run, index.assign_shards(manifest("a", "b", "c"), None, 2))
    write(run, 0, ["a"], ["b"])
    write(run, 1, ["c"], [])
    start = {"at": "2026-01-01T00:00:00Z"}
    config = {"recipe": "one_shot"}
    record.save(run, {"fingerprint": FINGERPRINT, "config": config, "starts": [start]})
    return run


def test_verify_says_so_and_exits_with_zero(run: str) -> None:
    code, out, err = emer("verify", run, "--json")
    assert code == 0
    found = json.loads(out.splitlines()[-1])
    assert (found["clips"], found["ok"], found["failed"], found["missing"]) == (3, 2, 1, 0)
    assert err.startswith("every clip ended exactly once; all 3 parts were read")


def test_verify_exits_with_one_and_the_remedy(run: str) -> None:
    next(Path(run, "explanations").iterdir()).unlink()
    code, out, err = emer("verify", run, "--json")
    assert code == 1
    assert json.loads(out.splitlines()[-1])["missing"] == 1
    assert "start `emer relabel`" in err


def test_status_counts_by_kind(run: str) -> None:
    code, out, _ = emer("status", run)
    assert code == 0
    assert "3 clips, 2 ok, 1 failed, 0 left" in out
    assert "1 failed in decode as corrupt" in out
    _, out, _ = emer("status", run, "--json")
    assert json.loads(out)["kinds"] == {"decode:corrupt": 1}


def test_status_says_what_the_run_cost_so_far(run: str) -> None:
    assert json.loads(emer("status", run, "--json")[1])["cost"] is None
    account = cost.Account({"decode": (2.0, 0.0), "reason.main": (1.0, 1.0)}, clips=3)
    counts = {"tokens": {"out": 3000.0}, "usd": {"answers": 0.6}}
    entry = {"pool": "reason.main", "actor": "a", "born": 0.0, "started": 0.0, "ended": 30.0}
    entry |= {"cpu": 1.0, "spans": [[0.0, 30.0]], "counts": counts}
    account.add([entry], clips=3, now_s=30.0)
    journal = record.require(run)
    journal["starts"][-1]["cost"] = account.record(36.0, now_s=36.0)
    record.save(run, journal | {"cost": cost.total(journal["starts"])})
    code, out, _ = emer("status", run)
    assert code == 0
    assert "3 clips cost, in brackets per 1,000 clips:" in out
    assert "  0.01 GPU hours (3.33)\n" in out
    assert "  0.003 million tokens out (1)\n" in out
    assert "  0.6 USD for answers (200)\n" in out
    assert "tokens in" not in out  # nobody said
    assert "  reason.main: 1 actors, 0.1 clips/s each\n" in out
    found = json.loads(emer("status", run, "--json")[1])
    assert found["cost"]["gpu_s"] == 36.0
    assert found["pools"]["reason.main"]["busy_s"] == 30.0


def test_status_tells_a_live_a_dead_and_a_silent_driver(run: str) -> None:
    _, out, _ = emer("status", run)
    assert "finished, 3 clips" in out
    assert "`emer verify` proves" in out
    next(Path(run, "explanations").glob("00000001*")).unlink()
    _, out, _ = emer("status", run)
    assert "stopped, 3 clips, 1 ok, 1 failed, 1 left" in out
    assert "start `emer relabel` again" in out
    claims.claim(run, "explain", 1)
    with lease.held(run):
        _, out, _ = emer("status", run)
        assert "running, 3 clips" in out
        assert f"driver: process {os.getpid()}" in out
        assert "explain works on shard 1 since" in out
        for part in Path(run).glob("*/*.parquet"):
            os.utime(part, (0, 0))
        _, out, _ = emer("status", run)
        assert "stalled" in out
        assert "but nothing was stored for" in out
        left = Path(run, "lease.json").read_text()
    Path(run, "lease.json").write_text(left.replace(f'"pid": {os.getpid()}', '"pid": 4194304'))
    found = json.loads(emer("status", run, "--json")[1])
    assert (found["state"], found["left"], found["driver"]) == ("died", 1, None)
    assert "process 4194304" in emer("status", run)[1]


def test_show_tells_a_failure(run: str) -> None:
    code, out, _ = emer("show", run, "b")
    assert code == 0
    assert "failed in decode as corrupt: no" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("show", "RUN", "bb"), "no clip 'bb' in its manifest; near: b"),
        (("verify", "RUN/nothing"), "not a run directory"),
        (("status", "RUN/nothing"), "not a run directory"),
        (("relabel", "--set", "media.frames=no"), "media.frames: Input should be a valid integer"),
        (("relabel", "--set", "frames=3"), "unknown key frames: did you mean media.frames?"),
        (("relabel", "--set", "frames"), "give KEY=VALUE"),
        (("relabel", "nothing.toml"), "configuration nothing.toml: No such file or directory"),
        (("relabel", "--retry-failed=timeouts"), "no failure kind 'timeouts'"),
        (("recipes", "nothing"), "recipe 'nothing': unknown; take"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_two(
    run: str, arguments: tuple[str, ...], sentence: str
) -> None:
    code, _, err = emer(*(argument.replace("RUN", run) for argument in arguments))
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    assert err.startswith("emer: ")
    assert sentence in err


def test_text_from_data_cannot_steer_the_terminal() -> None:
    assert cli._inert("a\x1b[31m\nb\u202e") == "a [31m b "


def test_recipes_are_listed() -> None:
    code, out, _ = emer("recipes", "--json")
    assert code == 0
    assert "one_shot" in json.loads(out.splitlines()[-1])


def test_a_recipe_is_printed_with_its_prompts() -> None:
    code, out, _ = emer("recipes", "clue_merge", "--language", "zh")
    assert code == 0
    assert "merge: prompt clue_merge, model text, sees text, reads visual, acoustic" in out
    assert "    | 你将得到关于片段中所见、所闻的线索" in out


def test_flags_are_few_and_known() -> None:
    flags = {
        option
        for command in cli.main.commands.values()
        for parameter in command.params
        for option in parameter.opts
        if option.startswith("--")
        and command.name in ("demo", "relabel", "status", "show", "verify")
    }
    assert flags == {
        *("--folder", "--json", "--set", "--retry-failed", "--accept", "--take-over"),
        *("--reparse", "--deep"),
    }
