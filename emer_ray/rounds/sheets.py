"""Judgements as a file that people fill in: xlsx, csv, jsonl or parquet by its ending, and back.

A spreadsheet program must neither run nor mend what it is shown. In xlsx every cell is a string,
marked as text, so that `=1+1` stays those four signs and an id keeps its zeros. CSV has no such
mark: a cell that could be taken for a formula gets an apostrophe in front, which is taken off again
here. Control characters become spaces, and marks that turn the direction of writing become visible.
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Final, Literal
from zipfile import BadZipFile

import pyarrow as pa
import pyarrow.parquet as pq
from openpyxl import Workbook, load_workbook
from openpyxl.styles import Alignment, Font, PatternFill
from openpyxl.utils.exceptions import InvalidFileException
from openpyxl.worksheet.datavalidation import DataValidation

from emer_ray import inert, schema
from emer_ray.errors import ConfigError
from emer_ray.rounds import items
from emer_ray.rounds.items import Mark

Ending = Literal["xlsx", "csv", "jsonl", "parquet"]
ENDINGS: Final[tuple[Ending, ...]] = ("xlsx", "csv", "jsonl", "parquet")

COLUMNS: Final = schema.MARKS.names
WIDTHS: Final = (24, 14, 60, 10, 60, 30, 7, 40, 12, 7)

CELL: Final = 32_000
"""Letters of a cell; spreadsheet programs take 32,767."""

HOW_TO: Final = (
    "One row is one thing to judge. Look at the clip (look_at) before you read what is given.",
    "verdict: accept = right as it stands; edit = write the right words into text; reject = wrong.",
    "Rows whose item ends in + are for what is missing: write it into text. Labels: several words,",
    "separated by ; are several labels. Copy such a row for a second clue.",
    "note and flag (yes) in the row of the item clip: a remark on the clip, or look at it again.",
    "Leave a row empty that you did not judge. Change no other column and delete no row.",
    "一行是一项判断：先看片段，再看所给文字。",
    "verdict 填 accept（对）、edit（在 text 里改写）或 reject（错）。",
    "item 以 + 结尾的行用来补充遗漏的内容；多个标签用 ; 隔开。",
    "没有判断的行请留空，其余各列请勿改动。",
)


def shown(text: str) -> str:
    """Write text as a cell shows it: harmless, and no longer than programs take."""
    found = inert.plain(text)
    return found if len(found) <= CELL else found[: CELL - 1] + "…"


def blank(given: Iterable[items.Given], annotator: str, round_: int) -> list[Mark]:
    """Lay out an annotator's empty sheet: what is given to them, and rows for additions."""

    def mark(clip_id: str, item: str, text: str | None, look_at: str | None) -> Mark:
        return Mark(
            clip_id=clip_id,
            item=item,
            given=text,
            verdict=None,
            text=None,
            note=None,
            flag=None,
            look_at=look_at,
            annotator=annotator,
            round=round_,
        )

    marks: list[Mark] = []
    clips: dict[str, list[items.Given]] = {}
    for each in given:
        if annotator in each.annotators:
            clips.setdefault(each.clip_id, []).append(each)
    for clip_id, mine in clips.items():
        marks += [mark(clip_id, each.item, each.given, each.look_at) for each in mine]
        marks += [mark(clip_id, f"{kind}.+", None, None) for kind in items.ADDABLE]
    return marks


def write(marks: Sequence[Mark], ending: Ending) -> bytes:
    """Write a sheet."""
    match ending:
        case "xlsx":
            return _xlsx(marks)
        case "csv":
            return _csv(marks)
        case "jsonl":
            lines = (json.dumps(asdict(mark), ensure_ascii=False) + "\n" for mark in marks)
            return "".join(lines).encode()
        case "parquet":
            return table(marks)


def table(marks: Sequence[Mark]) -> bytes:
    """Write judgements as Parquet, which keeps every letter."""
    sink = io.BytesIO()
    rows = schema.table((asdict(mark) for mark in marks), schema.MARKS)
    pq.write_table(rows, sink, compression="zstd")
    return sink.getvalue()


