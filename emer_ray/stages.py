"""The arrows of the data flow as classes that map a table to a table, row-preserving.

A stage takes settings, loads what it needs, and is called with one shard's Arrow table; calling it
by hand is the same call that Ray Data makes. `through` is the only place where an exception
becomes data. A stage knows nothing of actors or of Ray.
"""

import contextlib
import faulthandler
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from emer_ray import parse, schema, weights
from emer_ray.config import Fault, MediaConfig, ModelConfig
from emer_ray.encode import Encoder, Passthrough
from emer_ray.errors import ClipError, EmerError, ModelError
from emer_ray.media import Decoder
from emer_ray.reason import Reasoner
from emer_ray.records import (
    Answer,
    Clip,
    Clues,
    DecodedClip,
    Frames,
    Measure,
    MediaFacts,
    Pcm,
    Provenance,
    Reply,
)
from emer_ray.store import claims, parts

log = logging.getLogger(__name__)

Row = dict[str, Any]
Work = Callable[[list[Row]], list[Row | ClipError]]

HEAVY: Final = ("frames", "pcm")
"""Columns that travel as buffers and die after their last reader."""

EXIT_HUNG: Final = 70
EXIT_MEMORY: Final = 71


class Stage(Protocol):
    """A table in, a table out, the same rows in the same order."""

    def __call__(self, table: pa.Table) -> pa.Table: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """How a stage that runs models in its own process is contained."""

    run: str | None = None
    """Run directory of the claims; null = no claims, no watchdog: the serial twin."""
    deadline_s: float = 600.0
    """Per clip."""
    batch: int | None = None
    """Clips handed over at once; null = the whole table."""
    faults: Mapping[str, Fault] = field(default_factory=dict)


def through(
    table: pa.Table,
    *,
    stage: str,
    to: pa.Schema,
    work: Work,
    drops: Collection[str] = (),
    guard: Guard | None = None,
) -> pa.Table:
    """Hand the rows that have not failed to `work` and merge what it returns, in place.

    `work` answers every row with the columns it adds or replaces, or with a ClipError; a failed row
    passes through untouched. Columns in `drops` are empty afterwards.
    """
    rows = _rows(table)
    living = [number for number, row in enumerate(rows) if row["kind"] is None]
    answered = _guarded([rows[number] for number in living], stage, work, guard or Guard())
    results: dict[int, Row] = {}
    outcome = {name: table[name].to_pylist() for name in ("stage", "kind", "message", "worker")}
    for number, answer in zip(living, answered, strict=True):
        if isinstance(answer, ClipError):
            outcome["stage"][number] = stage
            outcome["kind"][number] = answer.kind
            outcome["message"][number] = str(answer)
            outcome["worker"][number] = f"{socket.gethostname()}:{os.getpid()}"
        else:
            results[number] = answer
    produced = {name for answer in results.values() for name in answer}
    if unknown := produced - set(to.names):
        raise ValueError(f"stage {stage}: columns {sorted(unknown)} are not in its schema")
    columns = []
    for column in to:
        if column.name in outcome:
            values = pa.array(outcome[column.name], type=column.type)
        elif column.name in drops:
            values = pa.nulls(len(rows), type=column.type)
        elif column.name in produced:
            old = rows if column.name in table.schema.names else [{}] * len(rows)
            values = _array(
                [results.get(i, old[i]).get(column.name) for i in range(len(rows))], column.type
            )
        elif column.name in table.schema.names:
            values = table[column.name]
        else:
            values = pa.nulls(len(rows), type=column.type)
        columns.append(values)
    return pa.table(columns, schema=to)


def _rows(table: pa.Table) -> list[Row]:
    heavy = [name for name in HEAVY if name in table.schema.names]
    rows: list[Row] = table.drop_columns(heavy).to_pylist()
    for name in heavy:
        for row, buffer in zip(rows, _buffers(table[name]), strict=True):
            row[name] = buffer
    return rows


