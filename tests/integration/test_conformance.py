"""Our numbers against those of the upstream code on the released files (tolerance 1e-9, text 1e-6).

The reference lies beside the checkout and is not part of the project; where it is absent everything
here is skipped.
"""

import csv
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from openpyxl import Workbook

from emer_ray.evaluate import Evaluation, evaluate
from emer_ray.metrics import labels, lexicon, sets
from emer_ray.metrics.comparison import Options
from emer_ray.metrics.wheels import MAPPINGS

REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "reference"
DATA = REFERENCE / "data"
YEARS = ("2025", "2026")
WORDNET = Path("/usr/share/wordnet")

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="no reference beside the checkout")


def expected(name: str) -> Any:
    return json.loads((REFERENCE / name).read_text(encoding="utf-8"))


def rows_of(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def cells(name: str) -> dict[str, str]:
    return {row["name"]: row["openset"] for row in rows_of(name)}


def write(path: Path, column: str, values: Mapping[str, str]) -> str:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", column])
        writer.writerows(values.items())
    return str(path)


@functools.cache
def wheels(year: Any) -> Any:
    return lexicon.load(str(DATA), year)


def pairs() -> dict[str, tuple[dict[str, str], dict[str, str]]]:
    gold, pred = cells("mer2024_check-openset.csv"), cells("mer2024_predict-openset.csv")
    names = sorted(gold)
    rotated = {name: pred[after] for name, after in zip(names, names[1:] + names[:1], strict=True)}
    return {
        "gt_vs_pred": (gold, pred),
        "swapped": (pred, gold),
        "self_gt": (gold, gold),
        "self_pred": (pred, pred),
        "empty_pred": (gold, dict.fromkeys(gold, "")),
        "rotated_pred": (gold, rotated),
    }


def score(
    tmp_path: Path, pair: str, year: Any, names: list[str] | None = None, groups: bool = False
) -> Evaluation:
    gold, pred = pairs()[pair]
    kept = gold if names is None else {name: gold[name] for name in names}
    file = (DATA / "mer2024_synonym_groups.json").read_text(encoding="utf-8")
    options = Options(
        wheels=wheels(year), groups=sets.read_groups(file) if groups else None, resamples=0
    )
    pred_csv = write(tmp_path / "pred.csv", "openset", pred)
    return evaluate(pred_csv, write(tmp_path / "gold.csv", "openset", kept), options)


def close(value: float | None, wanted: float | None, tolerance: float = 1e-9) -> bool:
    if value is None or wanted is None:
        return value is wanted
    return abs(value - wanted) <= tolerance


def ours(metric: str) -> str:
    """M3-W1-L2 -> wheel.W1.L2"""
    return "wheel." + metric.removeprefix("M3-").replace("-", ".")


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("pair", list(pairs()) if DATA.is_dir() else [])
def test_set_level(tmp_path: Path, pair: str, grouped: bool) -> None:
    key = "with_groups" if grouped else "without_groups"
    wanted = expected("expected_set_level.json")
    result = score(tmp_path, pair, "2026", groups=grouped)
    for name, value in wanted[key][pair].items():
        metric = "set.f" if name == "f_of_means" else f"set.{name}"
        assert close(result.value(metric), value), (metric, result.value(metric), value)
    skipped = len(wanted["upstream_zero_division"][pair])
    assert result.summary()["metrics"]["set.avg"]["n_scored"] == 332 - skipped


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("pair", list(pairs()) if DATA.is_dir() else [])
def test_set_level_per_clip(tmp_path: Path, pair: str, grouped: bool) -> None:
    key = "with_groups" if grouped else "without_groups"
    wanted = expected("expected_set_level_public.json")[key]
    names = expected("split.json")["public"]
    result = score(tmp_path, pair, "2026", names, groups=grouped)
    for name, value in wanted["aggregate"][pair].items():
        metric = "set.f" if name == "f_of_means" else f"set.{name}"
        assert close(result.value(metric), value), metric
    assert result.scores is not None
    found = {row["clip_id"]: row for row in result.scores.iter_rows(named=True)}
    for clip, (accuracy, recall) in wanted["per_sample"][pair].items():
        assert close(found[clip]["set.accuracy"], accuracy), clip
        assert close(found[clip]["set.recall"], recall), clip


@pytest.mark.parametrize("year", YEARS)
@pytest.mark.parametrize("pair", list(pairs()) if DATA.is_dir() else [])
def test_wheels(tmp_path: Path, pair: str, year: str) -> None:
    wanted = expected("expected_wheel.json")["versions"][year][pair]
    summary = score(tmp_path, pair, year).summary()["metrics"]
    for metric, values in wanted["all"].items():
        got = summary[f"{ours(metric)}.f"]
        # Where precision and recall are 0, upstream's 2025 code gives NaN and ours 0.
        assert close(got["value"], values["f"] if values["f"] is not None else 0.0), metric
        assert close(summary[f"{ours(metric)}.p"]["value"], values["precision"]), metric
        assert close(summary[f"{ours(metric)}.r"]["value"], values["recall"]), metric
        assert (got["n_scored"], got["n"]) == (values["n_scored"], values["n_total"]), metric
    for level, triple in wanted["wheel_metric_calculation"].items():
        for part, value in zip("fpr", triple, strict=True):
            metric = f"wheel.mean.L{level[-1]}.{part}"
            assert close(summary[metric]["value"], value if value is not None else 0.0), metric
    if wanted["M_avg_12"] is not None:
        assert close(summary["wheel.m_avg"]["value"], wanted["M_avg_12"])


@pytest.mark.parametrize("year", YEARS)
@pytest.mark.parametrize("pair", list(pairs()) if DATA.is_dir() else [])
def test_wheels_per_clip(tmp_path: Path, pair: str, year: str) -> None:
    wanted = expected("expected_wheel_public.json")["versions"][year][pair]
    names = expected("split.json")["public"]
    result = score(tmp_path, pair, year, names)
    summary = result.summary()["metrics"]
    for metric, values in wanted["aggregate"].items():
        got = summary[f"{ours(metric)}.f"]
        assert close(got["value"], values["f"] if values["f"] is not None else 0.0), metric
        assert got["n_scored"] == values["n_scored"], metric
    assert result.scores is not None
    found = {row["clip_id"]: row for row in result.scores.iter_rows(named=True)}
    n_compared = 0
    for metric, clips in wanted["per_sample"].items():
        for clip, triple in clips.items():
            p, r = found[clip][f"{ours(metric)}.p"], found[clip][f"{ours(metric)}.r"]
            if triple is None or triple[0] is None:
                assert p is None, (metric, clip)
                assert r is None, (metric, clip)
            else:
                assert close(p, triple[0]), (metric, clip)
                assert close(r, triple[1]), (metric, clip)
            n_compared += 1
    assert n_compared == 12 * 166


@pytest.mark.parametrize("year", YEARS)
def test_word_map(year: str) -> None:
    wanted = expected(f"expected_word_map_{year}_public.json")
    assert [ours(column) for column in wanted["columns"]] == list(MAPPINGS)
    images = wheels(year).images
    for form, row in wanted["rows"].items():
        assert tuple(name or "" for name in images[form]) == tuple(row), form
    assert len(images) == {"2025": 7386, "2026": 7356}[year]


@pytest.mark.parametrize("year", YEARS)
@pytest.mark.parametrize("form_kind", ["csv", "json"])
def test_tables_by_either_file(tmp_path: Path, year: Any, form_kind: str) -> None:
    names = (
        ["wheels.json", f"wheel_format_{year}.json", "wheel_synonym.json"]
        if form_kind == "json"
        else [f"wheel{n}.csv" for n in range(1, 6)]
        + [f"wheel_format_{year}.csv", "wheel_synonym_runs.csv"]
    )
    for name in names:
        (tmp_path / name).write_bytes((DATA / name).read_bytes())
    assert lexicon.load(str(tmp_path), year).images == wheels(year).images


@pytest.mark.parametrize("year", YEARS)
def test_odd_strings(tmp_path: Path, year: str) -> None:
    cases = expected(f"expected_edge_cases_{year}_public.json")["cases"]
    for case in cases:
        assert labels.parse(case["gt"]) == case["parsed_gt"], case
        assert labels.parse(case["pred"]) == case["parsed_pred"], case
    gold = write(tmp_path / "g.csv", "openset", {str(c["id"]): c["gt"] for c in cases})
    pred = write(tmp_path / "p.csv", "openset", {str(c["id"]): c["pred"] for c in cases})
    scores = evaluate(pred, gold, Options(wheels=wheels(year), resamples=0)).scores
    assert scores is not None
    for row, case in zip(scores.iter_rows(named=True), cases, strict=True):
        images = [wheels(year).images.get(word.lower().strip()) for word in case["parsed_gt"]]
        for column, metric in enumerate(MAPPINGS):
            pair = case["expected"][
                "M3-" + metric[6:].replace(".", "-") if column > 1 else metric[6:]
            ]
            p, r = row[f"{metric}.p"], row[f"{metric}.r"]
            if any(image and image[column] for image in images):
                assert close(p, pair[0]), (case["note"], metric)
                assert close(r, pair[1]), (case["note"], metric)
            else:  # upstream's 2026 code scores a lone skipped clip 0, ours leaves it undefined
                assert p is None, (case["note"], metric)
                assert pair == ([None, None] if year == "2025" else [0.0, 0.0])


def test_hit_rate(tmp_path: Path) -> None:
    wanted = expected("expected_hitrate_public.json")
    gold = write(tmp_path / "gold.csv", "label", wanted["onehot"])
    systems = expected("data/ovmerd_system_labels.json")["rows"]
    systems["predict_openset"] = cells("mer2024_predict-openset.csv")
    systems["check_openset"] = cells("mer2024_check-openset.csv")
    assert set(wanted["results"]) <= set(systems)
    for system, values in wanted["results"].items():
        pred = write(tmp_path / "pred.csv", "openset", systems[system])
        result = evaluate(pred, gold, Options(wheels=wheels("2025"), resamples=0))
        for metric, (hit, mscore) in values.items():
            suffix = "mean" if metric == "mean" else "W" + metric[len("case3_wheel")]
            assert close(result.value(f"hit.{suffix}"), hit), (system, metric)
            assert close(result.value(f"mscore.{suffix}"), mscore), (system, metric)
        assert result.summary()["extra"] == len(systems[system]) - 39


def test_released_systems(tmp_path: Path) -> None:
    wanted = expected("expected_systems_ovmerd_public.json")["rows"]
    systems = expected("data/ovmerd_system_labels.json")["rows"]
    gold = write(tmp_path / "gold.csv", "openset", cells("mer2024_check-openset.csv"))
    for system, row in wanted.items():
        pred = write(tmp_path / "pred.csv", "openset", systems[system])
        for year in YEARS:
            options = Options(wheels=wheels(year), resamples=0)
            result = evaluate(pred, gold, options)
            for level in (1, 2):
                triple = row[f"five_wheel_mean_L{level}_{year}"]
                for part, value in zip("fpr", triple, strict=True):
                    assert close(result.value(f"wheel.mean.L{level}.{part}"), value), system
            if year == "2025":
                assert close(result.value("wheel.m_avg"), row["M_avg_12_f"]), system
                for metric in (m for m in row if m.startswith("M") and m != "M_avg_12_f"):
                    assert close(result.value(f"{ours(metric)}.f"), row[metric]["f"]), system


TEXT_IDS = {
    "rouge_score_rougeL_f": "rouge_l",
    "coco_rougeL": "rouge_l_beta",
    "nltk_meteor_exact_stem": "meteor",
}


def texts(name: str) -> dict[str, tuple[str, str]]:
    """Reference and hypothesis of each clip of a set."""
    v1 = {row["names"]: row["reasons"] for row in rows_of("emer_v1_gt-eng.csv")}
    v2 = {row["name"]: row["english"] for row in rows_of("emer_v2_final-EMER-reason.csv")}
    stored = expected("data/text_hypotheses.json")
    if name == "edge":
        return {clip: (pair[0], pair[1]) for clip, pair in stored["edge"].items()}
    both = {clip: (v2[clip], v1[clip]) for clip in v1 if clip in v2}
    if name == "ref_v2_hyp_v1":
        return both
    if name == "ref_v1_hyp_v2":
        return {clip: (b, a) for clip, (a, b) in both.items()}
    system = stored["systems"][name.removeprefix("ref_v2_hyp_")]
    return {clip: (v2[clip], text) for clip, text in system.items()}


@pytest.mark.parametrize(
    "name",
    ["ref_v2_hyp_v1", "ref_v1_hyp_v2", "ref_v2_hyp_chatunivi_S2", "ref_v2_hyp_salmonn_S2", "edge"],
)
def test_text(tmp_path: Path, name: str) -> None:
    wanted = expected("expected_text.json")["sets"][name]
    pairs = texts(name)
    assert len(pairs) == wanted["n"]
    gold = write(tmp_path / "g.csv", "explanation", {clip: pair[0] for clip, pair in pairs.items()})
    pred = write(tmp_path / "p.csv", "explanation", {clip: pair[1] for clip, pair in pairs.items()})
    wordnet = str(WORDNET) if WORDNET.is_dir() else None
    options = Options(wheels=wheels("2026"), resamples=0, wordnet=wordnet)
    result = evaluate(pred, gold, options)
    ids = TEXT_IDS | ({"nltk_meteor_wordnet30": "meteor_wordnet"} if wordnet else {})
    for theirs, metric in ids.items():
        assert close(result.value(metric), wanted["mean"][theirs], 1e-6), metric
    assert close(result.value("bleu1"), wanted["nltk_corpus_bleu1"], 1e-6)
    assert close(result.value("bleu4"), wanted["nltk_corpus_bleu4"], 1e-6)
    assert close(result.value("bleu1_strict"), wanted["coco_corpus_bleu1_4"][0], 1e-6)
    assert close(result.value("bleu4_strict"), wanted["coco_corpus_bleu1_4"][3], 1e-6)
    assert result.scores is not None
    found = {row["clip_id"]: row for row in result.scores.iter_rows(named=True)}
    for clip, values in expected("expected_text_public.json")["sets"][name].items():
        for theirs, metric in ids.items():
            assert close(found[clip][metric], values[theirs], 1e-6), (clip, metric)


def test_own_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The package's tables know the labels of the field and rank the released outputs alike."""
    systems = expected("data/ovmerd_system_labels.json")["rows"]
    gold = cells("mer2024_check-openset.csv")
    own = lexicon.default()
    written = {
        "gold": list(gold.values()),
        "systems": [cell for rows in systems.values() for cell in rows.values()],
    }
    for name, written_cells in written.items():
        words = [word for cell in written_cells for word in labels.parse(cell)]
        share = sum(word.lower().strip() in own.images for word in words) / len(words)
        with capsys.disabled():
            print(f"\n{name}: {share:.4f} of {len(words)} labels known to {own.version}", end="")
        assert share >= 0.95
    gold_csv = write(tmp_path / "gold.csv", "openset", gold)
    metrics = ("wheel.mean.L1.f", "wheel.mean.L2.f", "wheel.m_avg")
    found: dict[tuple[str, str], list[float]] = {}
    for rows in systems.values():
        pred = write(tmp_path / "pred.csv", "openset", rows)
        for tables in (own, wheels("2025"), wheels("2026")):
            result = evaluate(pred, gold_csv, Options(wheels=tables, resamples=0))
            for metric in metrics:
                found.setdefault((tables.version, metric), []).append(result.value(metric) or 0.0)
    for (version, metric), values in found.items():
        if version == own.version:
            continue
        rho = spearman(found[own.version, metric], values)
        with capsys.disabled():
            print(f"\n{metric} against {version}: Spearman {rho:.4f} over {len(values)}", end="")
        assert rho >= 0.9


def spearman(one: list[float], other: list[float]) -> float:
    """Rank correlation of values without ties."""
    n = len(one)
    places = [sorted(range(n), key=values.__getitem__) for values in (one, other)]
    ranks = [{item: rank for rank, item in enumerate(place)} for place in places]
    return 1 - 6 * sum((ranks[0][i] - ranks[1][i]) ** 2 for i in range(n)) / (n * (n * n - 1))


def test_the_original_xlsx_layout_gives_the_same_tables(tmp_path: Path) -> None:
    """Wheels with gaps and capitals, eight runs of synonyms side by side, as upstream has them."""
    for number in range(1, 6):
        book, last = Workbook(), ("", "", "")
        book.active.append(["level1", "level2", "level3"])
        for row in rows_of(f"wheel{number}.csv"):
            levels = (row["level1"], row["level2"], row["level3"])
            shown = [
                None
                if levels[: place + 1] == last[: place + 1] and place < 2
                else f" {level.title()}"
                for place, level in enumerate(levels)
            ]
            book.active.append(shown)
            last = levels
        book.save(tmp_path / f"wheel{number}.xlsx")
    runs: dict[str, list[dict[str, str]]] = {}
    for row in rows_of("wheel_synonym_runs.csv"):
        runs.setdefault(row["run"], []).append(row)
    book = Workbook()
    book.active.append([f"{kind}_run{run}" for run in runs for kind in ("word", "synonym")])
    for place in range(max(map(len, runs.values()))):
        found = [rows[place] if place < len(rows) else None for rows in runs.values()]
        book.active.append(
            [
                cell
                for row in found
                for cell in ((row["word"], row["synonyms"]) if row else ("", ""))
            ]
        )
    book.save(tmp_path / "synonym.xlsx")
    for year in YEARS:
        (tmp_path / "format.csv").write_bytes((DATA / f"wheel_format_{year}.csv").read_bytes())
        assert lexicon.load(str(tmp_path), year).images == wheels(year).images
