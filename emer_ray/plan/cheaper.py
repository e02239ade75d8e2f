"""What would cost less: each advice with what it then takes, where that can be predicted."""

import dataclasses
from typing import Any, Final

from emer_ray import checkpoint, pipeline, stages
from emer_ray.config import RunConfig
from emer_ray.plan import forecast, prices
from emer_ray.plan.canary import Canary
from emer_ray.plan.forecast import Shard, Station
from emer_ray.plan.prediction import (
    Load,
    Prediction,
    of_machines,
    predict,
    short,
    start_s,
    station_of,
)


def advices(
    load: Load, canary: Canary, predicted: Prediction, table: prices.Prices
) -> list[dict[str, Any]]:
    """Say what would cost less, each with what it then takes: dollars, hours, and why."""
    return [
        advice
        for advice in (
            _idle_gpus(predicted),
            _spot(load, canary, predicted),
            _more_decoders(load, canary, predicted, table),
            _fewer_decoders(load, canary, predicted),
            *splits(load.config),
            _larger_shards(load, canary, predicted),
            two_phases(load, canary, predicted),
        )
        if advice is not None
    ]


def _advice(what: str, why: str, other: Prediction | None = None) -> dict[str, Any]:
    return {
        "what": what,
        "why": why,
        "hours": short(other.seconds / 3600) if other else None,
        "usd": short(other.usd) if other else None,
    }


def _idle_gpus(predicted: Prediction) -> dict[str, Any] | None:
    """GPUs that are paid for and that no pool asks for."""
    asked = sum(station.actors * station.gpus for station in predicted.stations)
    if predicted.hardware.gpus <= asked:
        return None
    return _advice(
        "use or leave out GPUs",
        f"the pools take {asked:g} of {predicted.hardware.gpus:g} GPUs; give the model's step some "
        f"by pools.<step>.gpus, or take machines without",
    )


def _spot(load: Load, canary: Canary, predicted: Prediction) -> dict[str, Any] | None:
    """Machines that may be taken away: a lost one costs the shards in flight."""
    groups = predicted.hardware.groups
    firm = [g for g in groups if not g.spot and not g.head and g.machine.spot_usd is not None]
    if not firm:
        return None
    spot = [group.model_copy(update={"spot": True}) if group in firm else group for group in groups]
    other = predict(load, canary, of_machines(spot))
    return _advice(
        "take spot machines",
        "a lost node costs the shards in flight, which are done again; keep the head on demand",
        other,
    )


def _decoder_need(predicted: Prediction) -> tuple[Station, float] | None:
    """Give the decoders, and how many times as many would keep the GPUs busy; None without GPUs."""
    on_gpus = [station for station in predicted.stations if station.gpus]
    decoders = next((station for station in predicted.stations if not station.gpus), None)
    if not on_gpus or decoders is None or not predicted.work_s:
        return None
    busiest = max(predicted.busy_share(station.name) for station in on_gpus)
    return (decoders, predicted.busy_share(decoders.name) / busiest) if busiest else None


def _more_decoders(
    load: Load, canary: Canary, predicted: Prediction, table: prices.Prices
) -> dict[str, Any] | None:
    """GPUs that wait for decoders: add the CPU machines that feed them."""
    need = _decoder_need(predicted)
    if need is None or predicted.bottleneck != need[0].name or need[1] < 1.1:
        return None
    decoders, times = need
    gpus = sum(station.actors * station.gpus for station in predicted.stations)
    cpus = (times - 1) * decoders.actors * decoders.cpus
    each = decoders.actors / gpus
    what = f"{each * times:.1f} decoders per GPU instead of {each:.1f}"
    why = f"the GPUs wait for {decoders.name}; {cpus:.0f} more CPUs feed them"
    groups = predicted.hardware.groups
    plain = {name: m for name, m in table.machines.items() if m.cpus and not m.gpus}
    if not groups or not plain:
        return _advice(what, why)
    cloud = {group.machine.where for group in groups}
    near = {name: m for name, m in plain.items() if m.where in cloud} or plain
    name = min(near, key=lambda n: near[n].usd / near[n].cpus)
    machine = near[name]
    count = max(1, round(cpus / machine.cpus))
    spot = machine.spot_usd is not None
    added = prices.Group(count=count, name=name, machine=machine, spot=spot, head=False)
    other = predict(load, canary, of_machines([*groups, added]))
    if other.usd is None or predicted.usd is None or other.usd >= predicted.usd:
        return None
    return _advice(f"{what}: add {count}x{name}" + ":spot" * spot, why, other)


