"""The arrows of the data flow as classes that map a table to a table, row-preserving.

A stage takes settings, loads what it needs, and is called with one shard's Arrow table; calling it
by hand is the same call that Ray Data makes. Failures are the business of `containment`. A stage
knows nothing of actors or of Ray.
"""

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from emer_ray import checkpoint, meter, parse, prompts, schema, weights
from emer_ray.config import Fault, MediaConfig, ModelConfig, digest
from emer_ray.containment import HEAVY, Guard, Row, Work, rows_of, through
from emer_ray.encode import Encoder, Passthrough
from emer_ray.errors import ClipError, ModelError
from emer_ray.media import Decoder
from emer_ray.metrics import lexicon
from emer_ray.metrics.wheels import MAPPINGS
from emer_ray.reason import Reasoner, Seat
from emer_ray.records import (
    NOTHING,
    Answer,
    Clip,
    Clues,
    DecodedClip,
    Frames,
    Measure,
    MediaFacts,
    Modality,
    Pcm,
    Provenance,
    Reply,
    Request,
    Tensor,
    flat,
)
from emer_ray.store import drain, embeddings, parts

if TYPE_CHECKING:
    from emer_ray.encode.transformers import Towers

NO_GUARD: Final = Guard()


class Stage(Protocol):
    """A table in, a table out, the same rows in the same order."""

    def __call__(self, table: pa.Table) -> pa.Table: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """What is taken over from another run (`input.answers`) instead of being computed again."""

    run: str | None = None
    steps: frozenset[str] = frozenset()
    """Steps that are asked there exactly as here, of the same inputs."""
    facts: bool = False
    """Every step that looks or listens is among them, so that media need not be decoded."""
    towers: tuple[str, ...] = ()
    """Hashes of this run's towers whose embeddings are kept there."""
    embedded: bool = False
    """Every step that looks or listens asks a model with such towers: media whose embeddings are
    kept need not be decoded."""
    own: bool = False
    """The embeddings are this run's, kept by its first plan (`output.phases = 2`), and so are the
    failures of its towers."""


NOTHING_EARLIER: Final = Earlier()

MEDIA_FACTS: Final = ("media", "frame_times_s")
ENCODED_FACTS: Final = (
    *("measures", "n_faces", "main_face", "subtitle", "subtitle_source", "notes"),
)


class Rows:
    """Rows of another run, read part by part as clips ask for them."""

    def __init__(self, earlier: Earlier) -> None:
        self._earlier = earlier
        self._part: tuple[str, dict[str, Row]] = ("", {})
        self._kept: dict[tuple[str, bool], tuple[int, dict[str, Row]]] = {}

    def media(self, row: Row) -> Row | None:
        """Give what is known of the clip's media, where nobody need decode them again."""
        if (found := self.facts(row)) is not None:
            return found
        if not self._earlier.embedded:
            return None
        kept = [self._kept_row(row, towers, light=True) for towers in self._earlier.towers]
        return kept[0] if all(kept) else None

    def embeddings(self, row: Row, towers: str) -> Row | None:
        """Give what these towers made of the clip's media, where it is kept."""
        if towers not in self._earlier.towers:
            return None
        return self._kept_row(row, towers, light=False)

    def _kept_row(self, row: Row, towers: str, *, light: bool) -> Row | None:
        run, shard = self._earlier.run, row["earlier_shard"]
        if run is None or shard is None:
            return None
        held = self._kept.get((towers, light))
        if held is None or held[0] != shard:
            held = (shard, embeddings.read(run, towers, shard, light=light))
            self._kept[towers, light] = held
        found = held[1].get(row["clip_id"])
        return None if found is None or (light and found["pooled"] is None) else found

    def failures(self, table: pa.Table, towers: str, step: str) -> pa.Table:
        """Mark the clips that failed in this step in the first plan of the same run."""
        run = self._earlier.run
        if not self._earlier.own or run is None or not table.num_rows:
            return table
        kept = embeddings.read(run, towers, table["shard"][0].as_py(), light=True)
        return failed_before(table, kept, step)

    def facts(self, row: Row) -> Row | None:
        """Give the clip's earlier row, where its media need not be looked at again."""
        if not self._earlier.facts:
            return None
        found = self._row(row)
        if found is None:
            return None
        # notes on steps are that run's; this one writes its own
        notes = [note for note in found["notes"] or () if not note.startswith("step ")]
        return {**found, "frame_times_s": [], "notes": notes}

    def answers(self, row: Row, step: str) -> list[Row]:
        """Give a step's earlier answers; they cost nothing now."""
        found = self._row(row) if step in self._earlier.steps else None
        mine = [answer for answer in (found or {}).get("answers") or () if answer["step"] == step]
        return [{**answer, "usd": 0.0 if answer["usd"] is not None else None} for answer in mine]

    def _row(self, row: Row) -> Row | None:
        part = row["earlier_part"]
        if self._earlier.run is None or part is None:
            return None
        name, rows = self._part  # read once: shards may be at work side by side
        if name != part or row["clip_id"] not in rows:
            listed = parts.around(self._earlier.run, part, row["clip_id"], REUSED).to_pylist()
            rows = {found["clip_id"]: found for found in listed}
            self._part = (part, rows)
        return rows.get(row["clip_id"])