def _cells(mark: Mark) -> list[str]:
    found = []
    for name in COLUMNS:
        value = getattr(mark, name)
        if name == "flag":
            found.append("yes" if value else "")
        else:
            found.append("" if value is None else shown(str(value)))
    return found


def _xlsx(marks: Sequence[Mark]) -> bytes:
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = "review"
    sheet.append(COLUMNS)
    for cell in sheet[1]:
        cell.font = Font(bold=True)
    wrapped = Alignment(wrap_text=True, vertical="top")
    head, open_ = PatternFill("solid", fgColor="DDE6F0"), PatternFill("solid", fgColor="FFF8E1")
    for number, mark in enumerate(marks, start=2):
        for place, text in enumerate(_cells(mark)):
            cell = sheet.cell(row=number, column=place + 1)
            cell.value = text or None
            if text:
                cell.data_type = "s"  # never a formula, whatever it begins with
                cell.quotePrefix = True  # and it stays text when somebody edits it
            cell.number_format = "@"
            cell.alignment = wrapped
            if mark.item == items.CLIP:
                cell.fill = head
            elif COLUMNS[place] in ("verdict", "text"):
                cell.fill = open_
    for width, column in zip(WIDTHS, "ABCDEFGHIJ", strict=True):
        sheet.column_dimensions[column].width = width
    sheet.freeze_panes = "D2"
    choice = DataValidation(
        type="list", formula1=f'"{",".join(items.VERDICTS[:3])}"', allow_blank=True
    )
    sheet.add_data_validation(choice)
    choice.add(f"D2:D{len(marks) + 1000}")
    told = book.create_sheet("how to")
    told.column_dimensions["A"].width = 110
    for line in HOW_TO:
        told.append([line])
    sink = io.BytesIO()
    book.save(sink)
    return sink.getvalue()