def _fewer_decoders(load: Load, canary: Canary, predicted: Prediction) -> dict[str, Any] | None:
    """Machines without GPUs that wait for the GPUs."""
    need = _decoder_need(predicted)
    groups = predicted.hardware.groups
    if need is None or need[1] > 0.7:
        return None
    for number, group in enumerate(groups):
        if group.machine.gpus or group.head or group.count < 2:
            continue
        fewer = group.model_copy(update={"count": max(1, round(group.count * need[1] * 1.1))})
        other = predict(load, canary, of_machines([*groups[:number], fewer, *groups[number + 1 :]]))
        if other.usd is not None and predicted.usd is not None and other.usd < predicted.usd:
            return _advice(
                f"{fewer.count}x{group.name} instead of {group.count}",
                f"{need[0].name} is busy {predicted.busy_share(need[0].name):.0%} of the time",
                other,
            )
    return None


LARGER: Final = 4
SHARDS_PAY: Final = 0.95
"""Larger shards are advised where they take less than this share of the time."""


def _larger_shards(load: Load, canary: Canary, predicted: Prediction) -> dict[str, Any] | None:
    """Shards of quick clips: each costs Ray Data's one loop the same, whatever it holds."""
    output = load.config.output
    wanted = output.model_copy(update={"shard_clips": LARGER * output.shard_clips})
    now, _ = pipeline.shard_clips(load.config, load.flow)
    most, _ = pipeline.shard_clips(load.config.model_copy(update={"output": wanted}), load.flow)
    times = most // now
    if times < 2:
        return None
    joined = [Shard.of(load.shards[i : i + times]) for i in range(0, len(load.shards), times)]
    other = predict(dataclasses.replace(load, shards=joined), canary, predicted.hardware)
    if other.work_s > SHARDS_PAY * predicted.work_s:
        return None
    return _advice(
        f"output.shard_clips = {times * now}, in a new run directory",
        f"a shard costs Ray Data {forecast.HOP_S * len(predicted.pools):.3f} s whatever it holds; "
        f"more clips are done again after a crash",
        other,
    )


def splits(config: RunConfig) -> list[dict[str, Any]]:
    """Towers apart or not: what travels between pools, frames or embeddings."""
    found = []
    for name in dict.fromkeys(step.model for step in pipeline.recipe_of(config).steps):
        model = config.models[name]
        if model.backend != "transformers" or checkpoint.cannot_split(model):
            continue
        media, embedded = pipeline.travelling_bytes(config, name)
        split = pipeline.is_split(model)
        sizes = f"{embedded / 2**20:.1f} MB of embeddings against {media / 2**20:.1f} of media"
        if split and embedded > media and not config.output.embeddings:
            found.append(
                _advice(
                    f"models.{name}.options.split = false",
                    f"a clip sends {sizes}; splitting pays where embeddings are kept and used "
                    f"again, or where the towers need other machines",
                )
            )
        if not split and embedded < media:
            found.append(
                _advice(
                    f"models.{name}.options.split = true",
                    f"a clip would send {sizes}, and the towers' pool would scale by itself",
                )
            )
    return found


PHASES_PAY: Final = 0.95
"""Two phases are advised where they hold GPUs for less than this share of the time."""


def two_phases(load: Load, canary: Canary, predicted: Prediction) -> dict[str, Any] | None:
    """Compare one run with two that meet in stored embeddings; None where that is no question.

    In one run every pool holds its GPUs to the end, also the pools that wait. In two, all GPUs
    encode first and then all answer; the start and loading of each are counted.
    """
    towers = [n for n, pool in enumerate(predicted.pools) if _embeds(pool)]
    gpus = predicted.hardware.gpus
    apart = load.config.output.phases == 2
    if apart or not towers or not gpus or sum(s.gpus > 0 for s in predicted.stations) < 2:
        return None
    cut = towers[-1] + 1
    once_s = predicted.work_s + start_s(predicted.pools, canary, predicted.hardware.cores)
    held_s = sum(s.actors * s.gpus for s in predicted.stations) * once_s
    two_s = 0.0
    for part in (slice(None, cut), slice(cut, None)):
        pools = predicted.pools[part]
        stations = [
            dataclasses.replace(s, actors=max(1, int(gpus / s.gpus))) if s.gpus else s
            for s in (station_of(pool, canary) for pool in pools)
        ]
        through = [*stations, forecast.ray_station(len(pools))]
        played = forecast.played(through, load.shards, predicted.hardware.cores)
        starting = start_s(pools, canary, predicted.hardware.cores)
        two_s += (played.seconds + starting) * gpus
    pays = two_s < PHASES_PAY * held_s
    if not pays:
        return None
    return _advice(
        "two phases",
        f"output.phases = 2 (encode first, then answer): {two_s / 3600:.2f} GPU-hours instead of "
        f"{held_s / 3600:.2f}, because no pool holds GPUs while it waits for another",
    )


def _embeds(pool: pipeline.Pool) -> bool:
    return any(step.stage is stages.Embed for step in pool.steps)