def failed_before(table: pa.Table, kept: Mapping[str, Row], step: str) -> pa.Table:
    """Mark the clips that failed in a step as their kept rows say; other failures stay."""
    for name in ("kind", "message", "worker", "stage"):
        values = table[name].to_pylist()
        for number, clip_id in enumerate(table["clip_id"].to_pylist()):
            if kept[clip_id]["stage"] == step:
                values[number] = kept[clip_id][name]
        at = table.column_names.index(name)
        table = table.set_column(at, table.schema.field(name), pa.array(values, pa.string()))
    return table


REUSED: Final = ("clip_id", "answers", "media", *ENCODED_FACTS)


def unless_known(
    rows: list[Row],
    known: Callable[[Row], Row | None],
    columns: Collection[str],
    work: Work,
) -> list[Row | ClipError]:
    """Take the columns of the rows that are known; hand the others to `work`."""
    found = [known(row) for row in rows]
    unknown = [row for row, earlier in zip(rows, found, strict=True) if earlier is None]
    answers = iter(work(unknown) if unknown else ())
    return [
        next(answers) if earlier is None else {name: earlier[name] for name in columns}
        for earlier in found
    ]


class Decode:
    """Frames and sound of each clip, decoded in a child process."""

    def __init__(
        self,
        *,
        media: MediaConfig,
        run: str | None,
        faults: Mapping[str, Fault],
        drops: Collection[str],
        earlier: Earlier = NOTHING_EARLIER,
    ) -> None:
        self._decoder = Decoder(media, faults=faults)
        self._run = run
        self._drops = drops
        self._earlier = Rows(earlier)

    def __call__(self, table: pa.Table) -> pa.Table:
        if self._run is not None and drain.requested(self._run):
            table = table.slice(0, 0)  # a shard that leaves no rows is as if it had never begun
        return through(table, stage="decode", to=schema.DECODED, work=self._work, drops=self._drops)

    def _work(self, rows: list[Row]) -> list[Row | ClipError]:
        return unless_known(rows, self._earlier.media, MEDIA_FACTS, self._decode)

    def _decode(self, rows: list[Row]) -> list[Row | ClipError]:
        decoded = self._decoder([clip_of(row) for row in rows])
        return [item if isinstance(item, ClipError) else _decoded_row(item) for item in decoded]

    def close(self) -> None:
        self._decoder.close()


class Encode:
    """What a reasoner works on: measures and words, or frames and sound as they are."""

    def __init__(
        self,
        *,
        model: ModelConfig,
        language: prompts.Language = "en",
        guard: Guard,
        drops: Collection[str],
        earlier: Earlier = NOTHING_EARLIER,
    ) -> None:
        self._encoder = make_encoder(model, language)
        self._guard = guard
        self._drops = drops
        self._earlier = Rows(earlier)

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
        return unless_known(rows, self._earlier.facts, ENCODED_FACTS, self._encode)

    def _encode(self, rows: list[Row]) -> list[Row | ClipError]:
        encoded = self._encoder.encode([_decoded_clip(row) for row in rows])
        return [item if isinstance(item, ClipError) else _clues_row(item) for item in encoded]

    def close(self) -> None:
        self._encoder.close()