def _buffers(column: pa.ChunkedArray) -> Iterator[pa.Buffer | None]:
    """View the values of a large_binary column; its scalars would copy each of them."""
    for chunk in column.chunks:
        _, offsets, data = chunk.buffers()
        ends = np.frombuffer(offsets, np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
        for number, valid in enumerate(chunk.is_valid().to_pylist()):
            start = int(ends[number])
            yield data.slice(start, int(ends[number + 1]) - start) if valid else None


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_large_binary(kind):
        values = [
            value.reshape(-1).view(np.uint8).data if isinstance(value, np.ndarray) else value
            for value in values
        ]
    return pa.array(values, type=kind)


def _guarded(rows: list[Row], stage: str, work: Work, guard: Guard) -> list[Row | ClipError]:
    """Run the rows in micro-batches; after a death of the process, clip by clip."""
    if not rows:
        return []
    if guard.run is None:
        return _batched(rows, work, guard, None)
    held = claims.claim(guard.run, stage, rows[0]["shard"])
    if held.first:
        answers = _batched(rows, work, guard, held)
    else:
        answers = []
        for row in rows:
            clip_id = row["clip_id"]
            if held.exhausted(clip_id):
                answers.append(_given_up(clip_id, held))
                continue
            held.try_alone(clip_id)
            answers += _batched([row], work, guard, held)
            held.succeeded(clip_id)
    held.release()
    return answers


def _given_up(clip_id: str, held: claims.Claim) -> ClipError:
    tries = f"{claims.ALONE_TRIES} times on this clip alone"
    if clip_id in held.hung:
        return ClipError("timeout", f"the stage passed its deadline {tries}")
    return ClipError("crashed", f"the process died {tries}")


def _batched(
    rows: list[Row], work: Work, guard: Guard, held: claims.Claim | None
) -> list[Row | ClipError]:
    size = guard.batch or len(rows)
    answers: list[Row | ClipError] = []
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        with _watchdog(guard.deadline_s * len(batch), held):
            answers += _attempt(batch, work, guard)
    return answers


def _attempt(rows: list[Row], work: Work, guard: Guard) -> list[Row | ClipError]:
    """Call `work`; the one place where an unexpected exception becomes a row.

    It is retried clip by clip first, so that only the clip that raises it pays. Errors that concern
    the run rather than a clip propagate; memory errors end a contained process, whose claim counts.
    """
    try:
        for row in rows:
            _commit_fault(guard.faults.get(row["clip_id"]))
        answers = work(rows)
    except ClipError as error:
        if len(rows) == 1:
            return [error]
    except EmerError:
        raise
    except MemoryError:
        if guard.run is None:
            raise
        os._exit(EXIT_MEMORY)
    except Exception as error:
        if len(rows) == 1:
            log.exception("clip %s", rows[0]["clip_id"])
            return [ClipError("error", f"{type(error).__name__}: {error}")]
    else:
        if len(answers) != len(rows):
            raise AssertionError(f"{len(rows)} rows went in, {len(answers)} answers came out")
        return answers
    return [answer for row in rows for answer in _attempt([row], work, guard)]


def _commit_fault(fault: Fault | None) -> None:
    """Commit the disaster that `faults.<stage>` of the configuration rehearses."""
    match fault:
        case None:
            return
        case "raise":
            raise RuntimeError("rehearsed fault")
        case "hang":
            time.sleep(86_400)
        case "segfault":
            signal.raise_signal(signal.SIGSEGV)
        case "exit":
            os._exit(1)
        case "bloat":
            raise MemoryError("rehearsed fault")


@contextlib.contextmanager
def _watchdog(seconds: float, held: claims.Claim | None) -> Iterator[None]:
    """End this process when a micro-batch hangs; its claim says so.

    A Python thread does it politely. It needs the GIL, so a C-level timer stands behind it for
    native code that hangs while holding it.
    """
    if held is None:
        yield
        return

    def expire() -> None:
        log.error("a micro-batch passed its deadline of %.0f s; ending the process", seconds)
        held.mark_hung()
        os._exit(EXIT_HUNG)

    timer = threading.Timer(seconds, expire)
    timer.daemon = True
    timer.start()
    faulthandler.dump_traceback_later(seconds + 15, exit=True)
    try:
        yield
    finally:
        timer.cancel()
        faulthandler.cancel_dump_traceback_later()


class Decode:
    """Frames and sound of each clip, decoded in a child process."""

    def __init__(
        self, *, media: MediaConfig, faults: Mapping[str, Fault], drops: Collection[str]
    ) -> None:
        self._decoder = Decoder(media, faults=faults)
        self._drops = drops

    def __call__(self, table: pa.Table) -> pa.Table:
        return through(table, stage="decode", to=schema.DECODED, work=self._work, drops=self._drops)

    def _work(self, rows: list[Row]) -> list[Row | ClipError]:
        decoded = self._decoder([_clip(row) for row in rows])
        return [item if isinstance(item, ClipError) else _decoded_row(item) for item in decoded]

    def close(self) -> None:
        self._decoder.close()


class Encode:
    """What a reasoner works on: measures and words, or frames and sound as they are."""

    def __init__(self, *, model: ModelConfig, guard: Guard, drops: Collection[str]) -> None:
        self._encoder = make_encoder(model)
        self._guard = guard
        self._drops = drops

    def __call__(self, table: pa.Table) -> pa.Table:
        return through(
            table,
            stage="encode",
            to=schema.ENCODED,
            work=self._work,
            drops=self._drops,
            guard=self._guard,
        )

    def _work(self, rows: list[Row]) -> list[Row | ClipError]:
        encoded = self._encoder.encode([_decoded_clip(row) for row in rows])
        return [item if isinstance(item, ClipError) else _clues_row(item) for item in encoded]

    def close(self) -> None:
        self._encoder.close()


class Reason:
    """One step of the recipe: a model answers, and its raw answer is kept."""

    def __init__(
        self,
        *,
        step: str,
        model: ModelConfig,
        baselines: Mapping[str, tuple[float, float, int]],
        guard: Guard,
        drops: Collection[str],
    ) -> None:
        self._step = step
        self._reasoner = make_reasoner(model, baselines)
        self._guard = guard
        self._drops = drops

    def __call__(self, table: pa.Table) -> pa.Table:
        return through(
            table,
            stage=self._step,
            to=schema.REASONED,
            work=self._work,
            drops=self._drops,
            guard=self._guard,
        )

    def _work(self, rows: list[Row]) -> list[Row | ClipError]:
        started = time.perf_counter()
        replies = self._reasoner.explain([_clues(row) for row in rows])
        each_s = (time.perf_counter() - started) / len(rows)
        return [
            reply if isinstance(reply, ClipError) else self._answered(row, reply, each_s)
            for row, reply in zip(rows, replies, strict=True)
        ]

    def _answered(self, row: Row, reply: Reply, each_s: float) -> Row:
        answer = Answer(
            step=self._step,
            sample=0,
            raw=reply.raw,
            finish=reply.finish,
            tokens_in=reply.tokens_in,
            tokens_out=reply.tokens_out,
            latency_s=reply.latency_s if reply.latency_s is not None else each_s,
        )
        return {"answers": [*(row.get("answers") or ()), asdict(answer)]}

    def close(self) -> None:
        self._reasoner.close()


class Parse:
    """The explanation, read out of the last step's answer."""

    def __init__(self, *, step: str) -> None:
        self._step = step

    def __call__(self, table: pa.Table) -> pa.Table:
        return through(table, stage="parse", to=schema.PARSED, work=self._work, drops=HEAVY)

    def _work(self, rows: list[Row]) -> list[Row | ClipError]:
        return [self._parsed(row) for row in rows]

    def _parsed(self, row: Row) -> Row | ClipError:
        answer = next(Answer(**a) for a in reversed(row["answers"]) if a["step"] == self._step)
        try:
            return asdict(parse.explanation(answer))
        except ClipError as error:
            return error

    def close(self) -> None:
        """Nothing to release."""


class Write:
    """The end of a shard: its parts are stored, receipts go on to the driver."""

    def __init__(self, *, run: str, provenance: Provenance) -> None:
        self._run = run
        self._provenance = asdict(provenance)

    def __call__(self, table: pa.Table) -> pa.Table:
        receipts = []
        for shard in dict.fromkeys(table["shard"].to_pylist()):
            rows = table.filter(pc.equal(table["shard"], shard)).to_pylist()
            if len(rows) != rows[0]["shard_clips"]:
                raise AssertionError(
                    f"shard {shard}: {len(rows)} of {rows[0]['shard_clips']} clips reached the "
                    f"writer; raise output.block_mb or lower output.shard_clips"
                )
            ok = [self._explanation(row) for row in rows if row["kind"] is None]
            failed = [self._failure(row) for row in rows if row["kind"] is not None]
            receipts += parts.write(
                self._run,
                shard,
                self._provenance["fingerprint"],
                schema.table(ok, schema.EXPLANATIONS),
                schema.table(failed, schema.FAILURES),
            )
        return schema.table([asdict(receipt) for receipt in receipts], schema.INDEX)

    def _explanation(self, row: Row) -> Row:
        known = {name: row[name] for name in schema.EXPLANATIONS.names if name != "provenance"}
        return {**known, "provenance": self._provenance}

    def _failure(self, row: Row) -> Row:
        known = {name: row[name] for name in schema.FAILURES.names if name != "fingerprint"}
        return {**known, "fingerprint": self._provenance["fingerprint"]}

    def close(self) -> None:
        """Nothing to release."""


def make_encoder(model: ModelConfig) -> Encoder:
    """Choose what prepares clips for a model."""
    match model.backend:
        case "embedded":
            from emer_ray.perceive import Perceiver

            return Perceiver(
                weights=weights.locate("embedded"), missing=weights.missing("embedded")
            )
        case "fake":
            return Passthrough()


def make_reasoner(
    model: ModelConfig, baselines: Mapping[str, tuple[float, float, int]]
) -> Reasoner:
    """Choose what answers."""
    match model.backend:
        case "embedded":
            from emer_ray.reason.embedded import EmbeddedReasoner

            return EmbeddedReasoner(**_embedded_weights(model), baselines=baselines)
        case "fake":
            from emer_ray.reason.fake import FakeOptions, FakeReasoner

            return FakeReasoner(FakeOptions.of(model.options))


def _embedded_weights(model: ModelConfig) -> dict[str, Any]:
    """Locate the weights on this node; refuses to give other results than the driver would."""
    found = weights.revision("embedded")
    if model.revision not in (None, found):
        raise ModelError(
            f"embedded weights on {socket.gethostname()} are {found}, the run was started with "
            f"{model.revision}; run `emer models fetch embedded` on every node, or share them with "
            f"`emer models push embedded s3://…` and EMER_MODELS"
        )
    return {"weights": weights.locate("embedded"), "missing": weights.missing("embedded")}


def _clip(row: Row) -> Clip:
    crop = row["crop"]
    return Clip(
        clip_id=row["clip_id"],
        video_uri=row["video_uri"],
        audio_uri=row["audio_uri"],
        start_s=row["start_s"],
        end_s=row["end_s"],
        crop=tuple(crop) if crop is not None else None,
        fps=row["fps"],
        subtitle_zh=row["subtitle_zh"],
        subtitle_en=row["subtitle_en"],
        licence_tag=row["licence_tag"],
    )


def _decoded_row(decoded: DecodedClip) -> Row:
    return {
        "frames": decoded.frames,
        "frame_shape": None if decoded.frames is None else list(decoded.frames.shape),
        "frame_times_s": list(decoded.frame_times_s),
        "pcm": decoded.pcm,
        "media": asdict(decoded.media),
    }


def _decoded_clip(row: Row) -> DecodedClip:
    return DecodedClip(
        clip=_clip(row),
        frames=_frames(row),
        frame_times_s=tuple(row["frame_times_s"]),
        pcm=_pcm(row),
        media=MediaFacts(**row["media"]),
    )


def _clues_row(clues: Clues) -> Row:
    return {
        "measures": [asdict(measure) for measure in clues.measures],
        "n_faces": clues.n_faces,
        "main_face": clues.main_face,
        "subtitle": clues.subtitle,
        "subtitle_source": clues.subtitle_source,
        "notes": list(clues.notes),
    }


def _clues(row: Row) -> Clues:
    return Clues(
        clip_id=row["clip_id"],
        measures=tuple(Measure(**measure) for measure in row["measures"]),
        n_faces=row["n_faces"],
        main_face=row["main_face"],
        subtitle=row["subtitle"],
        subtitle_source=row["subtitle_source"],
        notes=tuple(row["notes"]),
        has_video=row["media"]["has_video"],
        has_audio=row["media"]["has_audio"],
        frames=_frames(row),
        frame_times_s=tuple(row["frame_times_s"]),
        pcm=_pcm(row),
    )


def _frames(row: Row) -> Frames | None:
    """View the frames of a row without a copy; read-only."""
    if row["frames"] is None:
        return None
    return np.frombuffer(row["frames"], np.uint8).reshape(row["frame_shape"])


def _pcm(row: Row) -> Pcm | None:
    return None if row["pcm"] is None else np.frombuffer(row["pcm"], np.float32)
