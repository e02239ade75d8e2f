"""The flow on Ray Data: one `map_batches` per pool over one block per shard. The only module that
imports Ray.

What keeps it honest (design §5, §10): Ray may restart actors and retry tasks for ever, because
claims bound how often a clip may kill its process; a block is never dropped (`max_errored_blocks =
0`); a block is never split, so that a shard reaches its writer whole; every knob that matters is
set here and recorded.
"""

import gc
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

# A killed driver's share of the cluster stays reserved until its last request expires, 180 s by
# default, and the driver that resumes would get the rest. Living drivers renew every 10 s.
os.environ.setdefault("RAY_DATA_AUTOSCALING_REQUEST_EXPIRE_TIME_S", "60")
# Which operators a run has is nobody's business outside, and the actor that collects it costs 1.5 s
# of CPU at every start.
os.environ.setdefault("RAY_DATA_USAGE_DISABLED", "1")

import ray
import ray._private.state
import ray.util.metrics
from ray.data import ActorPoolStrategy, DataContext
from ray.data._internal.execution import streaming_executor_state
from ray.data.read_api import from_blocks
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from emer_ray import containment, cost, meter, telemetry
from emer_ray.containment import HEAVY
from emer_ray.errors import EmerError
from emer_ray.gate import Gate
from emer_ray.pipeline import Chain, Pool

log = logging.getLogger(__name__)

LOCAL_CPUS = 4
"""Logical CPUs of a local Ray at least; one with more cores gets two more than it has, because
light pools and Ray's own tasks count as CPUs but hardly use one."""


TICK_S = 0.05
"""Seconds that Ray Data's scheduling loop sleeps at most while nothing ends. It hands out work when
it wakes: its default of 0.1 leaves actors of quick shards without any, 0.02 costs a third of a
core (benchmarks/README.md)."""


GROW_AT = 0.9
"""Shards handed to a pool over those that it can take, from where it gets one more actor. Ray
Data's default of 1.75 is never reached by actors that are handed no more than they work on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What the job may use."""

    cpus: float
    gpus: float
    nodes: int
    local: bool
    cores: float
    """CPUs that can be busy at a time; a local Ray hands out more than there are."""


def connect() -> Cluster:
    """Join the cluster of `RAY_ADDRESS` (set inside a Ray job), or start a local one."""
    address = os.environ.get("RAY_ADDRESS")
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    if ray.is_initialized():
        # cycles of garbage that a failed run has left behind hold its actors, and these the CPUs
        gc.collect()
    elif address:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    else:
        # one line per actor that says nothing a user can act on goes with the level below
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        ray.init(
            address="local",
            num_cpus=max(LOCAL_CPUS, cores + 2),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    total = ray.cluster_resources()  # type: ignore[no-untyped-call]
    nodes = sum(node["Alive"] for node in ray.nodes())  # type: ignore[no-untyped-call]
    cpus = total.get("CPU", 0.0)
    return Cluster(
        cpus=cpus,
        gpus=total.get("GPU", 0.0),
        nodes=nodes,
        local=not address,
        cores=cpus if address else min(cpus, cores),
    )


def disconnect() -> None:
    """Leave the cluster, or stop the local one."""
    ray.shutdown()


def data_context() -> dict[str, Any]:
    """Set every Ray Data knob that matters, and return them for the run's record."""
    context = DataContext.get_current()
    knobs: dict[str, Any] = {
        "target_max_block_size": None,  # one block per shard, whatever its size
        "max_errored_blocks": 0,  # no block is dropped: failures are rows
        "actor_task_retry_on_errors": False,  # an exception that leaves a stage ends the run
        "retried_map_errors": False,
        "downstream_capacity_backpressure_ratio": 2.0,
        "wait_for_min_actors_s": -1,
        "execution_no_progress_timeout_s": 3600.0,
        "enable_progress_bars": False,  # one line per interval instead, readable in a job log
        "enable_operator_progress_bars": False,
        "enable_auto_log_stats": False,
        "memory_usage_poll_interval_s": None,  # a thread per task; the watchdog looks for itself
        "print_on_execution_start": False,
        "raise_original_map_exception": True,
    }
    for name, value in knobs.items():
        if not hasattr(context, name):
            raise AttributeError(f"Ray {ray.__version__} has no DataContext.{name}")
        setattr(context, name, value)
    if not hasattr(streaming_executor_state, "WAIT_FOR_TASK_COMPLETION_TIMEOUT_S"):
        raise AttributeError(f"Ray {ray.__version__} waits for tasks in another way")
    streaming_executor_state.WAIT_FOR_TASK_COMPLETION_TIMEOUT_S = TICK_S
    scaling = context.autoscaling_config
    if not hasattr(scaling, "actor_pool_util_upscaling_threshold"):
        raise AttributeError(f"Ray {ray.__version__} grows pools in another way")
    scaling.actor_pool_util_upscaling_threshold = GROW_AT
    context.execution_options.preserve_order = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)
    for name in ("exceptions", "_internal.execution.streaming_executor_state"):
        logging.getLogger(f"ray.data.{name}").setLevel(logging.CRITICAL)  # what they say is raised
    return {**knobs, "tick_s": TICK_S, "grow_at": GROW_AT, "preserve_order": False}