class Embed:
    """What the towers of a split model make of frames and sound."""

    def __init__(
        self,
        *,
        step: str,
        model: ModelConfig,
        modalities: Collection[Modality],
        asked: Collection[str],
        towers_hash: str,
        keep_in: str | None,
        guard: Guard,
        drops: Collection[str],
        earlier: Earlier = NOTHING_EARLIER,
    ) -> None:
        """`asked` are the steps that look through these towers; `keep_in` is a run directory."""
        self._step = step
        self._model = model
        self._modalities = modalities
        self._asked = asked
        self._hash = towers_hash
        self._keep_in = keep_in
        self._guard = guard
        self._drops = drops
        self._earlier = Rows(earlier)
        self._towers: Towers | None = None
        if earlier.run is None:
            self._loaded()

    def _loaded(self) -> "Towers":
        """Load the towers; where embeddings are taken over, only when a clip has none."""
        if self._towers is None:
            from emer_ray.encode.transformers import Towers

            options = checkpoint.TransformersOptions.of(self._model)
            path = checkpoint.local_folder(self._model, weights.cache_dir())
            self._towers = Towers(path=path, options=options, modalities=self._modalities)
        return self._towers

    def __call__(self, table: pa.Table) -> pa.Table:
        table = self._earlier.failures(table, self._hash, self._step)
        table = through(
            table,
            stage=self._step,
            to=table.schema,
            work=self._work,
            drops=self._drops,
            guard=self._guard,
        )
        if self._keep_in is not None:
            with meter.working(self._step):
                self._keep(self._keep_in, table)
        return table

    def _keep(self, run: str, table: pa.Table) -> None:
        if table.num_rows:
            shard = table["shard"][0].as_py()
            embeddings.write(run, self._hash, shard, rows_of(table.select(embeddings.COLUMNS)))

    def _work(self, rows: list[Row]) -> list[Row | ClipError]:
        return unless_known(rows, self._known, ("embeddings", "tensors"), self._embed)

    def _known(self, row: Row) -> Row | None:
        if all(self._earlier.answers(row, step) for step in self._asked):
            return {"embeddings": None, "tensors": None}  # nobody will look
        return self._earlier.embeddings(row, self._hash)

    def _embed(self, rows: list[Row]) -> list[Row | ClipError]:
        found = self._loaded().embed([_decoded_clip(row) for row in rows])
        return [item if isinstance(item, ClipError) else _tensor_row(item) for item in found]

    def close(self) -> None:
        if self._towers is not None:
            self._towers.close()


_LOADING: Final = threading.Lock()
"""Shards side by side must not load a model each."""


