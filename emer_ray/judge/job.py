"""Asking a judge as a Ray Data job: a pool of actors with the chosen backend, answers kept as they
come.

`settle` asks everything that a piece of work wants to know, round by round: a question may follow
from an answer (two statements, then how far they agree). What is known is not asked, what it costs
is predicted first, and a stop loses no more than the answers of the last seconds. An answer that
cannot be read is asked for once more. A question that fails is counted and left without an answer.
"""

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import pyarrow as pa

from emer_ray import parse, pipeline, runner, schema, storage
from emer_ray.config import JudgeConfig, JudgedScore, ModelConfig
from emer_ray.containment import Guard, Row, through
from emer_ray.errors import BudgetError, ClipError, ConfigError
from emer_ray.judge import questions
from emer_ray.judge.answers import Answers, Estimate, Rehearsal, write_part
from emer_ray.judge.questions import Known, Manner, Question
from emer_ray.prompts import Language
from emer_ray.reason import Seat
from emer_ray.records import Answer, Clues, Part, Reply, Request
from emer_ray.stages import make_reasoner

log = logging.getLogger(__name__)

SHARD_QUESTIONS: Final = 64
"""Questions that an actor works on at a time, at most: what its death costs."""
KEEP_S: Final = 10.0
"""Answers are kept at least so often."""
ALIKE: Final = 50
"""A job whose first questions all fail alike, this many, is stopped: the fault is not in them."""

NEEDS: Final[Mapping[JudgedScore, str]] = {
    "clue": "explanation",
    "label": "explanation",
    "set": "openset",
    "sentence": "explanation",
    "groups": "openset",
    "preference": "explanation",
}
"""The column that each score is given on."""

Work = Callable[[Known], None]
"""Puts all its questions to what it is given, and may look at the answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a round of questions is, for whoever shows it."""

    clips: int
    """Questions of this round."""
    ok: int
    failed: int
    usd: float
    seconds: float

    def line(self) -> str:
        """Say it in one line."""
        done = self.ok + self.failed
        rate = done / max(1e-9, self.seconds)
        left = f", about {(self.clips - done) / rate:.0f} s left" if done else ""
        usd = f", {self.usd:.4f} USD" if self.usd else ""
        return (
            f"judge: {done} of {self.clips} questions, {self.failed} failed; "
            f"{rate:.2f}/s{left}{usd}"
        )


class JudgeStage:
    """A model that answers questions about texts: a table in, the same rows with answers out."""

    def __init__(
        self, *, model: ModelConfig, language: Language, folder: str, seat: Seat, guard: Guard
    ) -> None:
        self._model = model
        self._language = language
        self._folder = folder
        """Where answers go that are paid for when the money runs out."""
        self._reasoner = make_reasoner(model, seat)
        self._guard = guard

    def __call__(self, table: pa.Table) -> pa.Table:
        return through(
            table,
            stage="judge",
            to=schema.JUDGED,
            work=self._work,
            drops=("system", "data"),
            guard=self._guard,
        )

    def _work(self, rows: list[Row]) -> list[Row | ClipError]:
        asked = [_question(row) for row in rows]
        replies: dict[int, list[Any]] = {place: [] for place in range(len(rows))}
        try:
            self._explain(rows, asked, replies)
            unread = {
                place: given
                for place, given in replies.items()
                if isinstance(given[0], Reply)
                and questions.read(asked[place], said(given[0].raw)) is None
            }
            self._explain(rows, [each.again(self._language) for each in asked], unread)
        except BudgetError:
            self._save(rows, asked, replies)
            raise
        return [_row_of(given) for given in replies.values()]

    def _explain(
        self, rows: Sequence[Row], asked: Sequence[Question], wanted: Mapping[int, list[Any]]
    ) -> None:
        """Ask the questions at the wanted places and add what is answered to their lists."""
        requests = [
            Request(
                step="judge",
                form="text",
                clues=Clues(clip_id=asked[place].name),
                system=asked[place].system,
                parts=(Part(kind="text", text=asked[place].material),),
                # a seed that follows from the question; servers want 31 bits
                seed=(self._model.seed + int(rows[place]["clip_id"][:8], 16)) >> 1,
                licence_tag=asked[place].licence_tag,
            )
            for place in wanted
        ]
        replies: Sequence[Any] = ()
        try:
            replies = self._reasoner.explain(requests) if requests else []
            if len(replies) != len(requests):
                raise AssertionError(f"{len(requests)} requests, {len(replies)} replies")
        except BudgetError as error:
            replies, error.replies = error.replies, ()
            raise
        finally:
            for given, reply in zip(wanted.values(), replies, strict=False):
                given.append(reply)

    def _save(
        self, rows: Sequence[Row], asked: Sequence[Question], replies: Mapping[int, list[Any]]
    ) -> None:
        """Keep what is paid for and can be read, or was asked for twice."""
        answered = [
            _kept({**rows[place], **_row_of(given)}, asked[place])
            for place, given in replies.items()
            if given
            and isinstance(given[0], Reply)
            and (len(given) > 1 or questions.read(asked[place], said(given[0].raw)) is not None)
        ]
        if answered:
            write_part(self._folder, answered)

    def close(self) -> None:
        """Release the model."""
        self._reasoner.close()


