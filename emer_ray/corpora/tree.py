"""What lies under ROOT: one listing, in which every file with media is accounted for.

An adapter takes the files it has rows for and leaves others out with a reason; what is neither when
it ends is `unmatched`. So nothing is dropped in silence, whatever an adapter forgets. Media are
never opened; only small label and transcript files are read.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from emer_ray import storage
from emer_ray.corpora import sheets
from emer_ray.corpora.row import LeftOut, Reason
from emer_ray.errors import ManifestError

VIDEO: Final = (
    *(".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".webm"),
    ".wmv",
)
AUDIO: Final = (".aac", ".aif", ".aiff", ".flac", ".m4a", ".mp3", ".ogg", ".opus", ".wav", ".wma")
IMAGES: Final = (".bmp", ".jpeg", ".jpg", ".png")

Match = re.Match[str]


class Tree:
    """The files under ROOT by their paths below it, and what became of them."""

    def __init__(self, root: str) -> None:
        self.root = storage.resolve(root, str(Path.cwd())).rstrip("/")
        self.left_out: list[LeftOut] = []
        self._files: list[str] = []
        self._folders: dict[str, None] = {}
        """Folders with images; images themselves may be millions."""
        self._taken: set[str] = set()
        for entry in storage.listing(self.root):
            path = entry.uri.removeprefix(self.root + "/")
            ending = PurePosixPath(path).suffix.lower()
            if any(part.startswith(".") or part == "__MACOSX" for part in path.split("/")):
                if ending in VIDEO + AUDIO:
                    self.leave(path, "hidden", "its name marks it as no part of the corpus")
            elif ending in IMAGES:
                if entry.size:
                    self._folders[path.rpartition("/")[0]] = None
            elif ending in VIDEO + AUDIO and not entry.size:
                self.leave(path, "broken", "0 bytes; copy it again")
            else:
                self._files.append(path)
        if not self._files and not self._folders:
            raise ManifestError(
                f"{root}: there are no files; give the folder or s3:// prefix of the corpus"
            )

    def files(self, pattern: str) -> list[Match]:
        """Find files whose path ends with a regular expression that begins at a folder."""
        return _matching(pattern, self._files)

    def folders(self, pattern: str) -> list[Match]:
        """Find folders of images in the same way."""
        return _matching(pattern, self._folders)

    def index(
        self,
        pattern: str,
        key: Callable[[Match], str] = lambda found: found["name"],
        *,
        images: bool = False,
    ) -> dict[str, str]:
        """Map clips to their paths; a second path for a clip is left out as duplicate."""
        paths: dict[str, str] = {}
        for found in self.folders(pattern) if images else self.files(pattern):
            clip = key(found)
            if clip in paths:
                self.leave(found.string, "duplicate", f"{clip} is {paths[clip]}")
            else:
                paths[clip] = found.string
        return paths

    def take(self, path: str) -> str:
        """Give the URI of a file or folder that has a row."""
        self._taken.add(path)
        return storage.join(self.root, path)

    def leave(self, what: str, reason: Reason, detail: str) -> None:
        """Note what has no place in the manifest."""
        self._taken.add(what)
        self.left_out.append(LeftOut(what=what, reason=reason, detail=detail))

    def number(self, clip: str, column: str, cell: str | None) -> float | None:
        """Read a number of a clip; what is neither a number nor blank is noted, and null."""
        value = sheets.number(cell)
        if cell and value is None:
            self.leave(f"{clip}: {cell}", "unreadable", f"{column} is not a number")
        return value

    def leave_rest(self) -> None:
        """Account for every file with media, and every folder of images, that is left."""
        for path in (*self._files, *self._folders):
            media = PurePosixPath(path).suffix.lower() in VIDEO + AUDIO or path in self._folders
            if media and path not in self._taken:
                self.leave(path, "unmatched", "no label and no rule of this corpus names it")

    def text(self, path: str, fallback: str = "cp1252") -> str:
        """Read a text file."""
        return sheets.text(self._read(path), fallback)

    def lines(self, path: str, fallback: str = "cp1252") -> list[str]:
        """Read the lines of a text file, without blank ones."""
        return [line.strip() for line in self.text(path, fallback).split("\n") if line.strip()]

    def table(
        self, path: str, need: Sequence[str], fallback: str = "cp1252"
    ) -> list[dict[str, str]]:
        """Read a CSV that must have some columns."""
        return sheets.table(self._read(path), path, need, fallback)

    def spreadsheet(self, path: str) -> list[list[str]]:
        """Read the first sheet of an xlsx."""
        return sheets.spreadsheet(self._read(path), path)

    def _read(self, path: str) -> bytes:
        return storage.read(storage.join(self.root, path))


def _matching(pattern: str, paths: Sequence[str] | dict[str, None]) -> list[Match]:
    compiled = re.compile(rf"(?:.*/)?(?:{pattern})", re.IGNORECASE)
    return [found for path in paths if (found := compiled.fullmatch(path))]