class Reason:
    """One step of the recipe: a model answers, and its raw answers are kept."""

    def __init__(
        self,
        *,
        question: prompts.Question,
        reads: Sequence[parse.Asked],
        samples: int,
        model: ModelConfig,
        guard: Guard,
        drops: Collection[str],
        seat: Seat = Seat(),  # noqa: B008 - frozen
        earlier: Earlier = NOTHING_EARLIER,
        shared: dict[str, Reasoner] | None = None,
    ) -> None:
        self._question = question
        self._reads = reads
        self._samples = samples
        self._model = model
        self._guard = guard
        self._drops = drops
        self._earlier = Rows(earlier)
        self._seat = seat
        self._models = {} if shared is None else shared
        self._key = digest(model.model_dump(mode="json"))
        if question.step not in earlier.steps:
            self._reasoner()

    def _reasoner(self) -> Reasoner:
        """Load the model, or take the one that a neighbouring step has loaded in this actor.

        Where answers are taken over, only when a clip has none.
        """
        with _LOADING:
            if self._key not in self._models:
                self._models[self._key] = make_reasoner(self._model, self._seat)
            return self._models[self._key]

    def __call__(self, table: pa.Table) -> pa.Table:
        return through(
            table,
            stage=self._question.step,
            to=schema.REASONED,
            work=self._work,
            drops=self._drops,
            guard=self._guard,
        )

    def _work(self, rows: list[Row]) -> list[Row | ClipError]:
        asked = [self._requests(row) for row in rows]
        requests = [request for item in asked if isinstance(item, Ask) for request in item.requests]
        started = time.perf_counter()
        replies = self._reasoner().explain(requests) if requests else []
        if len(replies) != len(requests):
            raise AssertionError(f"{len(requests)} requests, {len(replies)} replies")
        each_s = (time.perf_counter() - started) / max(1, len(requests))
        _count_spending(replies)
        given = iter(replies)
        return [
            self._answered(row, item, [next(given) for _ in item.requests], each_s)
            if isinstance(item, Ask)
            else item
            for row, item in zip(rows, asked, strict=True)
        ]

    def _requests(self, row: Row) -> "Ask | Row | ClipError":
        """Put the question to a row; a row that needs no model is answered at once."""
        answers = row.get("answers") or []
        if known := self._earlier.answers(row, self._question.step):
            return {"answers": [*answers, *known]}
        try:
            earlier = {read.step: _said(answers, read) for read in self._reads}
        except ClipError as error:
            return error
        clues = _clues(row)
        if not any(earlier.values()) and not _perceivable(clues, self._question.modalities):
            note = f"step {self._question.step} was not asked: the clip has nothing that it reads"
            return {"answers": answers, "notes": [*row["notes"], note]}
        rendered = [
            prompts.render(
                self._question,
                clues,
                earlier,
                sample=sample,
                seed=_seed(self._model.seed, row["clip_id"], self._question.step, sample),
                licence_tag=row["licence_tag"],
            )
            for sample in range(self._samples)
        ]
        return Ask(requests=[request for request, _ in rendered], shortened=rendered[0][1])

    def _answered(
        self, row: Row, ask: "Ask", replies: Sequence[Reply | ClipError], each_s: float
    ) -> Row | ClipError:
        """Keep the answers; a clip fails where no sample was answered.

        Who has nothing to say leaves no answer, as a step that was not asked.
        """
        given = [
            flat(
                Answer(
                    step=self._question.step,
                    sample=request.sample,
                    raw=reply.raw,
                    finish=reply.finish,
                    tokens_in=reply.tokens_in,
                    tokens_out=reply.tokens_out,
                    latency_s=reply.latency_s if reply.latency_s is not None else each_s,
                    usd=reply.usd,
                )
            )
            for request, reply in zip(ask.requests, replies, strict=True)
            if not isinstance(reply, ClipError) and reply.finish != NOTHING
        ]
        notes = list(row["notes"])
        notes += [
            f"step {self._question.step}: shortened to fit max_text_tokens: {name}"
            for name in ask.shortened
        ]
        notes += [
            f"step {self._question.step}: {note}"
            for reply in replies
            if not isinstance(reply, ClipError)
            for note in reply.notes
        ]
        lost = [reply for reply in replies if isinstance(reply, ClipError)]
        if not given and lost:
            return lost[0]
        notes += [f"step {self._question.step}: a sample failed as {e.kind}: {e}" for e in lost]
        return {"answers": [*(row.get("answers") or ()), *given], "notes": notes}

    def close(self) -> None:
        if self._key in self._models:
            self._models[self._key].close()


def _count_spending(replies: Sequence[Reply | ClipError]) -> None:
    given = [reply for reply in replies if isinstance(reply, Reply)]
    meter.add("tokens", "in", sum(reply.tokens_in or 0 for reply in given))
    meter.add("tokens", "out", sum(reply.tokens_out or 0 for reply in given))
    meter.add("usd", "answers", sum(reply.usd or 0.0 for reply in given))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """The requests of one row, one per sample."""

    requests: list[Request]
    shortened: tuple[str, ...]


