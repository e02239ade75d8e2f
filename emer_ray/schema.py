"""Every column there is: one `pa.field` each, and the tables composed from them.

A column shared by five tables is one line here; its documentation is the field's metadata, from
which the data contract in the README is generated. All tables are built by `table`, never by
`pa.Table.from_pylist`, which drops unknown keys and accepts nulls in non-nullable fields.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa


def _field(name: str, type_: pa.DataType, doc: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, type_, nullable=nullable, metadata={"doc": doc})


def _list(item: pa.DataType) -> pa.DataType:
    return pa.list_(pa.field("item", item, nullable=False))


MEASURE: Final = pa.struct(
    [
        pa.field("measure", pa.string(), nullable=False),
        pa.field("value", pa.float64(), nullable=True),
        pa.field("unit", pa.string(), nullable=False),
        pa.field("start_s", pa.float64(), nullable=True),
        pa.field("end_s", pa.float64(), nullable=True),
        pa.field("baseline", pa.float64(), nullable=True),
        pa.field("baseline_source", pa.string(), nullable=True),
    ]
)
"""A number read off a clip: what, how much, in which unit, when, and against what."""

CLUE: Final = pa.struct(
    [
        pa.field("text", pa.string(), nullable=False),
        pa.field("evidence", _list(MEASURE), nullable=False),
    ]
)

LABEL: Final = pa.struct(
    [
        pa.field("label", pa.string(), nullable=False),
        pa.field("support", pa.float64(), nullable=True),
    ]
)

ANSWER: Final = pa.struct(
    [
        pa.field("step", pa.string(), nullable=False),
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("raw", pa.string(), nullable=False),
        pa.field("finish", pa.string(), nullable=False),
        pa.field("tokens_in", pa.int64(), nullable=True),
        pa.field("tokens_out", pa.int64(), nullable=True),
        pa.field("latency_s", pa.float64(), nullable=True),
        pa.field("usd", pa.float64(), nullable=True),
    ]
)

FAMILY_SHARE: Final = pa.struct(
    [
        pa.field("family", pa.string(), nullable=False),
        pa.field("share", pa.float64(), nullable=False),
    ]
)
"""How much of a clip's labels falls to one family of emotions."""

NEIGHBOUR: Final = pa.struct(
    [
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("old_family", pa.string(), nullable=False),
        pa.field("similarity", pa.float64(), nullable=False),
    ]
)
"""A clip that looks alike, and what it is labelled."""

MEDIA: Final = pa.struct(
    [
        pa.field("has_video", pa.bool_(), nullable=False),
        pa.field("has_audio", pa.bool_(), nullable=False),
        pa.field("declared_s", pa.float64(), nullable=True),
        pa.field("decoded_s", pa.float64(), nullable=False),
        pa.field("short", pa.bool_(), nullable=False),
        pa.field("width", pa.int32(), nullable=True),
        pa.field("height", pa.int32(), nullable=True),
        pa.field("fps", pa.float64(), nullable=True),
        pa.field("variable_rate", pa.bool_(), nullable=True),
        pa.field("rotation_deg", pa.int32(), nullable=True),
        pa.field("n_frames", pa.int32(), nullable=False),
        pa.field("audio_hz", pa.int32(), nullable=True),
        pa.field("video_codec", pa.string(), nullable=True),
        pa.field("audio_codec", pa.string(), nullable=True),
        pa.field("decoder", pa.string(), nullable=False),
    ]
)

