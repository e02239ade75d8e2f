"""The judge as whole jobs on Ray: stored answers with values worked out by hand, on S3; a tiny real
model; an endpoint with a price.
"""

import csv
import io
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner

from emer_ray import storage
from emer_ray.cli import main
from emer_ray.runner import Cluster
from tests.chat_server import serving

pytestmark = pytest.mark.ray

GOLD = {
    "a": ("he cries", "[sad, lonely]"),
    "b": ("she smiles", "[happy]"),
    "c": ("they shout", "[angry]"),
    "d": ("", ""),
    "e": ("he waits", "[calm]"),
}
PRED = {
    "a": ("he weeps", "[unhappy]"),
    "c": ("they yell", "[furious, calm]"),
    "d": ("he nods", "[x]"),
    "e": ("he stands", "[serene]"),
}
OTHER = {
    "a": ("he laughs", ""),
    "b": ("she grins", ""),
    "c": ("a quarrel", ""),
    "e": ("idle", ""),
}
STORED = {
    "a:clue": "8, because both see tears",
    "c:clue": "well",
    "c:clue:again": "3.5",
    "e:clue": "no",
    "e:clue:again": "none",
    "a:state.gold": "sad",
    "a:state.pred": "low",
    "a:label": "9",
    "c:state.gold": "<think>7 or 8?</think>cross",
    "c:state.pred": "cross too",
    "c:label": "<think>10?</think> 2",
    "a:set": "0.75",
    "c:set": "0.50",
    "e:set": "0.2",
    "a:sentence": "0.6",
    "c:sentence": "0.4",
    "e:sentence": "0.1",
    "a:groups": '[["sad", "unhappy"], ["lonely"]]',
    "c:groups": "[['angry', 'furious'], ['calm']]",
    "e:groups": "these words differ",
    "a:preference": "a1",
    "a:preference.swapped": "a2",
    "c:preference": "a2",
    "c:preference.swapped": "a1",
    "e:preference": "a1",
    "e:preference.swapped": "a1",
}
"""No states of e, so its label overlap fails; no e:groups:again, so its groups are never read."""

BY_HAND = {  # value, n_scored, n_unparsable of five clips
    "judge.clue": ((8 + 1 + 3.5) / 3, 3, 1),
    "judge.label": ((9 + 1 + 2) / 3, 3, 1),
    "judge.set": ((0.75 + 0 + 0.5 + 0.2) / 4, 4, 0),
    "judge.sentence": ((0.6 + 0 + 0.4 + 0.1) / 4, 4, 0),
    "judge.preference": ((1 + 0 + 0 + 0.5) / 4, 4, 0),
    "judge.agreement": (2 / 3, 3, 0),
    "set.accuracy": ((1 + 0 + 0.5) / 3, 3, 1),
    "set.recall": ((0.5 + 0 + 1) / 3, 3, 1),
    "set.avg": (0.5, 3, 1),
}