def _said(answers: Sequence[Row], read: parse.Asked) -> str:
    """Say in words what a step answered; empty where it was not asked of this clip."""
    mine = [Answer(**answer) for answer in answers if answer["step"] == read.step]
    return parse.draw(mine, read.form, read.choices).kept.text if mine else ""


def _perceivable(clues: Clues, modalities: Collection[str]) -> bool:
    there = {"video": clues.has_video, "audio": clues.has_audio, "text": bool(clues.subtitle)}
    return any(there[modality] for modality in modalities)


def _seed(seed: int, clip_id: str, step: str, sample: int) -> int:
    """Derive the seed of one request, so that order and retries do not change its answer."""
    named = f"{seed}:{clip_id}:{step}:{sample}".encode()
    return int.from_bytes(hashlib.sha256(named).digest()[:4], "big") >> 1  # servers want 31 bits


FAMILY: Final = MAPPINGS.index("wheel.W2.L2")
"""Kin for the support of labels: the second level of our second wheel (docs/metrics.md)."""


def family(word: str) -> str | None:
    """Name the family of an emotion word; null where the wheel does not know it."""
    found = lexicon.default().images.get(word.lower().strip())
    return found[FAMILY] if found else None


class Parse:
    """The explanation, composed from the answers of the recipe's steps."""

    def __init__(self, *, asked: Sequence[parse.Asked], guard: Guard = NO_GUARD) -> None:
        self._asked = asked
        self._guard = guard

    def __call__(self, table: pa.Table) -> pa.Table:
        return through(
            table,
            stage="parse",
            to=schema.PARSED,
            work=self._work,
            drops=HEAVY,
            guard=self._guard,
        )

    def _work(self, rows: list[Row]) -> list[Row | ClipError]:
        return [parsed(row, self._asked) for row in rows]

    def close(self) -> None:
        """Nothing to release."""


def parsed(row: Row, asked: Sequence[parse.Asked]) -> Row | ClipError:
    """Read a row's answers; returns the columns that they fill."""
    answers = [Answer(**answer) for answer in row["answers"] or ()]
    try:
        explanation, notes = parse.compose(asked, answers, family)
    except ClipError as error:
        return error
    return {**asdict(explanation), "notes": [*(row["notes"] or ()), *notes]}


class Write:
    """The end of a shard: its parts are stored, receipts go on to the driver."""

    def __init__(self, *, run: str, provenance: Provenance, guard: Guard = NO_GUARD) -> None:
        self._run = run
        self._provenance = asdict(provenance)
        self._guard = guard

    def __call__(self, table: pa.Table) -> pa.Table:
        if not len(table):  # drained
            return schema.INDEX.empty_table()
        shard, size = table["shard"][0].as_py(), table["shard_clips"][0].as_py()
        if len(table) != size:
            raise AssertionError(
                f"shard {shard}: {len(table)} of {size} clips reached the writer; raise "
                f"output.block_mb or lower output.shard_clips"
            )
        explanations: list[pa.Table] = []

        def work(rows: list[Row]) -> list[Row | ClipError]:
            """Do what storing does: a row that cannot be stored fails, its neighbours do not.

            The put comes after, outside of this boundary: storage that fails is no clip's fault.
            """
            ok = schema.table(map(self._explanation, rows), schema.EXPLANATIONS)
            explanations.append(ok)
            return [{} for _ in rows]

        table = through(table, stage="write", to=schema.PARSED, work=work, guard=self._guard)
        failed = table.filter(pc.is_valid(table["kind"])).to_pylist()
        with meter.working("write"):
            receipts = parts.write(
                self._run,
                shard,
                self._provenance["fingerprint"],
                pa.concat_tables([schema.EXPLANATIONS.empty_table(), *explanations]),
                schema.table(map(self._failure, failed), schema.FAILURES),
            )
        return schema.table([flat(receipt) for receipt in receipts], schema.INDEX)

    def _explanation(self, row: Row) -> Row:
        own = {"provenance": self._provenance, "usd": _usd(row)}
        return {name: row[name] for name in schema.EXPLANATIONS.names if name not in own} | own

    def _failure(self, row: Row) -> Row:
        own = {"fingerprint": self._provenance["fingerprint"], "usd": _usd(row)}
        return {name: row[name] for name in schema.FAILURES.names if name not in own} | own

    def close(self) -> None:
        """Nothing to release."""


