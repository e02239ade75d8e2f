"""From rates and a choice of machines to pools, seconds and dollars."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from emer_ray import phases, pipeline, runner
from emer_ray.config import RunConfig
from emer_ray.errors import ConfigError
from emer_ray.plan import forecast, prices
from emer_ray.plan.canary import Canary, PoolRates
from emer_ray.plan.forecast import Rate, Shard, Station


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What the prediction is for."""

    cpus: float
    gpus: float
    nodes: int
    cores: float
    usd_per_hour: float | None
    groups: tuple[prices.Group, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is to be done."""

    config: RunConfig
    flow: Sequence[pipeline.Step]
    shards: Sequence[Shard]
    baselines: Sequence[Shard] = ()
    """Shards that are decoded before the run, for voice baselines."""
    look_s: float = 0.0
    """Until the manifest was read, everything checked and Ray there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What the arithmetic says of one choice of hardware."""

    hardware: Hardware
    pools: Sequence[pipeline.Pool]
    stations: Sequence[Station]
    start_s: float
    baselines_s: float
    work_s: float
    busy_s: Mapping[str, float] = field(default_factory=dict)
    gpu_s: float = 0.0
    """GPU-seconds that the pools hold while there is work."""
    answers_usd: float | None = None
    """What answers cost, where they have a price."""

    @property
    def seconds(self) -> float:
        return self.start_s + self.baselines_s + self.work_s

    @property
    def usd(self) -> float | None:
        """Dollars of machines and answers; null where neither has a price."""
        hourly = self.hardware.usd_per_hour
        if hourly is None and self.answers_usd is None:
            return None
        return (hourly or 0.0) * self.seconds / 3600 + (self.answers_usd or 0.0)

    def busy_share(self, pool: str) -> float:
        actors = next(station.actors for station in self.stations if station.name == pool)
        return self.busy_s[pool] / (actors * self.work_s) if self.work_s else 0.0

    @property
    def bottleneck(self) -> str | None:
        """The pool that is busiest."""
        names = [station.name for station in self.stations]
        return max(names, key=self.busy_share, default=None) if self.work_s else None


def hardware_of(
    cluster: runner.Cluster, machines: Sequence[prices.Group], usd_per_hour: float | None
) -> Hardware:
    """Say what the prediction is for: named machines, or what is at hand."""
    if not machines:
        return Hardware(
            cpus=cluster.cpus,
            gpus=cluster.gpus,
            nodes=cluster.nodes,
            cores=cluster.cores - forecast.AT_HOME_CPUS * cluster.local,
            usd_per_hour=usd_per_hour,
        )
    return of_machines(machines)


def of_machines(machines: Sequence[prices.Group]) -> Hardware:
    at_work = [group for group in machines if not group.head]
    cpus = sum(group.count * group.machine.cpus for group in at_work)
    return Hardware(
        cpus=cpus,
        gpus=sum(group.count * group.machine.gpus for group in at_work),
        nodes=sum(group.count for group in machines),
        cores=cpus,
        usd_per_hour=sum(group.usd for group in machines),
        groups=tuple(machines),
    )


def nothing(hardware: Hardware) -> Prediction:
    """Say of a run that has nothing left to do that it takes no time."""
    return Prediction(
        hardware=hardware, pools=(), stations=(), start_s=0.0, baselines_s=0.0, work_s=0.0
    )


def predict(load: Load, canary: Canary, hardware: Hardware) -> Prediction:
    """Staff the pools for some hardware and play the run through, or its two plans in turn."""
    baselines_s = 0.0
    if load.baselines:
        first = _played(load.flow[:2], load, canary, hardware, load.baselines)
        baselines_s = first.start_s + first.seconds
    plans = [load.flow]
    if load.config.output.phases == 2:
        cut = phases.cut(load.flow, load.config, "")
        plans = [cut.encode, cut.reason]
    found = [_played(flow, load, canary, hardware, load.shards) for flow in plans]
    clips = sum(shard.clips for shard in load.shards)
    answers_usd = None if canary.usd_per_clip is None else canary.usd_per_clip * clips
    busy_s: dict[str, float] = {}
    for plan in found:
        for name, seconds in plan.busy_s.items():  # Ray's own loop is in each of them
            busy_s[name] = busy_s.get(name, 0.0) + seconds
    hops = forecast.ray_station(sum(len(plan.pools) for plan in found))
    return Prediction(
        hardware=hardware,
        pools=[pool for plan in found for pool in plan.pools],
        stations=[*(station for plan in found for station in plan.stations), hops],
        start_s=load.look_s + sum(plan.start_s for plan in found),
        baselines_s=baselines_s,
        work_s=sum(plan.seconds for plan in found),
        busy_s=busy_s,
        gpu_s=sum(s.actors * s.gpus * plan.seconds for plan in found for s in plan.stations),
        answers_usd=answers_usd,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """One flow on its own, as Ray Data runs it."""

    pools: Sequence[pipeline.Pool]
    stations: Sequence[Station]
    start_s: float
    seconds: float
    busy_s: Mapping[str, float]


def _played(
    flow: Sequence[pipeline.Step],
    load: Load,
    canary: Canary,
    hardware: Hardware,
    shards: Sequence[Shard],
) -> _Plan:
    pools = pipeline.pools(flow, load.config, cpus=hardware.cpus, gpus=hardware.gpus)
    stations = [station_of(pool, canary) for pool in pools]
    through = [*stations, forecast.ray_station(len(pools))]
    found = forecast.played(through, shards, hardware.cores)
    return _Plan(
        pools=pools,
        stations=stations,
        start_s=start_s(pools, canary, hardware.cores),
        seconds=found.seconds,
        busy_s=found.busy_s,
    )


def rates_of(pool: pipeline.Pool, canary: Canary) -> PoolRates:
    """Find what the canary measured of a pool; what is only read back costs next to nothing."""
    if pool.name == phases.RECALL:
        return PoolRates(load_s=0.0, load_cpu_s=0.0, steps={pool.name: (Rate(), Rate())})
    found = canary.pools.get(pool.name)
    if found is None:
        raise ConfigError(
            f"the rates know no pool {pool.name!r} (they have {', '.join(canary.pools)}); they are "
            f"of another recipe or other pools, so leave --rates out and let a canary run"
        )
    return found


def station_of(pool: pipeline.Pool, canary: Canary) -> Station:
    found = rates_of(pool, canary)
    walls, cpus = zip(*found.steps.values(), strict=True)
    return Station(
        name=pool.name,
        actors=pool.max_actors,
        wall=sum(walls, Rate()),
        cpu=sum(cpus, Rate()),
        cpus=pool.cpus,
        gpus=pool.gpus,
    )


def start_s(pools: Sequence[pipeline.Pool], canary: Canary, cores: float) -> float:
    rates = [rates_of(pool, canary) for pool in pools]
    return forecast.start_s(
        [(p.max_actors, r.load_s, r.load_cpu_s) for p, r in zip(pools, rates, strict=True)], cores
    )


def short(value: float | None) -> float | None:
    """Round to what a prediction can mean."""
    return None if value is None else float(f"{value:.5g}")
