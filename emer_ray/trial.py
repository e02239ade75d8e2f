"""A few tables through one actor of a pool, with the clock in hand: the canary of `emer plan`.

Beside `runner` the only module that imports Ray. Ray Data is not involved: what it adds, the
forecast states as constants.
"""

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pyarrow as pa
import ray

from emer_ray import containment
from emer_ray.clock import family_cpu_s, spending
from emer_ray.errors import EmerError
from emer_ray.pipeline import Chain, Pool, Step
from emer_ray.runner import mistake, packed, unpacked


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What one step cost on one table."""

    step: str
    wall_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What one actor of a pool did with some tables, one after the other."""

    load_s: float
    """From asking for the actor until its models are loaded."""
    load_cpu_s: float
    calls: list[list[Call]]
    """By table and step; the last of each is `TRAVEL`."""
    tables: list[pa.Table]


TRAVEL = "travel"
"""What a pool spends on a table besides its steps: taking it out of its block and packing it."""

TRIAL_S = 900.0
"""An actor that is not there by then waits for resources that others hold."""


def tried(pool: Pool, tables: Sequence[pa.Table]) -> Trial:
    """Run tables through one actor of a pool: those of one clip, which come first, one by one, the
    others as many at a time as the pool works on side by side.

    Raises EmerError when the actor does not start, or dies.
    """
    asked = time.perf_counter()
    actor: Any = (
        ray.remote(_Tried)
        .options(
            num_cpus=pool.cpus,
            num_gpus=pool.gpus or None,
            memory=pool.memory_mb * 2**20 if pool.memory_mb else None,
            max_concurrency=pool.shards,
        )
        .remote()
    )
    try:
        loading = actor.load.remote(pool.steps, pool.shards)
        load_cpu_s = ray.get(loading, timeout=TRIAL_S)
        load_s = time.perf_counter() - asked
        blocks = [packed(number, table) for number, table in enumerate(tables)]
        singles = len(list(itertools.takewhile(lambda table: len(table) < 2, tables)))
        found = [one for block in blocks[:singles] for one in _worked(actor, [block])]
        found += _worked(actor, blocks[singles:])
        ray.get(actor.close.remote())
    except ray.exceptions.RayTaskError as error:
        raise mistake(error) from None
    except ray.exceptions.GetTimeoutError:
        raise EmerError(
            f"pool {pool.name}: no actor of {pool.cpus:g} CPUs and {pool.gpus:g} GPUs started in "
            f"{TRIAL_S:g} s; the cluster is busy or has no node of that size"
        ) from None
    except ray.exceptions.RayActorError as error:
        raise EmerError(
            f"pool {pool.name}: the process of the canary died ({str(error).splitlines()[-1]}); a "
            f"run would try again clip by clip and name the clip: `emer relabel` with a small "
            f"input.limit shows it"
        ) from None
    finally:
        ray.kill(actor)
    return Trial(
        load_s=load_s,
        load_cpu_s=load_cpu_s,
        calls=[calls for _, calls in found],
        tables=[unpacked(block)[1] for block, _ in found],
    )


def _worked(actor: Any, blocks: Sequence[pa.Table]) -> list[tuple[pa.Table, list[Call]]]:
    """Have blocks worked on at the same time; what that saves is shared among their calls."""
    started = time.perf_counter()
    found = ray.get([actor.work.remote(block) for block in blocks])
    together_s = time.perf_counter() - started
    alone_s = sum(call.wall_s for _, calls in found for call in calls)
    share = min(1.0, together_s / alone_s) if alone_s else 1.0
    return [
        (
            block,
            [replace(call, wall_s=call.wall_s * share, cpu_s=call.cpu_s * share) for call in calls],
        )
        for block, calls in found
    ]


class _Tried:
    """The one actor of a trial."""

    def load(self, members: Sequence[Step], shards: int) -> float:
        containment.side_by_side(shards)
        self._chain = Chain(members)
        return family_cpu_s()

    def work(self, block: pa.Table) -> tuple[pa.Table, list[Call]]:
        calls = []
        with spending() as whole:
            shard, table = unpacked(block)[:2]
            for step, stage in self._chain.stages.items():
                with spending() as spent:
                    table = stage(table)
                calls.append(Call(step=step, wall_s=spent.wall_s, cpu_s=spent.cpu_s))
            block = packed(shard, table)
        travel = Call(
            step=TRAVEL,
            wall_s=max(0.0, whole.wall_s - sum(call.wall_s for call in calls)),
            cpu_s=max(0.0, whole.cpu_s - sum(call.cpu_s for call in calls)),
        )
        return block, [*calls, travel]

    def close(self) -> None:
        self._chain.close()


Item = TypeVar("Item")
Result = TypeVar("Result")


def mapped(
    function: Callable[[Sequence[Item]], list[Result]], chunks: Sequence[Sequence[Item]]
) -> list[Result | None]:
    """Call a function on chunks, in tasks; None for the items of a chunk whose process died."""
    task: Any = ray.remote(_applied).options(num_cpus=1, max_retries=0)
    waiting = [task.remote(function, chunk) for chunk in chunks]
    found: list[Result | None] = []
    for chunk, answer in zip(chunks, waiting, strict=True):
        try:
            found += ray.get(answer)
        except ray.exceptions.WorkerCrashedError:
            found += [None] * len(chunk)
    return found


def _applied(
    function: Callable[[Sequence[Item]], list[Result]], chunk: Sequence[Item]
) -> list[Result]:
    return function(chunk)