def put(uri: str, head: list[str], rows: list[list[str]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows([head, *rows])
    storage.write(uri, text.getvalue().encode())
    return uri


def said(uri: str, clips: dict[str, tuple[str, str]]) -> str:
    rows = [[clip, *cells] for clip, cells in clips.items()]
    return put(uri, ["name", "explanation", "openset"], rows)


def emer(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(main, [*arguments, "--resamples", "0", "--json"])
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def judge_of(tmp_path: Path, model: dict[str, Any], **top: str) -> str:
    lines = [f"{key} = {json.dumps(value)}" for key, value in top.items()]
    nested = {key: value for key, value in model.items() if isinstance(value, dict)}
    lines += ["[models.judge]"]
    lines += [f"{k} = {json.dumps(v)}" for k, v in model.items() if k not in nested]
    for key, table in nested.items():
        lines += [f"[models.judge.{key}]", *(f"{k} = {json.dumps(v)}" for k, v in table.items())]
    path = tmp_path / "judge.toml"
    path.write_text("\n".join(lines))
    return str(path)


def test_stored_answers_give_the_values_worked_out_by_hand(
    local_ray: Cluster, bucket: str, tmp_path: Path
) -> None:
    gold, pred = said(f"{bucket}/gold.csv", GOLD), said(f"{bucket}/pred.csv", PRED)
    other = said(f"{bucket}/other.csv", OTHER)
    stored = put(f"{bucket}/stored.csv", ["clip_id", "answer"], [[*i] for i in STORED.items()])
    judge = judge_of(tmp_path, {"backend": "replay", "model": stored})
    out = f"{bucket}/out"
    base = ["evaluate", pred, "--reference", gold, "--against", other, "--judge", judge]
    estimate = emer(*base, "--judge-dry-run", "--out", out)["judge"]
    assert (estimate["known"], estimate["usd"]) == (0, None)
    assert not list(storage.listing(out))

    first = emer(*base, "--out", out)
    for metric, (value, n_scored, n_unparsable) in BY_HAND.items():
        row = first["metrics"][metric]
        assert row["value"] == pytest.approx(value, abs=1e-9), metric
        counts = (row["n"], row["n_scored"], row["n_unparsable"])
        assert counts == (5, n_scored, n_unparsable), metric
        assert "stored.csv prompts en " in row["version"]
    assert first["judge"]["again"] == 2  # c:clue and e:clue; for e:groups there is no second
    once = [name for name in STORED if not name.endswith(":again")]
    assert first["judge"]["asked"] == len(once) + 2  # and both states of e
    assert first["judge"]["failed"] == {"no_answer": 2}
    assert estimate["questions"] == first["judge"]["asked"] + 1  # and what they would have led to

    scores = pl.read_parquet(io.BytesIO(storage.read(f"{out}/scores.parquet")))
    assert scores["judge.clue"].to_list() == [8.0, 1.0, 3.5, None, None]
    assert scores["judge.clue.unparsable"].to_list() == [False] * 4 + [True]
    metrics = pl.read_parquet(io.BytesIO(storage.read(f"{out}/metrics.parquet")))
    assert "judge.preference" in metrics["metric"].to_list()
    assert not [e for e in storage.listing(f"{out}/judge") if "/claims/" in e.uri]

    again = emer(*base, "--out", out, "--partitions", "3")
    assert again["judge"]["asked"] == 2  # what failed, and nothing else
    for metric in BY_HAND:
        assert again["metrics"][metric] == first["metrics"][metric], metric

    files = ["evaluate", pred, "--reference", gold, "--groups", f"{out}/groups.json"]
    grouped = emer(*files)["metrics"]
    for metric in ("set.accuracy", "set.recall", "set.avg"):
        assert grouped[metric]["value"] == first["metrics"][metric]["value"]
        assert grouped[metric]["version"] == "groups"


def test_a_tiny_real_model_judges_everything(
    local_ray: Cluster, tiny: Path, tmp_path: Path
) -> None:
    gold, pred = said(str(tmp_path / "gold.csv"), GOLD), said(str(tmp_path / "pred.csv"), PRED)
    other = said(str(tmp_path / "other.csv"), OTHER)
    model = {
        "backend": "transformers",
        "model": str(tiny / "text"),
        "max_tokens": 8,
        "options": {"dtype": "float32"},
    }
    judge = judge_of(tmp_path, model, answers=str(tmp_path / "kept"))
    base = ["evaluate", pred, "--reference", gold, "--against", other, "--judge", judge]
    found = emer(*base)
    assert found["judge"]["asked"] > 16
    assert not found["judge"]["failed"]
    for metric in BY_HAND:
        row = found["metrics"][metric]
        assert row["n_scored"] + row["n_unparsable"] <= row["n"] == 5
    rows = [
        json.loads(line)
        for part in (tmp_path / "kept").rglob("*.jsonl")
        for line in part.read_text().splitlines()
    ]
    assert len(rows) == found["judge"]["asked"]
    assert all(row["tries"][0]["tokens_in"] > 100 for row in rows)
    assert emer(*base)["judge"]["asked"] == 0


def test_an_endpoint_judges_within_its_budget(
    local_ray: Cluster, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    texts = {f"c{number}": (f"he is number {number}", "") for number in range(12)}
    gold = put(
        str(tmp_path / "gold.csv"),
        ["name", "explanation", "licence_tag"],
        [
            [clip, text, "gated:MER" if clip == "c11" else "CC0-1.0"]
            for clip, (text, _) in texts.items()
        ],
    )
    pred = said(
        str(tmp_path / "pred.csv"), {c: (f"{t} of {c}.", "") for c, (t, _) in texts.items()}
    )

    def number(text: str) -> str:
        return next(clip for clip in reversed(texts) if f"of {clip}." in text)

    with serving(number) as server:
        server.acts |= {clip: [f"say:{clip[1:]}"] * 9 for clip in texts}  # 0 and 11 cannot be
        server.acts["c3"] = ["status:400"] * 9
        server.acts["c4"] = ["status:503:0", "say:4"]
        model = {
            "backend": "openai",
            "model": "m",
            "price": {"input_usd": 1000.0, "output_usd": 1000.0},
            "max_tokens": 100,
            "options": {"base_url": server.url, "in_flight": 2},
        }
        judge = judge_of(tmp_path, model, answers=str(tmp_path / "kept"), scores=["clue"])
        base = ["evaluate", pred, "--reference", gold, "--judge", judge]

        refused = CliRunner().invoke(main, [*base, "--set", "budget.usd=0.5"])
        assert refused.exit_code == 1
        assert "12 questions are predicted to cost" in refused.stderr
        assert not server.received

        # what is asked costs 1.1 USD each by the server's count, far more than was predicted
        stopped = CliRunner().invoke(main, [*base, "--set", "budget.usd=6"])
        assert stopped.exit_code == 1, stopped.output
        assert "budget.usd" in stopped.stderr
        assert "Traceback" not in capfd.readouterr().err
        paid = len(server.received)
        assert 0 < paid < 12

        kept = sum(len(part.read_text().splitlines()) for part in tmp_path.rglob("*.jsonl"))
        assert kept == 4  # five were paid for; the one that could not be read is asked again

        found = emer(*base)
        row = found["metrics"]["judge.clue"]
        assert row["value"] == pytest.approx(sum({*range(1, 11)} - {3}) / 9, abs=1e-9)
        assert (row["n"], row["n_scored"], row["n_unparsable"]) == (12, 9, 3)
        assert found["judge"]["failed"] == {"rejected": 1}
        assert found["judge"]["asked"] == 12 - kept
        assert len(server.received) > paid
        before = len(server.received)
        assert emer(*base)["metrics"]["judge.clue"] == row
        assert len(server.received) == before + 1  # the one that was rejected is tried again


def test_a_leaderboard_is_ranked_by_the_judge(local_ray: Cluster, tmp_path: Path) -> None:
    gold = said(str(tmp_path / "gold.csv"), {c: (c, "") for c in ("k", "l")})
    stored = []
    order = ["best", "fair", "poor"]
    for place, name in enumerate(order):
        said(str(tmp_path / "systems" / f"{name}.csv"), {c: (f"{name} {c}", "") for c in "kl"})
        stored += [[f"{name}/{clip}:clue", str(9 - place)] for clip in "kl"]
        stored += [
            [f"{name} or {worse}/{clip}:{what}", side]
            for worse in order[place + 1 :]
            for clip in "kl"
            for what, side in (("preference", "a1"), ("preference.swapped", "a2"))
        ]
    answers = put(str(tmp_path / "stored.csv"), ["clip_id", "answer"], stored)
    judge = judge_of(
        tmp_path,
        {"backend": "replay", "model": answers},
        answers=str(tmp_path / "kept"),
        scores=["clue", "preference"],
    )
    base = ["leaderboard", str(tmp_path / "systems"), "--reference", gold, "--judge", judge]
    assert emer(*base, "--judge-dry-run")["judge"]["questions"] == len(stored)
    board = emer(*base, "--metrics", "judge.clue,bleu1")
    assert board["order"] == order
    assert [board["systems"][name]["metrics"]["judge.clue"] for name in order] == [9, 8, 7]
    assert [rank["system"] for rank in board["preferences"]] == order
    assert board["judge"]["asked"] == len(stored)
    assert emer(*base)["judge"]["asked"] == 0