def run(
    pools: Sequence[Pool],
    tables: Sequence[pa.Table],
    *,
    in_flight: int,
    on_submitted: Callable[[], None] = lambda: None,
    account: cost.Account | None = None,
) -> Generator[pa.Table, None, None]:
    """Stream shards through the pools and yield what the last one returns, as it finishes.

    At most `in_flight` shards are under way: admitted to the first pool and not yet returned. To
    close the generator early ends the run: the actors finish what they have begun, and go.
    `on_submitted` is called when every block is in the object store and Ray Data takes over.
    `account` is told what each shard cost.
    """
    here = ray.get_runtime_context().get_node_id()
    gate: Any = (
        ray.remote(Gate)
        .options(
            num_cpus=0,
            max_concurrency=10_000,
            max_restarts=-1,
            max_task_retries=-1,
            # the driver's node: another one may be lost, and the run goes on
            scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=False),
        )
        .remote(in_flight)
    )
    # `from_arrow` would start a task per table for its row count, and wait for all of them
    data: ray.data.Dataset = from_blocks(
        [packed(table["shard"][0].as_py(), table) for table in tables]
    )
    for pool in pools:
        data = data.map_batches(
            _actor_class(pool),
            fn_constructor_args=(pool, gate if pool is pools[0] else None),
            batch_size=1,  # a block is one row, and with GPUs Ray Data insists on being told
            batch_format="pyarrow",
            zero_copy_batch=True,
            udf_modifying_row_count=False,
            compute=ActorPoolStrategy(
                min_size=min(pool.min_actors, len(tables)),
                max_size=min(pool.max_actors, len(tables)),
                initial_size=min(pool.max_actors if pool.gpus else pool.min_actors, len(tables)),
                # one more than are at work: the next is fetched and the last one stored meanwhile
                max_tasks_in_flight_per_actor=pool.shards + pool.queued,
                max_concurrent_calls_per_actor=pool.shards + 1,
                enable_true_multi_threading=True,
            ),
            num_cpus=pool.cpus,
            num_gpus=pool.gpus or None,
            memory=pool.memory_mb * 2**20 if pool.memory_mb else None,
        )  # Ray Data's pools restart actors and retry tasks for ever unless told otherwise (2.60)
    metrics = telemetry.Metrics(ray.util.metrics)
    on_submitted()
    try:
        # `iter_batches` would send its statistics to an actor every five seconds, and that actor
        # would grow by 42 MB more in 100,000 clips (benchmarks/README.md)
        for bundle in data.iter_internal_ref_bundles():
            for entry in bundle.blocks:
                shard, table, trail = unpacked(ray.get(entry.ref))
                gate.leave.remote(shard)
                if account is not None:
                    account.add(cost.read(trail), table.num_rows, time.time())
                    metrics.gpu_busy(account.gpu_shares())
                if table.num_rows:  # none of a shard that was drained
                    yield table
    except ray.exceptions.RayTaskError as error:
        raise mistake(error) from None
    finally:
        gate.end.remote()  # actors that wait at it would outlive the run


def mistake(error: ray.exceptions.RayTaskError) -> Exception:
    """Give what a worker has to say of the run as it said it there; a fault of ours stays as it is.

    Without what would hold Ray Data's executor, and by it the actors, as long as the error itself.
    """
    mine = error.cause
    if not isinstance(mine, EmerError):
        return error
    mine.args = (str(mine).splitlines()[0],)  # Ray appends advice on its own knobs
    error.__traceback__ = error.__context__ = None
    return mine.with_traceback(None)


_TRAIL = b"emer_trail"
"""Key of the trail in the metadata of a table's schema: a column would cost ten times more."""


