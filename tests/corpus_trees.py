"""Miniature corpora for tests: the layout, grammar and defects of each, with one byte per media."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import openpyxl

from emer_ray import corpora, storage
from emer_ray.corpora import Found, Row

Tree = Mapping[str, bytes]
"""Files by their paths below ROOT."""


def media(*paths: str) -> Tree:
    """One-byte files: an adapter that opened one would find no media."""
    return dict.fromkeys(paths, b"x")


def table(*lines: Sequence[object]) -> bytes:
    """A CSV in UTF-8."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue().encode()


def sheet(*lines: Sequence[object]) -> bytes:
    """An xlsx with one sheet."""
    book = openpyxl.Workbook()
    active = book.active
    assert active is not None
    for line in lines:
        active.append(list(line))
    data = io.BytesIO()
    book.save(data)
    return data.getvalue()


def plant(root: Path | str, tree: Tree) -> str:
    """Write a tree below ROOT, local or s3://."""
    for path, data in tree.items():
        if storage.is_s3(str(root)):
            storage.write(storage.join(str(root), path), data)
        else:
            (Path(root) / path).parent.mkdir(parents=True, exist_ok=True)
            (Path(root) / path).write_bytes(data)
    return str(root)


def read(name: str, root: Path | str, tree: Tree) -> "Read":
    """Plant a tree and read it as a corpus."""
    return Read(corpora.read(corpora.named(name), plant(root, tree)), str(root))


class Read:
    """What came out of a tree, by clip and by reason."""

    def __init__(self, found: Found, root: str) -> None:
        self.found, self.root = found, root
        self.rows: dict[str, Row] = {row.clip_id: row for row in found.rows}
        assert len(self.rows) == len(found.rows)

    def ids(self) -> list[str]:
        """Clip ids in the order of the rows."""
        return [row.clip_id for row in self.found.rows]

    def below(self, uri: str | None) -> str | None:
        """A URI as its path below ROOT."""
        return None if uri is None else uri.removeprefix(f"{self.root}/")

    def video(self, clip_id: str) -> str | None:
        """Where the picture of a clip is."""
        return self.below(self.rows[clip_id].video_uri)

    def audio(self, clip_id: str) -> str | None:
        """Where the sound of a clip is, if apart."""
        return self.below(self.rows[clip_id].audio_uri)

    def left(self, reason: str) -> list[str]:
        """What was left out for a reason."""
        return [left.what for left in self.found.left_out if left.reason == reason]

    def all_left(self) -> dict[str, list[str]]:
        """What was left out, by reason."""
        return {
            reason: self.left(reason)
            for reason in dict.fromkeys(left.reason for left in self.found.left_out)
        }