def _question(row: Row) -> Question:
    return Question(
        name=row["question"],
        kind=row["prompt"],
        system=row["system"],
        data=dict(row["data"]),
        licence_tag=row["licence_tag"],
    )


def _row_of(given: Sequence[Reply | ClipError | None]) -> Any:
    """The answers to one question as columns, or its failure."""
    if isinstance(given[0], ClipError):
        return given[0]
    replies = [reply for reply in given if isinstance(reply, Reply)]
    return {
        "answers": [
            asdict(
                Answer(
                    step="judge",
                    sample=sample,
                    raw=reply.raw,
                    finish=reply.finish,
                    tokens_in=reply.tokens_in,
                    tokens_out=reply.tokens_out,
                    latency_s=reply.latency_s,
                    usd=reply.usd,
                )
            )
            for sample, reply in enumerate(replies)
        ]
    }


def said(raw: str) -> str:
    """What an answer says once thinking is cut away."""
    return parse.unwrapped(raw)[1]


class Judge:
    """One model with its kept answers, for the length of a command."""

    def __init__(self, config: JudgeConfig, folder: str | None = None) -> None:
        """`folder` keeps the answers where the configuration names none."""
        self.config = config
        self._model = model = config.models.judge
        _refuse_unfit(config)
        kept = config.answers or folder
        if kept is None:
            raise ConfigError(
                "judge: its answers need a place, so that none is paid for twice; set "
                "answers = FOLDER in its TOML (emer evaluate --out DIR keeps them in DIR/judge)"
            )
        manner = Manner(language=config.language, max_text_tokens=model.max_text_tokens)
        self.answers = Answers(kept, pipeline.model_parts(model), manner)
        self.name = model.model.rstrip("/").rsplit("/", 1)[-1] or model.backend
        self.version = questions.version(self.name, config.language)
        self.asked = 0
        """Questions asked, in vain or not."""
        self.again = 0
        """Of them, asked twice."""
        self.usd = 0.0
        self.failures: Counter[str] = Counter()

    def scores(self, has: Collection[str], *, rival: bool) -> tuple[JudgedScore, ...]:
        """Choose what to ask for, of what the compared columns allow."""
        possible = tuple(
            score
            for score, column in NEEDS.items()
            if column in has and (rival or score != "preference")
        )
        for score in self.config.scores:
            if score not in possible and score != "preference":
                raise ConfigError(
                    f"judge: the score {score} needs the column {NEEDS[score]} on both sides; "
                    f"leave it out of scores, or name the column with --columns"
                )
        return tuple(s for s in possible if not self.config.scores or s in self.config.scores)

    def estimate(self, work: Work) -> Estimate:
        """Tell what it takes to ask everything that is not known; asks nothing."""
        rehearsal = Rehearsal(self.answers)
        work(rehearsal)
        return rehearsal.estimate(self._model.price, self._model.max_tokens)

    def settle(self, work: Work, on_progress: Callable[[Progress], None] = lambda _: None) -> None:
        """Ask what is not known until `work` wants nothing more.

        Raises BudgetError before the first question where the prediction passes `budget.usd`, and
        after kept answers where the bill does.
        """
        expected = self.estimate(work)
        if not expected.questions:
            return
        self._refuse_dear(expected)
        if self._model.backend == "openai":
            pipeline.openai_backend().OpenAIOptions.of(self._model).key()
        while True:
            work(self.answers)
            wanted = self.answers.take_wanted()
            if not wanted:
                return
            self._ask(wanted, on_progress)

    def _refuse_dear(self, expected: Estimate) -> None:
        budget = self.config.budget.usd
        if budget is None or expected.usd is None:
            return
        if self.usd + expected.usd > budget:
            raise BudgetError(
                f"judge: {expected.questions} questions are predicted to cost {expected.usd:.4f} "
                f"USD, budget.usd is {budget:g}; nothing was asked. Raise it, or ask for fewer "
                f"scores"
            )

    def _ask(self, wanted: Mapping[str, Question], on_progress: Callable[[Progress], None]) -> None:
        """Ask one round and keep the answers as they come."""
        started = kept_at = time.monotonic()
        rows: list[dict[str, Any]] = []
        ok, last = 0, ""
        ends: Counter[str] = Counter()
        try:
            for table in self._answered(wanted):
                for row in table.to_pylist():
                    if row["kind"] is None:
                        rows.append(_kept(row, wanted[row["clip_id"]]))
                        self.usd += sum(answer["usd"] or 0.0 for answer in row["answers"])
                        self.again += len(row["answers"]) - 1
                        ok += 1
                    else:
                        self.answers.failed[row["clip_id"]] = row["kind"]
                        self.failures[row["kind"]] += 1
                        ends[row["kind"]] += 1
                        log.info("%s: %s: %s", row["question"], row["kind"], row["message"])
                        last = row["message"]
                on_progress(
                    Progress(
                        clips=len(wanted),
                        ok=ok,
                        failed=ends.total(),
                        usd=self.usd,
                        seconds=time.monotonic() - started,
                    )
                )
                if time.monotonic() - kept_at > KEEP_S:
                    self.answers.keep(rows)
                    rows, kept_at = [], time.monotonic()
                if not ok and ends.total() >= ALIKE and len(ends) == 1:
                    raise BudgetError(
                        f"judge: the first {ends.total()} questions all failed as "
                        f"{next(iter(ends))!r}; stopped, because the fault is not in them: {last}"
                    )
        finally:
            self.asked += ok + ends.total()
            self.answers.keep(rows)

    def _answered(self, wanted: Mapping[str, Question]) -> Iterator[pa.Table]:
        cluster = runner.connect()
        runner.data_context()
        pool = self._pool(wanted, cluster)
        size = min(SHARD_QUESTIONS, -(-len(wanted) // pool.max_actors))
        keys = list(wanted)
        tables = [
            schema.table(
                [_row(key, wanted[key], shard) for key in keys[start : start + size]],
                schema.JUDGED,
            )
            for shard, start in enumerate(range(0, len(keys), size))
        ]
        yield from runner.run([pool], tables, in_flight=4 * pool.max_actors)

    def _pool(self, wanted: Mapping[str, Question], cluster: runner.Cluster) -> pipeline.Pool:
        want = self.config.pools.judge
        members = [self._step(wanted, Seat())]
        actors = pipeline.staffed("judge", members, want, cluster.gpus).max_actors
        budget = self.config.budget.usd
        usd = None if budget is None else max(0.0, budget - self.usd) / actors
        members = [self._step(wanted, Seat(actors=actors, usd=usd))]
        pool = pipeline.staffed("judge", members, want, cluster.gpus)
        pipeline.refuse_impossible([pool], cpus=cluster.cpus, gpus=cluster.gpus)
        return pool

    def _step(self, wanted: Mapping[str, Question], seat: Seat) -> pipeline.Step:
        want = self.config.pools.judge
        # the same questions find the claims of a driver that died; another job's are others
        name = hashlib.sha256("".join(sorted(wanted)).encode()).hexdigest()[:16]
        guard = Guard(
            run=storage.join(self.answers.folder, "jobs", name),
            deadline_s=want.deadline_s or 600.0,
            memory_mb=want.memory_mb,
            batch=want.batch,
        )
        return pipeline.Step(
            name="judge",
            stage=JudgeStage,
            settings={
                "model": self._model,
                "language": self.config.language,
                "folder": self.answers.own_folder,
                "seat": seat,
                "guard": guard,
            },
            pool="judge",
        )

    def facts(self, scores: Sequence[JudgedScore]) -> dict[str, Any]:
        """What the command's object says of the judge."""
        return {
            "version": self.version,
            "scores": list(scores),
            "asked": self.asked,
            "again": self.again,
            "failed": dict(self.failures),
            "usd": self.usd if self._model.price else None,
            "answers": self.answers.folder,
        }


def _refuse_unfit(config: JudgeConfig) -> None:
    model = config.models.judge
    if model.backend == "embedded":
        raise ConfigError(
            "models.judge.backend: the embedded baseline reads no prompt and cannot judge; take "
            "openai, vllm, transformers or replay"
        )
    pipeline.sees(model, "judge")
    if pipeline.is_split(model):
        raise ConfigError("models.judge.options.split: a judge reads texts only; leave it out")
    if config.budget.usd is not None and model.price is None:
        raise ConfigError(
            "budget.usd is set, but the judge has no price; add [models.judge.price] with "
            "input_usd and output_usd"
        )


def _row(key: str, question: Question, shard: int) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(schema.JUDGED.names)
    return row | {
        "clip_id": key,
        "shard": shard,
        "question": question.name,
        "prompt": question.kind,
        "system": question.system,
        "data": list(question.data.items()),
        "licence_tag": question.licence_tag,
    }


def _kept(row: Mapping[str, Any], question: Question) -> dict[str, Any]:
    """Make what is kept of an answer: the first that can be read says it."""
    names = ("raw", "finish", "tokens_in", "tokens_out", "usd")
    tries = [{name: answer[name] for name in names} for answer in row["answers"]]
    texts = [said(answer["raw"]) for answer in tries]
    readable = [text for text in texts if questions.read(question, text) is not None]
    return {
        "key": row["clip_id"],
        "question": row["question"],
        "said": (readable or texts)[0],
        "tries": tries,
    }