def _usd(row: Row) -> float | None:
    prices = [a["usd"] for a in row["answers"] or () if a["usd"] is not None]
    return sum(prices) if prices else None


def make_encoder(model: ModelConfig, language: prompts.Language) -> Encoder:
    """Choose what prepares clips for a model."""
    match model.backend:
        case "embedded":
            from emer_ray.perceive import Perceiver

            return Perceiver(
                weights=weights.locate("embedded"), missing=weights.missing("embedded")
            )
        case "fake" | "openai" | "replay" | "transformers" | "vllm":
            return Passthrough(language)


def make_reasoner(model: ModelConfig, seat: Seat) -> Reasoner:
    """Choose what answers."""
    match model.backend:
        case "embedded":
            from emer_ray.reason.embedded import EmbeddedReasoner

            return EmbeddedReasoner(**_embedded_weights(model), baselines=seat.baselines)
        case "fake":
            from emer_ray.reason.fake import FakeOptions, FakeReasoner

            return FakeReasoner(FakeOptions.of(model.options))
        case "openai":
            from emer_ray.reason.openai import OpenAIReasoner

            return OpenAIReasoner(model, seat)
        case "replay":
            from emer_ray.reason.replay import ReplayReasoner

            return ReplayReasoner(model)
        case "transformers":
            from emer_ray.reason.transformers import TransformersReasoner

            options = checkpoint.TransformersOptions.of(model)
            path = checkpoint.local_folder(model, weights.cache_dir())
            return TransformersReasoner(path=path, model=model, options=options)
        case "vllm":
            from emer_ray.reason.vllm import VllmReasoner

            path = checkpoint.local_folder(model, weights.cache_dir())
            engine = checkpoint.VllmOptions.of(model)
            return VllmReasoner(path=path, model=model, options=engine)


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


def clip_of(row: Row) -> Clip:
    """Read a row as the clip that it is."""
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
        "media": flat(decoded.media),
    }


def _decoded_clip(row: Row) -> DecodedClip:
    return DecodedClip(
        clip=clip_of(row),
        frames=_frames(row),
        frame_times_s=tuple(row["frame_times_s"]),
        pcm=_pcm(row),
        media=MediaFacts(**row["media"]),
    )


def _clues_row(clues: Clues) -> Row:
    return {
        "measures": [flat(measure) for measure in clues.measures],
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
        tensors=_tensors(row),
    )


def _tensor_row(tensors: Sequence[Tensor]) -> Row:
    return {
        "embeddings": b"".join(tensor.data for tensor in tensors),
        "tensors": [
            {
                "name": tensor.name,
                "dtype": tensor.dtype,
                "shape": list(tensor.shape),
                "n_bytes": len(tensor.data),
            }
            for tensor in tensors
        ],
    }


def _tensors(row: Row) -> tuple[Tensor, ...]:
    """View the tensors of a row without a copy."""
    if row["embeddings"] is None:
        return ()
    whole, found, at = memoryview(row["embeddings"]), [], 0
    for about in row["tensors"]:
        end = at + about["n_bytes"]
        shape = tuple(about["shape"])
        found.append(
            Tensor(name=about["name"], dtype=about["dtype"], shape=shape, data=whole[at:end])
        )
        at = end
    return tuple(found)


def _frames(row: Row) -> Frames | None:
    """View the frames of a row without a copy; read-only."""
    if row["frames"] is None:
        return None
    return np.frombuffer(row["frames"], np.uint8).reshape(row["frame_shape"])


def _pcm(row: Row) -> Pcm | None:
    return None if row["pcm"] is None else np.frombuffer(row["pcm"], np.float32)