MODEL_USED: Final = pa.struct(
    [
        pa.field("step", pa.string(), nullable=False),
        pa.field("backend", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("revision", pa.string(), nullable=True),
        pa.field("prompt_hash", pa.string(), nullable=False),
    ]
)

PROVENANCE: Final = pa.struct(
    [
        pa.field("fingerprint", pa.string(), nullable=False),
        pa.field("recipe", pa.string(), nullable=False),
        pa.field("models", _list(MODEL_USED), nullable=False),
        pa.field("versions", pa.map_(pa.string(), pa.string()), nullable=False),
    ]
)

CLIP_ID = _field(
    "clip_id", pa.string(), "The clip's name, unique in its manifest; nothing renames it"
)
VIDEO_URI = _field(
    "video_uri", pa.string(), "Video file, or a folder of images when `fps` is given", nullable=True
)
AUDIO_URI = _field(
    "audio_uri", pa.string(), "Audio file; null = the video's own sound", nullable=True
)
START_S = _field(
    "start_s", pa.float64(), "Start of the window in the file, seconds; null = 0", nullable=True
)
END_S = _field(
    "end_s",
    pa.float64(),
    "End of the window in the file, seconds; null = end of file",
    nullable=True,
)
CROP = _field(
    "crop",
    _list(pa.float64()),
    "x0, y0, x1, y1 as fractions of the picture; null = whole",
    nullable=True,
)
FPS = _field(
    "fps",
    pa.float64(),
    "Frames per second of an image folder; null = `video_uri` is a file",
    nullable=True,
)
SUBTITLE_ZH = _field("subtitle_zh", pa.string(), "What is said, Chinese", nullable=True)
SUBTITLE_EN = _field("subtitle_en", pa.string(), "What is said, English", nullable=True)
SPEAKER = _field(
    "speaker", pa.string(), "Who is seen or heard, as the corpus names them", nullable=True
)
SOURCE_ID = _field(
    "source_id",
    pa.string(),
    "The recording a clip was cut from; clusters of intervals",
    nullable=True,
)
SPLIT = _field("split", pa.string(), "train, test, … as the corpus names it", nullable=True)
CORPUS = _field("corpus", pa.string(), "The corpus a clip belongs to", nullable=True)
LICENCE_TAG = _field(
    "licence_tag",
    pa.string(),
    "Licence of the media: an SPDX id, or `gated:NAME`, or null = unknown",
    nullable=True,
)
COMPOSITE = _field(
    "composite",
    pa.bool_(),
    "True where picture and sound were put together for a demonstration",
    nullable=True,
)
LABEL_ONEHOT = _field("label_onehot", pa.string(), "Old label: one word", nullable=True)
LABEL_OV = _field("label_ov", _list(pa.string()), "Old labels: open vocabulary", nullable=True)
LABEL_SCORES = _field(
    "label_scores",
    pa.map_(pa.string(), pa.float64()),
    "Old label as shares or intensities by word",
    nullable=True,
)
VALENCE = _field(
    "valence", pa.float64(), "Old valence or sentiment, in the corpus's scale", nullable=True
)
EXTRA = _field(
    "extra",
    pa.map_(pa.string(), pa.string()),
    "Columns of the user's manifest that emer_ray does not know, as text",
    nullable=True,
)

SHARD = _field("shard", pa.int32(), "The fixed group of clips a row was computed and stored with")
SHARD_CLIPS = _field(
    "shard_clips", pa.int32(), "Rows of the shard; a writer that sees fewer stops the run"
)
SHARDS = _field(
    "shards",
    _list(pa.int32()),
    "Shards a clip was given, in order; more than one after `--retry-failed`",
)
PRESENT = _field(
    "present", pa.bool_(), "In the manifest of the newest start; false = removed since"
)
ATTEMPT = _field(
    "attempt", pa.int32(), "1 for the first shard of a clip, one more for each `--retry-failed`"
)

EARLIER_PART = _field(
    "earlier_part",
    pa.string(),
    "Part of `input.answers` that holds this clip's row; null = nothing is reused",
    nullable=True,
)

EARLIER_SHARD = _field(
    "earlier_shard",
    pa.int32(),
    "Shard of `input.answers` that keeps embeddings of the same media; null = none does",
    nullable=True,
)

STAGE = _field(
    "stage", pa.string(), "Stage a clip failed in; null while it has not failed", nullable=True
)
KIND = _field(
    "kind",
    pa.string(),
    "Failure kind, one of the closed set; null while it has not failed",
    nullable=True,
)
MESSAGE = _field(
    "message",
    pa.string(),
    "What went wrong, one sentence; null while it has not failed",
    nullable=True,
)
WORKER = _field("worker", pa.string(), "Host and process id a clip failed on", nullable=True)

FRAMES = _field(
    "frames",
    pa.large_binary(),
    "RGB uint8, shape `frame_shape`; null without video. Dies after its last reader",
    nullable=True,
)
FRAME_SHAPE = _field("frame_shape", _list(pa.int32()), "n, height, width, 3", nullable=True)
FRAME_TIMES_S = _field(
    "frame_times_s",
    _list(pa.float64()),
    "Time of each frame, seconds from the start of the window",
    nullable=True,
)
PCM = _field(
    "pcm",
    pa.large_binary(),
    "Mono float32 little-endian at 16 kHz; null without sound. Dies after its last reader",
    nullable=True,
)
MEDIA_FACTS = _field(
    "media",
    MEDIA,
    "What was found in the file: modalities, durations, rates, codecs, decoder",
    nullable=True,
)

MEASURES = _field(
    "measures", _list(MEASURE), "Every number perception read off the clip", nullable=True
)
N_FACES = _field(
    "n_faces", pa.int32(), "People tracked in the clip; null = nobody looked", nullable=True
)
MAIN_FACE = _field(
    "main_face", pa.string(), "How the main character was chosen, in words", nullable=True
)
SUBTITLE = _field(
    "subtitle", pa.string(), "The words the explanation used; null = none", nullable=True
)
SUBTITLE_SOURCE = _field(
    "subtitle_source", pa.string(), "given or recognised; null = no words", nullable=True
)
EMBEDDINGS = _field(
    "embeddings",
    pa.large_binary(),
    "What a model's towers made of the clip: `tensors`, one after the other. Dies after its model",
    nullable=True,
)
TENSORS = _field(
    "tensors",
    _list(
        pa.struct(
            [
                pa.field("name", pa.string(), nullable=False),
                pa.field("dtype", pa.string(), nullable=False),
                pa.field("shape", _list(pa.int64()), nullable=False),
                pa.field("n_bytes", pa.int64(), nullable=False),
            ]
        )
    ),
    "Names, types and shapes of what `embeddings` holds",
    nullable=True,
)
POOLED = _field(
    "pooled",
    _list(
        pa.struct(
            [
                pa.field("name", pa.string(), nullable=False),
                pa.field("values", _list(pa.float32()), nullable=False),
            ]
        )
    ),
    "One vector per modality that the towers embedded: the mean over its tokens",
)
NOTES = _field(
    "notes", _list(pa.string()), "What was not available for this clip, and why", nullable=True
)
ANSWERS = _field(
    "answers",
    _list(ANSWER),
    "Raw answers of the recipe's steps, as the model gave them",
    nullable=True,
)

VISUAL_CLUES = _field("visual_clues", _list(CLUE), "What is seen, each with its evidence")
ACOUSTIC_CLUES = _field("acoustic_clues", _list(CLUE), "What is heard, each with its evidence")
LEXICAL_CLUES = _field("lexical_clues", _list(CLUE), "What is said, each with its evidence")
EXPLANATION = _field("explanation", pa.string(), "Why the clues point to an emotional state")
LABELS = _field(
    "labels",
    _list(LABEL),
    "Open-vocabulary emotion words with their support; [] = no clear emotion",
)
CONFIDENCE = _field(
    "confidence", pa.float64(), "0 to 1, as far as the backend knows", nullable=True
)
PARSE_RUNG = _field("parse_rung", pa.string(), "Which rung of the parser read the answer")
USD = _field(
    "usd",
    pa.float64(),
    "What the answers of this clip cost, by the price table; null = no price is known",
    nullable=True,
)
PROVENANCE_COLUMN = _field(
    "provenance", PROVENANCE, "Fingerprint, recipe, models, prompts and versions behind the row"
)
FINGERPRINT = _field("fingerprint", pa.string(), "Fingerprint of the run")
OUTCOME = _field("outcome", pa.string(), "ok or failed")
PART = _field("part", pa.string(), "Parquet file of the row, relative to the run directory")
VERSION = _field(
    "version",
    pa.string(),
    "What the store said of the part when the row was stored: its ETag, or its size and time",
    nullable=True,
)

RANK = _field(
    "rank",
    pa.int32(),
    "1 = the clip to look at first; null = nothing can be claimed",
    nullable=True,
)
SUSPECT = _field(
    "suspect", pa.bool_(), "The evidence confidently speaks for another family than the old label"
)
SUSPICION = _field(
    "suspicion",
    pa.float64(),
    "0 to 1, what the clips are ranked by; no probability. Null = nothing can be claimed",
    nullable=True,
)
MARGIN = _field(
    "margin",
    pa.float64(),
    "`expected` share of the best other family less that of the old one, -1 to 1",
)
DISAGREE = _field("disagree", pa.bool_(), "No family of the old labels is among `new_families`")
OLD_LABELS = _field("old_labels", _list(pa.string()), "Old labels, as the corpus has them")
OLD_FAMILY = _field("old_family", pa.string(), "Family of the old labels; the largest of several")
OLD_FAMILIES = _field(
    "old_families", _list(FAMILY_SHARE), "Families of the old labels, largest first, sum 1"
)
NEW_LABELS = _field("new_labels", _list(LABEL), "Labels of the run with their support")
NEW_FAMILY = _field(
    "new_family",
    pa.string(),
    "Family of the run's labels, the largest of several; null = no label has one",
    nullable=True,
)
NEW_FAMILIES = _field(
    "new_families",
    _list(FAMILY_SHARE),
    "Families of the run's labels by support, largest first, sum 1; [] = no label has one",
)
EXPECTED = _field(
    "expected",
    _list(FAMILY_SHARE),
    "How old labels fall where the evidence is like this, by clips of other folds; largest first",
)
NEIGHBOURS = _field(
    "neighbours",
    _list(NEIGHBOUR),
    "Nearest clips whose old label is what the evidence expects here; only for clips ranked high",
)

CHANGED = _field("changed", pa.bool_(), "The two sides have no family of emotions in common")
CHANGE = _field(
    "change",
    pa.float64(),
    "0 = same families with the same shares, 1 = none in common (total variation)",
)
LABELS_A = _field("labels_a", _list(LABEL), "Labels of the first side with their support")
LABELS_B = _field("labels_b", _list(LABEL), "Labels of the second side with their support")
FAMILIES_A = _field(
    "families_a", _list(FAMILY_SHARE), "Families of the first side's labels, largest first"
)
FAMILIES_B = _field(
    "families_b", _list(FAMILY_SHARE), "Families of the second side's labels, largest first"
)
EXPLANATION_A = _field(
    "explanation_a", pa.string(), "What the first side explains; null = nothing", nullable=True
)
EXPLANATION_B = _field(
    "explanation_b", pa.string(), "What the second side explains; null = nothing", nullable=True
)
REFERENCE_LABELS = _field(
    "reference_labels", _list(pa.string()), "Labels of the reference; null = none", nullable=True
)
SCORE_A = _field(
    "score_a",
    pa.float64(),
    "The first side's score of the leading metric on this clip; null = not scored",
    nullable=True,
)
SCORE_B = _field(
    "score_b", pa.float64(), "The second side's score, likewise; null = not scored", nullable=True
)

ANNOTATOR = _field("annotator", pa.string(), "Who judged, by the name they go by in this round")
ANNOTATORS = _field("annotators", _list(pa.string()), "Who is asked, or who judged")
ROUND = _field(
    "round", pa.int32(), "1 = what the machine said was judged; 2 = the merged round 1; …"
)
ITEM = _field(
    "item",
    pa.string(),
    "What is judged: clip, visual.1, acoustic.1, lexical.1, explanation, label.1 …; an addition "
    "has a +: label.+1",
)
GIVEN = _field(
    "given",
    pa.string(),
    "What stood there to be judged; of the item clip, the words spoken; null for an addition",
    nullable=True,
)
EVIDENCE = _field(
    "evidence", _list(MEASURE), "Measures behind a clue that was given", nullable=True
)
LOOK_AT = _field(
    "look_at",
    pa.string(),
    "Of the item clip: where its media are, with #t=start,end where it is a part of a file",
    nullable=True,
)
VERDICT = _field(
    "verdict", pa.string(), "accept, edit, reject, add; null = not judged", nullable=True
)
TEXT = _field("text", pa.string(), "The words instead (edit) or besides (add)", nullable=True)
NOTE = _field("note", pa.string(), "A remark of the annotator on the clip", nullable=True)
FLAG = _field("flag", pa.bool_(), "The annotator wants the clip looked at again", nullable=True)
FLAGGED_BY = _field("flagged_by", _list(pa.string()), "Annotators who flagged the clip")
REASON = _field("reason", pa.string(), "Why annotators are at odds: tie, split, edits, flag")
CHOSEN = _field(
    "chosen", pa.string(), "What the merge took; null = the item was dropped", nullable=True
)
VOTES = _field(
    "votes", pa.map_(pa.string(), pa.string()), "Annotator -> verdict, with the text of an edit"
)

QUESTION = _field(
    "question", pa.string(), "Clip and what is asked about it, e.g. `c1:clue`, of a judge"
)
PROMPT = _field("prompt", pa.string(), "Which of the judge's prompts: clue, label, …")
SYSTEM = _field("system", pa.string(), "Instructions to a judge; null once asked", nullable=True)
DATA = _field(
    "data",
    pa.map_(pa.string(), pa.string()),
    "What is judged, by the tag that it stands in; null once asked",
    nullable=True,
)

MANIFEST: Final = pa.schema(
    [
        *(CLIP_ID, VIDEO_URI, AUDIO_URI, START_S, END_S, CROP, FPS, SUBTITLE_ZH, SUBTITLE_EN),
        *(SPEAKER, SOURCE_ID, SPLIT, CORPUS, LICENCE_TAG, COMPOSITE),
        *(LABEL_ONEHOT, LABEL_OV, LABEL_SCORES, VALENCE, EXTRA),
    ]
)
"""A manifest as every reader returns it: one row per clip."""

RUN_MANIFEST: Final = pa.schema([*MANIFEST, SHARDS, PRESENT])
"""`manifest.parquet` of a run directory."""

CLIPS: Final = pa.schema(
    [
        *(CLIP_ID, SHARD, SHARD_CLIPS, ATTEMPT, VIDEO_URI, AUDIO_URI, START_S, END_S, CROP, FPS),
        *(SUBTITLE_ZH, SUBTITLE_EN, LICENCE_TAG, COMPOSITE, STAGE, KIND, MESSAGE, WORKER),
        *(EARLIER_PART, EARLIER_SHARD),
    ]
)
"""What enters the pipeline."""

DECODED: Final = pa.schema([*CLIPS, FRAMES, FRAME_SHAPE, FRAME_TIMES_S, PCM, MEDIA_FACTS])
"""After decode."""

ENCODED: Final = pa.schema(
    [*DECODED, MEASURES, N_FACES, MAIN_FACE, SUBTITLE, SUBTITLE_SOURCE, NOTES, EMBEDDINGS, TENSORS]
)
"""After encode; a heavy column is null once its last reader is done."""

REASONED: Final = pa.schema([*ENCODED, ANSWERS])
"""After each step of the recipe."""

READ_FROM_ANSWERS: Final = (
    VISUAL_CLUES,
    ACOUSTIC_CLUES,
    LEXICAL_CLUES,
    EXPLANATION,
    LABELS,
    CONFIDENCE,
    PARSE_RUNG,
)

PARSED: Final = pa.schema([*REASONED, *(field.with_nullable(True) for field in READ_FROM_ANSWERS)])
"""After parse; a failed row has nulls where an explanation would be."""

EXPLANATIONS: Final = pa.schema(
    [
        *(CLIP_ID, SHARD, ATTEMPT, *READ_FROM_ANSWERS),
        *(N_FACES, MAIN_FACE, SUBTITLE, SUBTITLE_SOURCE, NOTES, MEASURES, MEDIA_FACTS, ANSWERS),
        *(USD, LICENCE_TAG, COMPOSITE, PROVENANCE_COLUMN),
    ]
)
"""A part of `explanations/`."""

FAILURES: Final = pa.schema(
    [
        *(CLIP_ID, SHARD, ATTEMPT),
        *(field.with_nullable(False) for field in (STAGE, KIND, MESSAGE)),
        *(N_FACES, MAIN_FACE, SUBTITLE, SUBTITLE_SOURCE, NOTES, MEASURES, MEDIA_FACTS, ANSWERS),
        *(USD, WORKER, LICENCE_TAG, COMPOSITE, FINGERPRINT),
    ]
)
"""A part of `failures/`: what was known of the clip when it failed, so that a better parser can
read its answers again."""

KEPT: Final = pa.schema(
    [CLIP_ID, STAGE, KIND, MESSAGE, WORKER, FRAME_TIMES_S, MEDIA_FACTS, POOLED.with_nullable(True)]
)
"""`embeddings/…/N.vectors.parquet`: what is light of a clip's kept embeddings; of one that failed
before it had any, how."""

KEPT_TENSORS: Final = pa.schema(
    [CLIP_ID, *(field.with_nullable(False) for field in (TENSORS, EMBEDDINGS))]
)
"""`embeddings/…/N.parquet`: the embeddings themselves."""

INDEX: Final = pa.schema([CLIP_ID, SHARD, OUTCOME, STAGE, KIND, PART, USD, VERSION])
"""A receipt, which is all that the driver sees of a clip; `index/` holds snapshots of them."""

REVIEW_ITEMS: Final = pa.schema([CLIP_ID, ITEM, GIVEN, EVIDENCE, LOOK_AT, LICENCE_TAG, ANNOTATORS])
"""`items.parquet` of a review round: everything that is given to be judged, and to whom."""

MARKS: Final = pa.schema(
    [CLIP_ID, ITEM, GIVEN, VERDICT, TEXT, NOTE, FLAG, LOOK_AT, ANNOTATOR, ROUND]
)
"""A sheet of a review round, and `marks.parquet`, which is all of them: one judgement a row."""

REVIEWED: Final = pa.schema(
    [
        *(CLIP_ID, VISUAL_CLUES, ACOUSTIC_CLUES, LEXICAL_CLUES, EXPLANATION, LABELS),
        *(SUBTITLE, NOTES, FLAGGED_BY, ANNOTATORS, ROUND, LICENCE_TAG),
    ]
)
"""`merged.parquet` of a review round: what the annotators made of each clip."""

CONFLICTS: Final = pa.schema([CLIP_ID, ITEM, REASON, GIVEN, CHOSEN, VOTES])
"""`conflicts.parquet` of a review round: where its annotators are at odds."""


AUDIT: Final = pa.schema(
    [
        *(CLIP_ID, RANK, SUSPECT, SUSPICION, MARGIN, DISAGREE),
        *(OLD_LABELS, OLD_FAMILY, OLD_FAMILIES, NEW_LABELS, NEW_FAMILY, NEW_FAMILIES, EXPECTED),
        *(CONFIDENCE, EXPLANATION, NEIGHBOURS, SPLIT, SPEAKER, SOURCE_ID),
    ]
)
"""`audit.parquet`: a row per compared clip, the one to look at first on top."""

COMPARISON: Final = pa.schema(
    [
        *(CLIP_ID, RANK, CHANGED, CHANGE, LABELS_A, LABELS_B, FAMILIES_A, FAMILIES_B),
        *(EXPLANATION_A, EXPLANATION_B, REFERENCE_LABELS, SCORE_A, SCORE_B),
    ]
)
"""`comparison.parquet`: a row per clip that both sides have, what changed most on top."""


JUDGED: Final = pa.schema(
    [
        *(CLIP_ID, SHARD, QUESTION, PROMPT, SYSTEM, DATA, LICENCE_TAG),
        *(STAGE, KIND, MESSAGE, WORKER, ANSWERS),
    ]
)
"""Questions to a judge on their way; here `clip_id` is the hash that the answer is kept by."""


def table(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Build a table that obeys `schema` to the letter.

    Raises `ValueError` for an unknown key, a missing key, or a null in a non-nullable field.
    """
    rows = list(rows)
    names = set(schema.names)
    for number, row in enumerate(rows):
        if row.keys() != names:
            unknown, missing = sorted(row.keys() - names), sorted(names - row.keys())
            raise ValueError(f"row {number}: unknown columns {unknown}, missing columns {missing}")
    columns = [column([row[field.name] for row in rows], field.type) for field in schema]
    for field, values in zip(schema, columns, strict=True):
        _refuse_nulls(field, values, field.name)
    return pa.Table.from_arrays(columns, schema=schema)


def column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Build one column; large binaries from whatever has bytes: arrays, buffers, views.

    Those are copied side by side, each once. `pa.array` copies twice, and pyarrow 26 never lets go
    of a view that it was given: the frames of every clip would stay in memory.
    """
    if not pa.types.is_large_binary(kind):
        return pa.array(values, type=kind)
    pieces = [np.frombuffer(_flat(value), np.uint8) for value in values]
    ends = np.cumsum([0, *(piece.size for piece in pieces)], dtype=np.int64)
    whole = np.concatenate(pieces) if pieces else np.empty(0, np.uint8)
    there = pa.array([value is not None for value in values], pa.bool_()).buffers()[1]
    buffers = [there, pa.py_buffer(ends), pa.py_buffer(whole)]
    return pa.LargeBinaryArray.from_buffers(kind, len(values), buffers)


def _flat(value: Any) -> Any:
    """Give what has a value's bytes in one piece."""
    if isinstance(value, np.ndarray):
        return np.ascontiguousarray(value).reshape(-1).view(np.uint8)
    return b"" if value is None else value


def _refuse_nulls(field: pa.Field, values: pa.Array, path: str) -> None:
    if not field.nullable and values.null_count:
        raise ValueError(f"column {path}: null where a value is required")
    kind = field.type
    if pa.types.is_struct(kind):
        present = values.drop_null()
        for index in range(kind.num_fields):
            child = kind.field(index)
            _refuse_nulls(child, present.field(index), f"{path}.{child.name}")
    elif pa.types.is_list(kind):
        _refuse_nulls(kind.value_field, values.flatten(), f"{path}[]")


def documentation(schemas: Mapping[str, pa.Schema]) -> Sequence[tuple[str, str, str, str]]:
    """List (column, type, tables, doc), first seen first: the README's data contract."""
    seen: dict[str, tuple[pa.Field, list[str]]] = {}
    for name, schema in schemas.items():
        for field in schema:
            seen.setdefault(field.name, (field, []))[1].append(name)
    return [
        (
            name,
            short_type(field.type) + ("" if field.nullable else ", required"),
            ", ".join(tables),
            field.metadata[b"doc"].decode(),
        )
        for name, (field, tables) in seen.items()
    ]


def short_type(kind: pa.DataType) -> str:
    """Name a type the way the README does: structs by their keys."""
    if pa.types.is_list(kind):
        return f"list<{short_type(kind.value_type)}>"
    if pa.types.is_struct(kind):
        return "{" + ", ".join(kind.field(i).name for i in range(kind.num_fields)) + "}"
    if pa.types.is_map(kind):
        return f"map<{short_type(kind.key_type)}, {short_type(kind.item_type)}>"
    return str(kind)
