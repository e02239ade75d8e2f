"""Whole evaluations: inputs of every kind, counts, breakdowns, and properties that must hold."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emer_ray import schema
from emer_ray.cli import main
from emer_ray.errors import ConfigError
from emer_ray.evaluate import Evaluation, evaluate, options
from emer_ray.leaderboard import leaderboard
from emer_ray.metrics import lexicon, sets
from emer_ray.metrics.comparison import Options

OPTIONS = Options(wheels=lexicon.default(), resamples=0)

Table = Mapping[str, Sequence[Any]]


def write(path: Path, columns: Table) -> str:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return str(path)


@pytest.fixture
def score(tmp_path: Path) -> Callable[..., Evaluation]:
    def run(pred: Table, gold: Table, chosen: Options = OPTIONS, **more: Any) -> Evaluation:
        pred_csv = write(tmp_path / "pred.csv", pred)
        return evaluate(pred_csv, write(tmp_path / "gold.csv", gold), chosen, **more)

    return run


def named(*cells: str) -> Table:
    return {"name": [f"c{i}" for i in range(len(cells))], "openset": cells}


def test_missing_extra_and_repeated_clips_are_counted(score: Callable[..., Evaluation]) -> None:
    gold = {"name": ["a", "b", "c", "c"], "openset": ["[sad]", "[happy]", "[sad]", "[angry]"]}
    pred = {"name": ["a", "a", "c", "z"], "openset": ["[happy]", "[sad]", "[angry]", "[sad]"]}
    result = score(pred, gold)
    facts = result.summary()
    assert [facts[k] for k in ("clips", "missing", "extra", "duplicates")] == [3, 1, 1, 2]
    # of repeated names the last row counts: a and c are right, b has no prediction
    assert result.value("wheel.M1.p") == pytest.approx(2 / 3)
    assert facts["metrics"]["wheel.M1.p"]["n_empty"] == 1


def test_nothing_scored_is_null(score: Callable[..., Evaluation]) -> None:
    summary = score(named("[happy]", "[sad]"), named("[]", "[qqqq]")).summary()
    for metric in ("wheel.M1.f", "wheel.W5.L2.r", "wheel.mean.L1.f", "wheel.m_avg", "soft.f"):
        assert summary["metrics"][metric]["value"] is None
        assert summary["metrics"][metric]["n_scored"] == 0
        assert summary["metrics"][metric]["n"] == 2
    # a label no table knows is still a label to the exact match
    assert summary["metrics"]["exact.p"]["n_scored"] == 1
    json.dumps(summary)


def test_nothing_in_common_is_0_and_not_null(score: Callable[..., Evaluation]) -> None:
    result = score(named("[happy]", ""), named("[sad]", "[angry]"))
    assert result.value("wheel.M1.f") == 0.0
    assert result.value("wheel.mean.L1.f") == 0.0
    assert result.value("set.avg") == 0.0


def test_a_reference_without_any_label_is_skipped(score: Callable[..., Evaluation]) -> None:
    metrics = score(named("[happy]"), named("")).summary()["metrics"]
    assert metrics["wheel.M1.f"]["n"] == 1
    assert {metrics[m]["value"] for m in ("wheel.M1.f", "set.avg", "wheel.mean.L1.f")} == {None}


def test_a_column_without_content_gives_way(score: Callable[..., Evaluation]) -> None:
    gold = {"name": ["a"], "openset": [""], "label": ["happy"], "valence": [""]}
    pred = {"name": ["a"], "openset": ["[happy]"], "label": ["happy"], "valence": ["1"]}
    found = score(pred, gold).summary()["metrics"]
    assert found["acc"]["value"] == 1.0
    assert found["hit.mean"]["value"] == 1.0
    assert not [metric for metric in found if metric.startswith(("wheel", "valence"))]


def test_empty_tables(score: Callable[..., Evaluation]) -> None:
    summary = score(named(), named()).summary()
    assert summary["clips"] == 0
    assert {values["value"] for values in summary["metrics"].values()} == {None}


def test_groups_decide_which_clips_the_set_level_scores(score: Callable[..., Evaluation]) -> None:
    grouped = replace(OPTIONS, groups={"c0": [["glad", "happy"]], "elsewhere": [["x"]]})
    result = score(named("[glad]", "[sad]"), named("[Happy]", "[angry]"), grouped)
    metrics = result.summary()["metrics"]
    assert (metrics["set.avg"]["value"], metrics["set.avg"]["n_scored"]) == (1.0, 1)
    assert metrics["set.avg"]["version"] == "groups"
    assert metrics["exact.p"]["value"] == 0.0


def test_every_column_has_its_metrics(score: Callable[..., Evaluation]) -> None:
    gold = {
        "clip_id": ["a", "b", "c"],
        "openset": ["[happy]", "[sad]", "[angry]"],
        "label": ["Happy", "sad", "1"],
        "valence": ["1", "-1", "-0.5"],
        "explanation": ["he smiles", "he cries", ""],
        "preference": ["a1", "a2", "same"],
    }
    pred = {
        "name": ["a", "b", "c"],
        "openset": ["[happy]", "[happy]", "[]"],
        "label": ["happy", "happy", "sad"],
        "valence": ["0.5", "no number", "-0.5"],
        "explanation": ["he smiles", "", "x"],
        "preference": ["a1", "a2", "a2"],
        "ranking": ["happy, sad", "angry, sad", "angry"],
    }
    chosen = replace(OPTIONS, classes=("happy", "sad"), suite="mer2023.multi", resamples=20)
    result = score(pred, gold, chosen)
    assert result.value("acc") == pytest.approx(2 / 3)
    assert result.value("top1") == pytest.approx(1 / 3)
    assert result.value("top2") == pytest.approx(2 / 3)
    assert result.value("pref2.acc") == 1.0
    assert result.value("hit.mean") == pytest.approx(1 / 3)
    assert result.value("bleu1") is not None
    assert result.summary()["metrics"]["rouge_l"]["n_scored"] == 2
    assert result.value("rouge_l") == pytest.approx(0.5)
    assert result.summary()["metrics"]["valence.mse"]["n_unparsable"] == 1
    waf, mse = result.value("waf"), result.value("valence.mse")
    assert waf is not None
    assert mse is not None
    assert result.value("mer2023.multi") == pytest.approx(waf - 0.25 * mse)
    assert result.confusion is not None
    assert result.confusion["clips"].sum() == 3
    assert result.summary()["confusion"][0].keys() == {"gold", "guess", "clips"}
    assert "wheel.m_avg" in result.table()


def test_breakdowns_by_any_column_of_the_reference(score: Callable[..., Evaluation]) -> None:
    gold = {
        "name": ["a", "b", "c"],
        "openset": ["[happy]", "[sad]", "[sad]"],
        "speaker": ["s", "s", "t"],
        "start_s": ["0", "", "1"],
        "end_s": ["1.5", "3", "9.5"],
    }
    pred = {"name": ["a", "b", "c"], "openset": ["[happy]", "[angry]", "[sad]"]}
    result = score(pred, gold, replace(OPTIONS, by=("speaker", "length")))
    found = {(r.by, r.group): r.value for r in result.metrics if r.metric == "exact.p"}
    assert found == {
        ("", ""): pytest.approx(2 / 3),
        ("speaker", "s"): 0.5,
        ("speaker", "t"): 1.0,
        ("length", "<=2 s"): 1.0,
        ("length", "2-4 s"): 0.0,
        ("length", "8-16 s"): 1.0,
    }
    with pytest.raises(ConfigError, match="--by mood"):
        score(pred, gold, replace(OPTIONS, by=("mood",)))


def test_texts_break_down_by_a_label_that_nobody_guessed(score: Callable[..., Evaluation]) -> None:
    gold = {"name": ["a", "b"], "label": ["Happy", "sad"], "explanation": ["he smiles", "tears"]}
    pred = {"name": ["a", "b"], "explanation": ["he smiles", "laughs"]}
    result = score(pred, gold, replace(OPTIONS, by=("label",), cluster="label", resamples=0))
    found = {r.group: r.value for r in result.metrics if (r.metric, r.by) == ("rouge_l", "label")}
    assert found == {"happy": 1.0, "sad": 0.0}


LABELS = ["happy", "Happy ", "sad", "angry", "worried", "zzzz", "surprised", "calm"]
cells = st.lists(st.lists(st.sampled_from(LABELS), max_size=4).map(str), min_size=1, max_size=12)
slow = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def overall(result: Evaluation) -> dict[str, tuple[float | None, int, int]]:
    return {r.metric: (r.value, r.n_scored, r.n_empty) for r in result.metrics}


def same(one: Evaluation, two: Evaluation) -> None:
    a, b = overall(one), overall(two)
    assert a.keys() == b.keys()
    for metric, (value, *counts) in a.items():
        assert counts == list(b[metric][1:]), metric
        assert value == pytest.approx(b[metric][0], abs=1e-12), metric


@slow
@given(cells, cells, st.randoms(use_true_random=False))
def test_order_and_partitions_change_nothing(
    score: Callable[..., Evaluation], gold: list[str], pred: list[str], random: Any
) -> None:
    g, p = named(*gold), named(*pred)
    whole = score(p, g)
    order = list(range(len(gold)))
    random.shuffle(order)
    shuffled = {name: [column[i] for i in order] for name, column in g.items()}
    same(whole, score(p, shuffled))
    same(whole, score(p, g, partitions=3))


@slow
@given(cells)
def test_everything_agrees_with_itself(score: Callable[..., Evaluation], gold: list[str]) -> None:
    result = score(named(*gold), named(*gold))
    for row in result.metrics:
        if not row.metric.startswith("n_labels"):
            assert row.value is None or row.value == pytest.approx(1.0), row.metric
            assert (row.value is None) == (row.n_scored == 0)


@slow
@given(cells, cells)
def test_swapping_the_sides_swaps_precision_and_recall(
    score: Callable[..., Evaluation], gold: list[str], pred: list[str]
) -> None:
    n = min(len(gold), len(pred))
    g, p = named(*gold[:n]), named(*pred[:n])
    there, back = score(p, g).scores, score(g, p).scores
    assert there is not None
    assert back is not None
    for metric in ("wheel.M1", "wheel.W2.L1", "soft", "exact"):
        pairs = zip(there[f"{metric}.p"], back[f"{metric}.r"], back["n_labels_gold"], strict=True)
        for p_there, r_back, _ in pairs:
            if p_there is not None and r_back is not None:
                assert p_there == pytest.approx(r_back)


@slow
@given(cells, cells)
def test_duplicates_and_case_change_nothing(
    score: Callable[..., Evaluation], gold: list[str], pred: list[str]
) -> None:
    def loud(cell: str) -> str:
        return cell.upper()

    def twice(cell: str) -> str:
        return cell.replace("]", ", " + cell.strip("[]") + "]")

    plain = score(named(*pred), named(*gold))
    for change in (loud, twice):
        changed = score(named(*map(change, pred)), named(*gold))
        for row, other in zip(plain.metrics, changed.metrics, strict=True):
            if row.metric.startswith(("wheel", "soft", "exact")):
                assert row.value == pytest.approx(other.value), row.metric


@pytest.mark.parametrize("ending", ["csv", "json", "jsonl", "parquet", "npz"])
def test_every_kind_of_table_reads_alike(tmp_path: Path, ending: str) -> None:
    rows = [
        {"filename": "a", "fileitems": "['happy', 'sad']"},
        {"filename": "b", "fileitems": "[]"},
    ]
    path = tmp_path / f"pred.{ending}"
    frame = pl.DataFrame(rows)
    match ending:
        case "csv":
            frame.write_csv(path)
        case "json":
            path.write_text(json.dumps({"a": ["happy", "sad"], "b": []}))
        case "jsonl":
            noted = [{**row, "note": "a\u2028b\x85c"} for row in rows]  # one line each, for JSON
            path.write_text("\n".join(json.dumps(r, ensure_ascii=False) for r in noted) + "\n\n")
        case "parquet":
            frame.write_parquet(path)
        case "npz":
            np.savez(
                path,
                filenames=frame["filename"].to_numpy().astype("U"),
                fileitems=frame["fileitems"].to_numpy().astype("U"),
            )
    gold = write(tmp_path / "gold.csv", {"names": ["a", "b"], "openset": ["[happy]", "[sad]"]})
    result = evaluate(str(path), gold, OPTIONS)
    assert result.value("exact.p") == pytest.approx(0.25)
    assert result.value("n_labels_pred") == pytest.approx(1.0)


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "pred.npz"
    np.savez(path, filenames=np.array(["a"]), fileitems=np.array([["happy"]], dtype=object))
    gold = write(tmp_path / "gold.csv", {"name": ["a"], "openset": ["[happy]"]})
    with pytest.raises(ConfigError, match="pickled"):
        evaluate(str(path), gold, OPTIONS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "header"),
        ("name,openset\na,[x],y\n", "row 2 has 3 cells"),
        ("name,openset,openset\na,[x],[y]\n", "two columns are called openset"),
        ("label\nx\n", "no column names the clip"),
        ("name,mood\na,b\n", "nothing to compare"),
    ],
)
def test_a_wrong_table_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    pred = tmp_path / "pred.csv"
    pred.write_text(text)
    gold = write(tmp_path / "gold.csv", {"name": ["a"], "openset": ["[x]"]})
    with pytest.raises(ConfigError, match=message):
        evaluate(str(pred), gold, OPTIONS)


def test_columns_are_named_by_the_user(tmp_path: Path) -> None:
    pred = write(tmp_path / "p.csv", {"id": ["a"], "openset": ["[sad]"], "mine": ["[happy]"]})
    gold = write(tmp_path / "g.csv", {"id": ["a"], "mine": ["[happy]"]})
    chosen = replace(OPTIONS, columns={"clip_id": "id", "openset": "mine"})
    assert evaluate(pred, gold, chosen).value("exact.p") == 1.0
    plain = write(tmp_path / "o.csv", {"id": ["a"], "openset": ["[happy]"]})
    assert evaluate(pred, plain, chosen).value("exact.p") == 1.0
    with pytest.raises(ConfigError, match="--columns: no column absent in "):
        evaluate(pred, plain, replace(chosen, columns={"openset": "absent", "clip_id": "id"}))
    with pytest.raises(ConfigError, match="no column theirs"):
        evaluate(pred, gold, replace(OPTIONS, columns={"clip_id": "theirs"}))
    with pytest.raises(ConfigError, match="--columns"):
        options(columns=["openset"])


def test_a_range_begins_with_its_lower_end() -> None:
    assert options(valence_range=(-1.0, 1.0)).valence_range == (-1.0, 1.0)
    with pytest.raises(ConfigError, match="give the lower end first"):
        options(valence_range=(5.0, -5.0))


def test_scores_and_metrics_are_written(tmp_path: Path, score: Callable[..., Evaluation]) -> None:
    gold, pred = named("[happy]", "[sad]", "[]"), named("[happy]", "[angry]", "[sad]")
    chosen = replace(OPTIONS, resamples=50)
    for folder, partitions in (("one", 1), ("three", 3)):
        score(pred, gold, chosen, out=str(tmp_path / folder), partitions=partitions)
    one = pl.read_parquet(tmp_path / "one" / "scores.parquet")
    three = pl.read_parquet(tmp_path / "three" / "scores" / "*.parquet")
    assert one.sort("clip_id").equals(three.sort("clip_id"))
    assert one["exact.p"].to_list() == [1.0, 0.0, None]
    assert one["wheels"].unique().to_list() == [lexicon.DEFAULT_VERSION]
    metrics = [pl.read_parquet(tmp_path / f / "metrics.parquet") for f in ("one", "three")]
    assert metrics[0].columns == [
        *("metric", "version", "by", "group", "n", "n_scored", "n_empty", "n_unparsable"),
        *("value", "low", "high"),
    ]
    assert metrics[0].drop("value", "low", "high").equals(metrics[1].drop("value", "low", "high"))


def explanation(clip_id: str, labels: list[str], attempt: int = 1) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(schema.EXPLANATIONS.names)
    return row | {
        "clip_id": clip_id,
        "shard": 0,
        "attempt": attempt,
        "visual_clues": [],
        "acoustic_clues": [],
        "lexical_clues": [],
        "explanation": f"{clip_id} smiles",
        "labels": [{"label": label, "support": 0.5} for label in labels],
        "parse_rung": "json",
        "provenance": {"fingerprint": "f", "recipe": "r", "models": [], "versions": []},
    }


def test_a_run_directory_is_scored_against_its_own_manifest(tmp_path: Path) -> None:
    (tmp_path / "explanations").mkdir()
    parts = [
        [explanation("a", ["happy"]), explanation("b", ["sad"])],
        [explanation("b", ["angry"], 2)],
    ]
    for number, rows in enumerate(parts):
        table = pl.from_arrow(schema.table(rows, schema.EXPLANATIONS))
        assert isinstance(table, pl.DataFrame)
        table.write_parquet(tmp_path / "explanations" / f"{number:08d}-0123456789ab.parquet")
    pl.DataFrame(
        {
            "clip_id": ["a", "b", "c"],
            "label_ov": [["happy"], ["angry"], ["sad"]],
            "label_onehot": ["happy", "angry", "sad"],
            "speaker": ["s", "s", "t"],
        }
    ).write_parquet(tmp_path / "manifest.parquet")
    result = evaluate(str(tmp_path), str(tmp_path), OPTIONS)
    assert result.summary()["missing"] == 1
    assert result.value("exact.p") == pytest.approx(2 / 3)
    assert result.value("hit.mean") == pytest.approx(2 / 3)


def test_a_leaderboard_orders_systems(tmp_path: Path) -> None:
    systems = tmp_path / "systems"
    systems.mkdir()
    gold = write(tmp_path / "gold.csv", named("[happy]", "[sad]"))
    for name, cells in {"good": ("[happy]", "[sad]"), "bad": ("[angry]", "[]")}.items():
        write(systems / f"{name}.csv", named(*cells))
    pairs = {"clip_id": ["1", "2"], "first": ["good", "bad"], "second": ["bad", "good"]}
    judged = write(tmp_path / "pairs.csv", {**pairs, "preference": ["a1", "same"]})
    board = leaderboard(str(systems), gold, OPTIONS, preferences=judged)
    assert board.order == ["good", "bad"]
    assert board.by == "wheel.mean.L1.f"
    assert [rank.system for rank in board.preferences] == ["good", "bad"]
    assert "good" in board.table()
    chosen = leaderboard(str(systems), gold, OPTIONS, metrics=["n_labels_pred"])
    assert chosen.summary()["systems"]["bad"]["metrics"] == {"n_labels_pred": 0.5}
    with pytest.raises(ConfigError, match="--metrics nope"):
        leaderboard(str(systems), gold, OPTIONS, metrics=["nope"])
    with pytest.raises(ConfigError, match="no systems"):
        leaderboard(str(tmp_path / "nowhere"), gold, OPTIONS)


def test_unibench_takes_nine_tables_per_system(tmp_path: Path) -> None:
    (tmp_path / "gold").mkdir()
    (tmp_path / "systems" / "mine").mkdir(parents=True)
    for folder in (tmp_path / "gold", tmp_path / "systems" / "mine"):
        write(folder / "ovmerd+.csv", named("[happy]"))
    board = leaderboard(
        str(tmp_path / "systems"), str(tmp_path / "gold"), OPTIONS, suite="mer-unibench"
    )
    assert board.scores["mine"]["ovmerd+"] == 1.0
    assert board.scores["mine"]["mer-unibench"] is None


def test_the_command_prints_one_object_last(tmp_path: Path) -> None:
    gold = write(tmp_path / "gold.csv", named("[happy]", "[sad]"))
    pred = write(tmp_path / "pred.csv", named("[happy]", "[angry]"))
    result = CliRunner().invoke(main, ["evaluate", pred, "--reference", gold, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["metrics"]["set.avg"]["value"] == 0.5
    wrong = CliRunner().invoke(main, ["evaluate", pred, "--reference", str(tmp_path / "no.csv")])
    assert wrong.exit_code == 2
    assert "no.csv" in wrong.stderr


ODD = {
    "dict.json": ('{"a": ["happy"], "b": "[sad]", "c": null}', 1.0),
    "columns.json": ('{"a": {"openset": ["happy"]}, "b": {"openset": ["sad"]}}', 1.0),
    "mixed.jsonl": (
        '{"name": "a", "openset": ["happy", 3]}\n{"name": "b", "openset": "sad"}\n'
        '{"name": 7, "openset": 7}',
        0.75,
    ),
    "nothing.json": ("[]", 0.0),
    "none.json": ("{}", 0.0),
    "spaces.csv": ("name , openset\na,[happy]\nb,[sad]\n", 1.0),
    "short.csv": ("name,openset\na\nb,[sad]\n\n", 0.5),
    "nameless.csv": ("name,openset\n,[sad]\na,[happy]\n", 0.5),
    "long.csv": (f'name,openset\na,"[{"x" * 200_000}]"\nb,"[{", ".join("yz" * 5_000)}]"\n', 0.0),
    "controls.csv": ("\ufeffname,openset\r\na,[ha\0ppy]\r\nb,[\u202e\u0301😀]\r\n", 0.0),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_tables_give_every_metric_with_its_counts(tmp_path: Path, name: str) -> None:
    content, precision = ODD[name]
    pred = tmp_path / name
    pred.write_text(content, encoding="utf-8", newline="")
    labels = {"name": ["a", "b", "c"], "openset": ["[happy]", "[sad]", "[]"]}
    gold = write(tmp_path / "gold.csv", labels)
    found = evaluate(str(pred), gold, replace(OPTIONS, resamples=5)).summary()
    assert found["clips"] == 3
    assert found["metrics"]["wheel.m_avg"]["n_scored"] == 2
    assert found["metrics"]["exact.p"]["value"] == precision
    assert {values["n"] for values in found["metrics"].values()} == {3}


def json_rows(path: Path, *rows: Mapping[str, Any]) -> str:
    path.write_text(json.dumps([{"name": f"c{i}", **row} for i, row in enumerate(rows)]))
    return str(path)


def test_odd_values_have_a_meaning_or_are_null(tmp_path: Path) -> None:
    pred = json_rows(
        tmp_path / "p.json",
        {"label": 1.0, "valence": "1e200", "ranking": ["sad", "happy"], "openset": [1]},
        {"label": None, "valence": "-inf", "ranking": "happy", "openset": []},
    )
    gold = json_rows(
        tmp_path / "g.json",
        {"label": 1, "valence": -1e200, "openset": ["1"], "start_s": "soon", "end_s": 3},
        {"label": None, "valence": "2", "openset": None, "start_s": None, "end_s": 3},
    )
    chosen = replace(OPTIONS, by=("length",), resamples=10)
    found = evaluate(pred, gold, chosen).summary()
    json.loads(json.dumps(found), parse_constant=pytest.fail)
    assert found["metrics"]["acc"]["value"] == 1.0
    assert found["metrics"]["exact.p"]["value"] == 1.0
    assert found["metrics"]["valence.mse"]["value"] is None
    assert found["metrics"]["top1"]["n_scored"] == 1
    unlabelled = [json_rows(tmp_path / f"{n}.json", {"label": None}) for n in "ab"]
    assert evaluate(*unlabelled, OPTIONS).value("acc") is None
    for by, said in (("openset", "holds lists"), ("jaccard", "a column of the scores")):
        odd = json_rows(tmp_path / "o.json", {"openset": ["x"], "jaccard": "q"})
        with pytest.raises(ConfigError, match=said):
            evaluate(odd, odd, replace(OPTIONS, by=(by,)))


def test_rows_without_a_name_are_one_clip_as_upstream(score: Callable[..., Evaluation]) -> None:
    sides = {"name": ["", "b"], "openset": ["[happy]", "[sad]"]}
    assert score(sides, sides).value("exact.f") == 1.0


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("p.json", b"3", "each row must be a JSON object"),
        ("p.json", b'[{"name": "a", "openset": [["x"]]}]', "needs text or a list of text"),
        ("p.json", b'[{"name": "a", "explanation": {"x": 1}}]', "column explanation holds"),
        ("p.npz", b"nonsense", "not an npz of text"),
        ("p.parquet", b"nonsense", "not a readable parquet file"),
        ("p.csv", "name,openset\na,é\n".encode("latin-1"), "not UTF-8 at byte"),
    ],
)
def test_an_unreadable_table_is_one_sentence(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    gold = write(tmp_path / "g.csv", {"name": ["a"], "openset": ["[x]"], "explanation": ["y"]})
    with pytest.raises(ConfigError, match=said):
        evaluate(str(tmp_path / name), gold, OPTIONS)


@pytest.mark.parametrize("groups", ['{"a": null}', '{"a": ["happy"]}', "[1]", "{", "\ufffe"])
def test_wrong_groups_are_one_sentence(groups: str) -> None:
    with pytest.raises(ConfigError, match="--groups"):
        sets.read_groups(groups.encode("utf-16" if groups == "\ufffe" else "utf-8"))


def test_partitions_without_clips_change_nothing(tmp_path: Path) -> None:
    gold = {
        **{"name": ["a", "b"], "openset": ["[happy]", ""], "label": ["happy", "sad"]},
        **{"valence": ["1", "x"], "explanation": ["he smiles", ""], "preference": ["a1", "same"]},
        **{"speaker": ["s", ""], "start_s": ["0", ""], "end_s": ["2", ""]},
    }
    pred = {key: gold[key] for key in list(gold)[:6]} | {"ranking": ["happy, sad", ""]}
    files = [write(tmp_path / f"{n}.csv", t) for n, t in (("p", pred), ("g", gold))]
    chosen = replace(OPTIONS, by=("speaker", "length", "label"), resamples=0)
    parted = evaluate(*files, chosen, out=str(tmp_path / "out"), partitions=7)
    whole = evaluate(*files, chosen)
    assert [(r.metric, r.by, r.group, r.value, r.n_scored) for r in parted.metrics] == [
        (r.metric, r.by, r.group, r.value, r.n_scored) for r in whole.metrics
    ]
    assert pl.read_parquet(tmp_path / "out" / "scores" / "*.parquet").height == 2
