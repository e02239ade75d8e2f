r"""Any other corpus, described by a small TOML file.

name = "tv-talk"
licence_tag = "gated:TV-TALK"         # an SPDX id, gated:NAME, or left out = unknown

[media]                               # regular expressions over paths below ROOT; named groups
video = '(?P<split>train|test)/(?P<clip_id>[^/]+)\.mp4'              # become columns
audio = 'audio/(?P<clip_id>[^/]+)\.wav'
images = 'frames/(?P<clip_id>[^/]+)'  # folders of pictures, with fps
fps = 25

[labels]                              # left out where names of files say everything
file = 'labels/(?P<split>[a-z]+)\.csv'
clip_id = "{video_id}_{clip_id:0>4}"  # over the table's columns, blanks padded with zeros
media = "{video_id}"                  # which media, where several clips are in one file

[columns]                             # ours = theirs; others go to `extra`
label_onehot = "emotion"
valence = "sentiment"

[scores]                              # words of label_scores = columns
happiness = "hap"

[words]                               # what their label_onehot means
1 = "happy"
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from emer_ray import storage
from emer_ray.corpora import sheets
from emer_ray.corpora.row import Corpus, Row
from emer_ray.corpora.tree import Tree
from emer_ray.errors import ConfigError

_TEXT: Final = ("subtitle_zh", "subtitle_en", "speaker", "source_id", "split", "label_onehot")
_NUMBERS: Final = ("start_s", "end_s", "valence")
_COLUMNS: Final = (*_TEXT, *_NUMBERS, "label_ov")

_KEYS: Final[dict[str, set[str]]] = {
    "media": {"video", "audio", "images", "fps"},
    "labels": {"file", "clip_id", "media"},
    "columns": set(_COLUMNS),
}
_TABLES: Final = {"media", "labels", "columns", "scores", "words"}
_TOP: Final = {"name", "licence_tag", *_TABLES}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recipe:
    """The file, checked."""

    media: Mapping[str, str]
    fps: float | None = None
    labels: str | None = None
    clip_id: str = "{clip_id}"
    key: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    scores: Mapping[str, str] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)


def load(uri: str) -> Corpus:
    """Read the description of a corpus; raises `ConfigError` with the key that is wrong."""
    try:
        given = tomllib.loads(sheets.text(storage.read(uri)))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{uri}: no TOML ({error}); see docs/corpora.md") from None
    recipe = _checked(uri, given)
    return Corpus(
        name=str(given["name"]),
        title=str(given["name"]),
        rows=lambda tree: _rows(tree, recipe),
        layout=tuple(recipe.media.values()),
        labels=f"as {uri} says",
        scale="as the corpus has it",
        splits="as the corpus has it",
        licence_tag=given.get("licence_tag"),
        licence="as its owner says",
        checked="by whoever wrote the file",
    )


def _checked(uri: str, given: Mapping[str, Any]) -> _Recipe:
    for key in sorted(_TABLES & given.keys()):
        if not isinstance(given[key], dict):
            raise ConfigError(f"{uri}: {key} is not a table; write [{key}]")
        for name, value in given[key].items():
            kinds = (int, float) if name == "fps" else str
            if not isinstance(value, kinds):
                kind = "number" if name == "fps" else "text in quotes"
                raise ConfigError(f"{uri}: {key}.{name} = {value!r} is no {kind}")
    media, labels = dict(given.get("media", {})), given.get("labels", {})
    for section, known in (("", _TOP), *_KEYS.items()):
        found = given if not section else given.get(section, {})
        if unknown := sorted(set(found) - known):
            key = ".".join(filter(None, (section, unknown[0])))
            raise ConfigError(f"{uri}: no key {key}; there are {', '.join(sorted(known))}")
    fps = media.pop("fps", None)
    if not given.get("name") or not media:
        raise ConfigError(f"{uri}: give name, and one of media.video, media.audio, media.images")
    if ("images" in media) != (fps is not None):
        raise ConfigError(f"{uri}: give media.images and media.fps together")
    if labels and "file" not in labels:
        raise ConfigError(f"{uri}: labels.file is not set; give the table as a regular expression")
    for key, pattern in (*media.items(), ("file", labels.get("file", ""))):
        try:
            groups = re.compile(pattern).groupindex
        except re.error as error:
            raise ConfigError(f"{uri}: {key} is no regular expression ({error})") from None
        if key != "file" and "clip_id" not in groups:
            raise ConfigError(f"{uri}: media.{key} has no group (?P<clip_id>…)")
    return _Recipe(
        media=media,
        fps=None if fps is None else float(fps),
        labels=labels.get("file"),
        clip_id=labels.get("clip_id", "{clip_id}"),
        key=labels.get("media"),
        columns=given.get("columns", {}),
        scores=given.get("scores", {}),
        words=given.get("words", {}),
    )


def _rows(tree: Tree, recipe: _Recipe) -> Iterator[Row]:
    paths: dict[str, dict[str, str]] = {}
    groups: dict[str, dict[str, str]] = {}
    for kind, pattern in recipe.media.items():
        images = kind == "images"
        found = tree.folders(pattern) if images else tree.files(pattern)
        for match in found:
            groups.setdefault(match["clip_id"], {}).update(_given(match.groupdict()))
        paths[kind] = tree.index(pattern, lambda match: match["clip_id"], images=images)
    if recipe.labels is None:
        for key in sorted(groups):
            yield _row(tree, recipe, key, groups[key], paths, key)
        return
    for sheet in tree.files(recipe.labels):
        for line in tree.table(sheet.string, sorted({*recipe.columns.values()}), "gb18030"):
            try:
                clip_id = recipe.clip_id.format_map(line)
                key = clip_id if recipe.key is None else recipe.key.format_map(line)
            except (KeyError, ValueError, AttributeError, IndexError) as error:
                raise ConfigError(
                    f"labels.clip_id or labels.media does not fit {sheet.string} ({error!r}); "
                    f"its columns are {', '.join(line)}"
                ) from None
            if key not in groups:
                tree.leave(clip_id, "no_media", f"no media called {key}")
                continue
            cells = groups[key] | _given(sheet.groupdict()) | line
            yield _row(tree, recipe, clip_id, cells, paths, key)


def _given(groups: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in groups.items() if value is not None}


def _row(
    tree: Tree,
    recipe: _Recipe,
    clip_id: str,
    cells: Mapping[str, str],
    paths: Mapping[str, Mapping[str, str]],
    key: str,
) -> Row:
    def cell(column: str) -> str | None:
        return cells.get(recipe.columns.get(column, column)) or None

    uris = {kind: tree.take(found[key]) for kind, found in paths.items() if key in found}
    ov, label = cell("label_ov"), cell("label_onehot")
    scores = {
        word: tree.number(clip_id, name, cells.get(name)) for word, name in recipe.scores.items()
    }
    numbers = {column: tree.number(clip_id, column, cell(column)) for column in _NUMBERS}
    used = {*recipe.columns.values(), *recipe.scores.values(), *_COLUMNS, "clip_id"}
    video = uris.get("video")
    return Row(
        clip_id=clip_id,
        video_uri=video or uris.get("images"),
        audio_uri=uris.get("audio"),
        start_s=numbers["start_s"],
        end_s=numbers["end_s"],
        fps=recipe.fps if video is None and "images" in uris else None,
        subtitle_zh=cell("subtitle_zh"),
        subtitle_en=cell("subtitle_en"),
        speaker=cell("speaker"),
        source_id=cell("source_id"),
        split=cell("split"),
        label_onehot=recipe.words.get(label, label) if label else None,
        label_ov=sheets.words(ov) if ov else None,
        label_scores={word: x for word, x in scores.items() if x is not None} or None,
        valence=numbers["valence"],
        extra={name: value or None for name, value in cells.items() if name not in used},
    )