def _csv(marks: Sequence[Mark]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    writer.writerows([inert.csv_cell(cell) for cell in _cells(mark)] for mark in marks)
    return text.getvalue().encode("utf-8-sig")  # spreadsheet programs know UTF-8 by its mark


def read(name: str, data: bytes) -> list[Mark]:
    """Read a sheet that came back; rows without any judgement stay in, with verdict null.

    Raises ConfigError with the first rows that cannot be read.
    """
    ending = name.rpartition(".")[2].lower()
    try:
        match ending:
            case "xlsx":
                rows = _xlsx_rows(data)
            case "csv":
                rows = _csv_rows(data)
            case "jsonl":
                rows = _last_lines(data)
            case "parquet":
                rows = pq.read_table(pa.BufferReader(data)).to_pylist()
            case _:
                raise ConfigError(f"{name}: a sheet ends in {', '.join(ENDINGS)}")
    except (ValueError, KeyError, BadZipFile, InvalidFileException, csv.Error) as error:
        raise ConfigError(f"{name}: not a readable {ending} file ({error})") from None
    return _marks(name, rows)


def _last_lines(data: bytes) -> list[dict[str, Any]]:
    """Read a log: of several lines on one item the last counts, and half a line at the end none."""
    *lines, tail = data.decode().split("\n")
    with suppress(ValueError):
        json.loads(tail)
        lines.append(tail)
    last: dict[tuple[Any, ...], dict[str, Any]] = {}
    for number, line in enumerate(lines):
        if line.strip():
            row = json.loads(line)
            # rows for additions that nobody numbered are each their own
            place = (row["clip_id"], row["item"], number if row["item"].endswith("+") else None)
            last[place] = row
    return list(last.values())


def _xlsx_rows(data: bytes) -> list[dict[str, Any]]:
    book = load_workbook(io.BytesIO(data), read_only=True, data_only=True)
    names = book.sheetnames
    rows = list(book["review" if "review" in names else names[0]].iter_rows(values_only=True))
    return _under_head([[_text(cell) for cell in row] for row in rows])


def _csv_rows(data: bytes) -> list[dict[str, Any]]:
    text = data.decode("utf-8-sig")
    head = text.partition("\n")[0]
    separator = max(",;\t", key=head.count)  # some programs write the separator of their country
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    return _under_head([[inert.from_csv_cell(cell) for cell in row] for row in rows])


def _under_head(rows: list[list[str]]) -> list[dict[str, Any]]:
    if not rows:
        return []
    head = [cell.strip() for cell in rows[0]]
    return [dict(zip(head, row, strict=False)) for row in rows[1:]]


def _text(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell)


def _marks(name: str, rows: Sequence[dict[str, Any]]) -> list[Mark]:
    wanted = ("clip_id", "item", "verdict", "text")
    if rows and (missing := [column for column in wanted if column not in rows[0]]):
        raise ConfigError(
            f"{name}: no column {missing[0]!r}; it has {', '.join(map(str, rows[0]))}. Keep the "
            f"columns of the exported sheet"
        )
    wrong: list[str] = []
    marks: list[Mark] = []
    added: dict[tuple[str, str], int] = {}
    for number, row in enumerate(rows, start=2):
        if not _cell(row, "clip_id"):
            continue
        try:
            marks += _read(row, added)
        except ValueError as error:
            wrong.append(f"row {number}: {error}")
    if wrong:
        more = f", and {len(wrong) - 3} rows more" if len(wrong) > 3 else ""
        raise ConfigError(f"{name}: {'; '.join(wrong[:3])}{more}")
    return marks


def _cell(row: dict[str, Any], column: str) -> str:
    value = row.get(column)
    return "" if value is None else shown(str(value))


def _read(row: dict[str, Any], added: dict[tuple[str, str], int]) -> list[Mark]:
    """Read one row; additions are numbered, and several labels of a cell are several marks."""
    clip_id, item, text = (_cell(row, name) for name in ("clip_id", "item", "text"))
    kind, verdict = items.kind(item), _cell(row, "verdict").lower()
    if kind not in (items.CLIP, "explanation", *items.ADDABLE):
        raise ValueError(f"no item is called {item!r}")
    if verdict and verdict not in items.VERDICTS:
        raise ValueError(f"verdict {verdict!r} is none of {', '.join(items.VERDICTS)}")
    given = row.get("given")
    round_ = _cell(row, "round")

    def mark(item: str, verdict: Any, text: str | None) -> Mark:
        return Mark(
            clip_id=clip_id,
            item=item,
            given=None if given in (None, "") else str(given),
            verdict=verdict or None,
            text=text or None,
            note=_cell(row, "note") or None,
            flag=True if _cell(row, "flag").lower() in ("yes", "true", "1", "x") else None,
            look_at=_cell(row, "look_at") or None,
            annotator=_cell(row, "annotator"),
            round=int(round_) if round_ else 0,
        )

    if items.is_added(item):
        if kind not in items.ADDABLE:
            raise ValueError(f"{item}: only {', '.join(items.ADDABLE)} can be added")
        if verdict == "reject" or not text:
            return []
        if not item.endswith("+"):  # numbered already, by the page
            return [mark(item, "add", text)]
        texts = words(text) if kind == "label" else [text]
        first = added.get((clip_id, kind), 0)
        added[clip_id, kind] = first + len(texts)
        return [mark(f"{kind}.+{first + i}", "add", each) for i, each in enumerate(texts, start=1)]
    if verdict == "add":
        raise ValueError(f"{item} was given; what is added goes into a row whose item ends in +")
    if verdict == "edit" and not text:
        raise ValueError(f"{item}: edit, and no text; write the right words into text")
    if text and verdict != "edit" and text != shown(str(given or "")):
        raise ValueError(f"{item}: text, and verdict {verdict or 'empty'}; write edit, or no text")
    return [mark(item, verdict, text if verdict == "edit" else None)]


def words(text: str) -> list[str]:
    """Split a cell of labels; a label is one word or a few."""
    return [word for each in re.split(r"[;,；，、\n]", text) if (word := label(each))]


def label(text: str) -> str:
    """Write a label as labels are stored."""
    return " ".join(text.split()).strip("\"'[]").lower()
