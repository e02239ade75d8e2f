"""`emer review`: rounds of human checks on a run, on a page or as files.

    emer review RUN --annotators anna,bo                 a page for each of them, on this machine
    emer review export RUN --annotators anna,bo,chen     what to judge, one sheet per annotator
    emer review merge RUN                                what they made of it together
    emer review export RUN --round 2 --annotators dee,eli      the merged round 1, checked again

A round is a folder, RUN/review/round1 unless another is given, local or s3://:

    review.json          who judges how many clips of which run, and what came of it
    items.parquet        everything that is given to be judged
    sheets/NAME.xlsx     a sheet per annotator; they come back to the same place
    merged.parquet       one row per clip: clues, explanation, labels with their support
    conflicts.parquet    where annotators are at odds, with all votes; conflicts.csv for people
    agreement.json       Krippendorff's alpha and how far each annotator is
    marks.parquet        every judgement that counted

docs/review.md describes the columns, the rules of merging, and the construction of a corpus.
"""

import csv
import hashlib
import io
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from emer_ray import __version__, inert, schema, stages, storage
from emer_ray.errors import ConfigError, RunDirError
from emer_ray.metrics import inputs, lexicon
from emer_ray.rounds import agreement, items, merging, sheets
from emer_ray.rounds.items import Given, Mark
from emer_ray.rounds.sheets import Ending
from emer_ray.store import index, record


def folder(run: str, round_: int, out: str | None) -> str:
    """Name the folder of a round."""
    if round_ < 1:
        raise ConfigError(f"--round {round_}: rounds are counted from 1")
    return storage.join(out or storage.join(run, "review"), f"round{round_}")