def packed(shard: int, table: pa.Table, trail: bytes = b"") -> pa.Table:
    """Make the block that travels: one row of a shard's number, its table and its heavy columns.

    Ray serialises a table column by column in Python, some 2 to 5 ms for a nested one; Arrow IPC
    takes well under one. Heavy columns lie beside it as they are, so that the only copy of them is
    the one into the object store (benchmarks/README.md).
    """
    block = {"shard": pa.array([shard], pa.int32())}
    for name in HEAVY:
        place = table.schema.get_field_index(name)
        if place < 0 or table[name].null_count == table.num_rows:
            block[name] = pa.nulls(1, pa.large_list(pa.large_binary()))
            continue
        ends = pa.array([0, table.num_rows], pa.int64())
        block[name] = pa.LargeListArray.from_arrays(ends, _whole(table[name]))
        nothing = pa.nulls(table.num_rows, pa.large_binary())
        table = table.set_column(place, table.schema.field(name), nothing)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema.with_metadata({_TRAIL: trail})) as writer:
        writer.write_table(table)
    content = sink.getvalue()
    ends = pa.array([0, content.size], pa.int64()).buffers()[1]
    block["table"] = pa.LargeBinaryArray.from_buffers(pa.large_binary(), 1, [None, ends, content])
    return pa.table(block)


def unpacked(block: pa.Table) -> tuple[int, pa.Table, bytes]:
    """Give the shard's number, its table, which looks into the block without a copy, its trail."""
    one = _whole(block["table"])
    start, end = np.frombuffer(one.buffers()[1], np.int64)[one.offset : one.offset + 2]
    content = one.buffers()[2].slice(int(start), int(end - start))
    table = pa.ipc.open_stream(content).read_all()
    trail = table.schema.metadata[_TRAIL]
    table = table.replace_schema_metadata(None)
    for name in HEAVY:
        values = _whole(block[name])
        if values.null_count == 0:
            place = table.schema.get_field_index(name)
            table = table.set_column(place, table.schema.field(name), values.flatten())
    return block["shard"][0].as_py(), table, trail


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """Give a column as one array; `combine_chunks` would copy a single one."""
    chunks = [chunk for chunk in column.chunks if len(chunk)]
    return chunks[0] if len(chunks) == 1 else column.combine_chunks()


class _Worker:
    """One actor of a pool.

    An EmerError of its construction waits for the first call: Ray hands on what a call raises, but
    of a constructor only its text.
    """

    def __init__(self, pool: Pool, gate: Any) -> None:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
        containment.side_by_side(pool.shards)
        actor = ray.get_runtime_context().get_actor_id() or ""
        self._me = cost.Worker(pool=pool.name, actor=actor, born_s=time.time())
        self._metrics = telemetry.Metrics(ray.util.metrics)
        self._gate = gate
        self._refused: EmerError | None = None
        try:
            self._chain = Chain(pool.steps)
        except EmerError as error:
            self._refused = error

    def __call__(self, block: pa.Table) -> pa.Table:
        if self._refused is not None:
            raise self._refused
        shard, table, trail = unpacked(block)
        with meter.metered() as spent:
            if self._gate is not None:
                with meter.waiting("gate"):
                    if not ray.get(self._gate.enter.remote(shard)):
                        return block  # to nobody
            started_s = time.time()
            table = self._chain(table)
        self._metrics.emit(spent.counts)
        mine = cost.entry(
            self._me,
            spent,
            started_s=started_s,
            ended_s=time.time(),
            cpu_s=time.process_time(),
        )
        return packed(shard, table, trail + mine)

    def __del__(self) -> None:
        # Ray Data drops its actors at the end of a run; an engine must not outlive them
        if (chain := getattr(self, "_chain", None)) is not None:
            chain.close()


def _actor_class(pool: Pool) -> type:
    """Name the actor class after its steps: Ray shows it in logs and on the dashboard."""
    name = "".join(step.name.title().replace("_", "") for step in pool.steps)
    return type(name, (_Worker,), {})


def ended() -> dict[str, float]:
    """Say when the actors of this cluster that are gone came to their end, as Unix seconds."""
    known = ray._private.state.actors() if ray.is_initialized() else {}
    return {name: found["EndTime"] / 1000 for name, found in known.items() if found["EndTime"]}


def actors() -> list[str]:
    """Say in one line per pool how many actors are in which state, and what is free."""
    states = Counter(
        (found["ActorClassName"], found["State"]) for found in ray._private.state.actors().values()
    )
    lines = [
        f"{name}: {count} {state.lower().replace('_', ' ')}"
        for (name, state), count in sorted(states.items())
        if name.startswith("MapWorker") and state != "DEAD"
    ]
    free = ray.available_resources()  # type: ignore[no-untyped-call]
    return [*lines, f"free: {free.get('CPU', 0):g} CPUs, {free.get('GPU', 0):g} GPUs"]
