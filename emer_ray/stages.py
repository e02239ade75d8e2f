"""The arrows of the data flow as classes that map a table to a table, row-preserving.

A stage takes settings, loads what it needs, and is called with one shard's Arrow table; calling it
by hand is the same call that Ray Data makes. Failures are the business of `containment`. A stage
knows nothing of actors or of Ray.
"""

import socket
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from emer_ray import parse, schema, weights
from emer_ray.config import Fault, MediaConfig, ModelConfig
from emer_ray.containment import HEAVY, Guard, Row, through
from emer_ray.encode import Encoder, Passthrough
from emer_ray.errors import ClipError, ModelError
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
from emer_ray.store import drain, parts


class Stage(Protocol):
    """A table in, a table out, the same rows in the same order."""

    def __call__(self, table: pa.Table) -> pa.Table: ...

    def close(self) -> None: ...


class Decode:
    """Frames and sound of each clip, decoded in a child process."""

    def __init__(
        self,
        *,
        media: MediaConfig,
        run: str | None,
        faults: Mapping[str, Fault],
        drops: Collection[str],
    ) -> None:
        self._decoder = Decoder(media, faults=faults)
        self._run = run
        self._drops = drops

    def __call__(self, table: pa.Table) -> pa.Table:
        if self._run is not None and drain.requested(self._run):
            table = table.slice(0, 0)  # a shard that leaves no rows is as if it had never begun
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