def review_export(
    run: str,
    annotators: Sequence[str],
    *,
    round_: int = 1,
    out: str | None = None,
    endings: Sequence[Ending] = ("xlsx",),
    per_clip: int | None = None,
    sample: int | None = None,
    clips: str | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Write what is to be judged and a sheet for every annotator; refuses a round that is there.

    Round 1 judges what the run says, a later one what the round before it came to. `clips` is a
    table with the ids to judge, `sample` draws that many.
    """
    names = items.named(annotators)
    place = folder(run, round_, out)
    if storage.exists(storage.join(place, "review.json")):
        raise ConfigError(
            f"{place}: this round was exported before, and people may be at work on it; "
            f"`emer review merge {run} --round {round_}` merges it, -o names another place"
        )
    given = _given(run, round_, out)
    chosen = _chosen(
        [each.clip_id for each in given if each.item == items.CLIP], clips, sample, seed
    )
    asked = items.shared_out(chosen, names, per_clip, seed)
    mine = [_asked(each, asked[each.clip_id]) for each in given if each.clip_id in asked]
    _write(place, "items.parquet", _parquet(mine, schema.REVIEW_ITEMS))
    written = []
    for name in names:
        blank = sheets.blank(mine, name, round_)
        for ending in endings:
            uri = storage.join(place, f"sheets/{name}.{ending}")
            storage.write(uri, sheets.write(blank, ending))
            written.append(uri)
    found = {
        "emer_ray": __version__,
        "run": run,
        "fingerprint": record.require(run)["fingerprint"],
        "round": round_,
        "annotators": names,
        "clips": len(asked),
        "items": sum(each.item != items.CLIP for each in mine),
        "per_clip": per_clip or len(names),
        "seed": seed,
        "exported": _now(),
    }
    _write(place, "review.json", _json(found))
    return {**found, "folder": place, "sheets": written}


def review_merge(
    run: str,
    *,
    round_: int = 1,
    out: str | None = None,
    sheet_uris: Sequence[str] = (),
    min_support: float = 0.0,
) -> dict[str, Any]:
    """Read the sheets of a round, merge them, and write what they came to.

    `sheet_uris` are sheets that lie elsewhere; without them those in the folder are read. May be
    called again as sheets come in: nothing that annotators wrote is touched.
    """
    place = folder(run, round_, out)
    about = load(place)
    given = read_items(place)
    marks = _collected(place, given, round_, sheet_uris)
    merged = merging.merge(given, marks, round_, min_support)
    labels = merging.label_sets(given, marks)
    figures = agreement.figures(given, marks, labels, stages.family)
    _write(place, "marks.parquet", sheets.table(merged.marks))
    _write(place, "merged.parquet", _parquet(merged.rows, schema.REVIEWED))
    _write(place, "conflicts.parquet", _parquet(merged.conflicts, schema.CONFLICTS))
    _write(place, "conflicts.csv", _conflicts_csv(merged.conflicts))
    _write(place, "agreement.json", _json(figures))
    found = {
        "run": run,
        "round": round_,
        "clips": len(merged.rows),
        "reviewed": sum(bool(row["annotators"]) for row in merged.rows),
        "conflicts": len(merged.conflicts),
        "flagged": sum(bool(row["flagged_by"]) for row in merged.rows),
        "alpha_masi": figures["labels"]["alpha_masi"],
        "alpha_jaccard": figures["labels"]["alpha_jaccard"],
        "alpha_masi_families": figures["labels"]["alpha_masi_families"],
        "alpha_verdicts": figures["verdicts"]["alpha"],
    }
    merges = [*about.get("merges", []), {"at": _now(), "min_support": min_support, **found}]
    _write(place, "review.json", _json({**about, "merges": merges}))
    return {
        **found,
        "annotators": figures["annotators"],
        "pairs": figures["pairs"],
        "folder": place,
        "merged": storage.join(place, "merged.parquet"),
    }


def review(
    run: str,
    *,
    annotators: Sequence[str] = (),
    round_: int = 1,
    out: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8780,
    on_ready: Callable[[dict[str, Any]], None] = lambda _: None,
    **chosen: Any,
) -> None:
    """Serve the page of a round until it is interrupted; starts the round where there is none.

    `chosen` says which clips, as for `review_export`. `on_ready` is told the links: one for each
    annotator, and the lead's.
    """
    from emer_ray.desk import log, server

    place = folder(run, round_, out)
    if not storage.exists(storage.join(place, "review.json")):
        review_export(run, annotators, round_=round_, out=out, endings=(), **chosen)
    elif annotators and items.named(annotators) != load(place)["annotators"]:
        raise ConfigError(
            f"{place}: this round is of {', '.join(load(place)['annotators'])}; leave --annotators "
            f"out to go on with it, or give another -o"
        )
    about, given = load(place), read_items(place)
    _refuse_strangers(host, given)
    placed = index.load_manifest(run)
    assert placed is not None, run
    whole = storage.resolve(place, str(Path.cwd()))
    key = server.secret(Path.home() / ".cache/emer_ray/review.key")
    whose = {server.token(key, whole, name): name for name in (*about["annotators"], server.LEAD)}
    wheels = lexicon.default().wheels
    held = log.held(place)
    try:
        desk = server.Desk(
            about=about,
            given=given,
            manifest={row["clip_id"]: row for row in placed.iter_rows(named=True)},
            words=sorted({word for wheel in wheels for row in wheel for word in row}),
            logs={name: log.opened(place, name) for name in about["annotators"]},
            tokens=whose,
            merge=lambda: review_merge(run, round_=round_, out=out),
        )
        server.serve(desk, host, port, on_ready)
    finally:
        if held is not None:
            held.close()


def _refuse_strangers(host: str, given: Sequence[Given]) -> None:
    """Keep gated media on this machine: the page is not encrypted, and anybody may read along."""
    gated = {each.licence_tag for each in given if (each.licence_tag or "").startswith("gated:")}
    if gated and host not in ("127.0.0.1", "::1", "localhost"):
        raise ConfigError(
            f"--host {host}: clips of {', '.join(sorted(map(str, gated)))} are served to this "
            f"machine only; let annotators come in through `ssh -L`"
        )


def load(place: str) -> dict[str, Any]:
    """Read what a round is about; raises ConfigError where there is none."""
    uri = storage.join(place, "review.json")
    if not storage.exists(uri):
        raise ConfigError(f"{place}: no round of a review; start one with `emer review export`")
    found: dict[str, Any] = json.loads(storage.read(uri))
    return found


def read_items(place: str) -> list[Given]:
    """Read what is given to be judged, in its order."""
    rows = pq.read_table(pa.BufferReader(storage.read(storage.join(place, "items.parquet"))))
    return [Given(**row) for row in rows.to_pylist()]


def _given(run: str, round_: int, out: str | None) -> list[Given]:
    placed = index.load_manifest(run)
    if placed is None:
        raise RunDirError(f"{run}: not a run directory (no manifest.parquet); give the path of one")
    columns = ["clip_id", "video_uri", "audio_uri", "start_s", "end_s"]
    listed = {row["clip_id"]: row for row in placed.select(columns).iter_rows(named=True)}
    rows = _explained(run) if round_ == 1 else _merged_before(run, round_, out)
    given = [each for row in rows for each in items.of_clip(row, listed.get(row["clip_id"], {}))]
    if not given:
        raise ConfigError(f"{run}: no clip has an explanation, so there is nothing to review")
    return given


def _explained(run: str) -> Iterator[dict[str, Any]]:
    names = [name for name in schema.REVIEWED.names if name in schema.EXPLANATIONS.names]
    for table in index.explained(run, names):
        yield from table.to_pylist()


def _merged_before(run: str, round_: int, out: str | None) -> list[dict[str, Any]]:
    uri = storage.join(folder(run, round_ - 1, out), "merged.parquet")
    if not storage.exists(uri):
        raise ConfigError(
            f"{uri}: round {round_ - 1} is not merged yet; "
            f"`emer review merge {run} --round {round_ - 1}` does it"
        )
    rows: list[dict[str, Any]] = pq.read_table(pa.BufferReader(storage.read(uri))).to_pylist()
    return rows


def _chosen(known: Sequence[str], clips: str | None, sample: int | None, seed: int) -> list[str]:
    """Choose the clips to judge: those of a table in its order, or a sample by a hash of the id."""
    chosen = list(known)
    if clips is not None:
        listed = inputs.read(clips).select("clip_id").collect()["clip_id"].to_list()
        there = set(known)
        chosen = [clip_id for clip_id in dict.fromkeys(listed) if clip_id in there]
        if not chosen:
            raise ConfigError(f"{clips}: none of its {len(listed)} clips is explained in the run")
    if sample is not None:
        if sample < 1:
            raise ConfigError(f"--sample {sample}: give 1 or more")
        drawn = sorted(chosen, key=lambda c: hashlib.sha256(f"{seed}:{c}".encode()).digest())
        kept = set(drawn[:sample])
        chosen = [clip_id for clip_id in chosen if clip_id in kept]
    return chosen


def _asked(each: Given, annotators: Sequence[str]) -> Given:
    return Given(**{**asdict(each), "annotators": list(annotators)})


def _collected(
    place: str, given: Sequence[Given], round_: int, sheet_uris: Sequence[str]
) -> list[Mark]:
    """Read sheets; an annotator with judgements in two of them is asked which one counts."""
    found_sheets = _sheets(place, sheet_uris)
    if not found_sheets:
        raise ConfigError(f"{place}/sheets: no sheet; give the files that annotators sent back")
    whose: dict[str, str] = {}
    found: list[Mark] = []
    for uri, pieces in found_sheets.items():
        data = b"".join(storage.read(piece) for piece in pieces)
        marks = merging.checked(uri, sheets.read(uri, data), given, round_)
        for annotator in sorted({mark.annotator for mark in marks}):
            if annotator in whose:
                raise ConfigError(
                    f"{annotator} has judgements in {whose[annotator]} and in {uri}; name the "
                    f"sheets that count: emer review merge RUN SHEET…"
                )
            whose[annotator] = uri
        found += marks
    return found


def _sheets(place: str, sheet_uris: Sequence[str]) -> dict[str, list[str]]:
    """Find sheets and what each is made of: the page's log in an object store is many objects."""
    if sheet_uris:
        return {f"{uri}": [uri] for uri in dict.fromkeys(sheet_uris)}
    base = storage.join(place, "sheets") + "/"
    found: dict[str, list[str]] = {}
    for entry in storage.listing(base):
        name = entry.uri.removeprefix(base).split("/")[0]
        found.setdefault(base + name, []).append(entry.uri)
    return found


def _parquet(rows: Iterable[Any], columns: pa.Schema) -> bytes:
    plain = (row if isinstance(row, Mapping) else asdict(row) for row in rows)
    sink = io.BytesIO()
    pq.write_table(schema.table(plain, columns), sink, compression="zstd")
    return sink.getvalue()


def _conflicts_csv(conflicts: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(schema.CONFLICTS.names)
    for row in conflicts:
        votes = "; ".join(f"{who}: {vote}" for who, vote in row["votes"])
        cells = [*(row[name] for name in schema.CONFLICTS.names[:-1]), votes]
        writer.writerow([inert.csv_cell(sheets.shown(str(cell or ""))) for cell in cells])
    return text.getvalue().encode("utf-8-sig")


def _write(place: str, name: str, data: bytes) -> None:
    storage.write(storage.join(place, name), data)


def _json(found: Mapping[str, Any]) -> bytes:
    return json.dumps(found, indent=2, ensure_ascii=False).encode()


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
