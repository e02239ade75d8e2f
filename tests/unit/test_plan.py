"""The arithmetic of `emer plan`: rates in, seconds and dollars out. A canary is in integration."""

import json
import math
import subprocess
import sys
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from emer_ray import clock, config, cost, pipeline, schema, stages
from emer_ray.config import RunConfig
from emer_ray.errors import ConfigError
from emer_ray.media import probe
from emer_ray.media.probe import Extent
from emer_ray.plan import PlanOptions, canary, cheaper, forecast, prediction, prices
from emer_ray.plan.canary import Canary, PoolRates
from emer_ray.plan.forecast import Rate, Shard, Station
from emer_ray.plan.prediction import Hardware, Load, Prediction
from emer_ray.records import Clip
from emer_ray.runner import Cluster
from emer_ray.store import index
from tests import synth

TABLE = prices.Prices(
    date="2026-01-01",
    source="a test",
    machines={
        "cpu-32": prices.Machine(cpus=32, usd=1.6, spot_usd=0.8),
        "gpu-1": prices.Machine(cpus=8, gpus=1, usd=2.0, spot_usd=1.0),
        "head": prices.Machine(cpus=4, usd=0.2),
    },
)


def even(seconds: float) -> Rate:
    return Rate(clip_s=seconds)


def station(name: str, seconds: float, actors: int = 1, cpu: float = 1.0) -> Station:
    return Station(name=name, actors=actors, wall=even(seconds), cpu=even(seconds * cpu))


def shards(count: int, clips: int = 10) -> list[Shard]:
    return [Shard(clips=clips, video_s=5.0 * clips) for _ in range(count)]


def test_a_rate_is_told_apart_into_calls_clips_pictures_and_sound() -> None:
    wanted = Rate(call_s=0.5, clip_s=0.2, video_s=0.1, audio_s=0.05)
    tables = [
        Shard(clips=1, video_s=1.0),
        Shard(clips=1, video_s=9.0, audio_s=9.0),
        Shard(clips=1, audio_s=4.0),
        Shard(clips=6, video_s=20.0, audio_s=12.0),
    ]
    found = forecast.fitted([(table, wanted.of(table)) for table in tables])
    unseen = Shard(clips=16, video_s=80.0, audio_s=8.0)
    assert found.of(unseen) == pytest.approx(wanted.of(unseen))
    assert (found.call_s, found.audio_s) == (pytest.approx(0.5), pytest.approx(0.05))


def test_no_part_of_a_rate_is_negative_and_the_sum_of_what_was_seen_is_kept() -> None:
    seen = ((1, 1.0, 0.31), (1, 4.0, 0.29), (1, 16.0, 0.30), (5, 30.0, 1.50))
    calls = [(Shard(clips=n, video_s=s, audio_s=s), seconds) for n, s, seconds in seen]
    found = forecast.fitted(calls)
    assert min(found.call_s, found.clip_s, found.video_s, found.audio_s) >= 0
    assert sum(found.of(table) for table, _ in calls) == pytest.approx(2.4, rel=0.01)
    assert forecast.fitted([]) == Rate()
    assert forecast.fitted([(Shard(clips=2), 0.0)]) == Rate()


def test_one_pool_takes_what_its_actors_take() -> None:
    found = forecast.played([station("a", 0.1, actors=2)], shards(10), cores=8)
    assert found.seconds == pytest.approx(5.0)  # 100 clips of 0.1 s by two
    assert found.busy_s == {"a": pytest.approx(10.0)}


def test_a_last_shard_keeps_one_actor_while_the_others_wait() -> None:
    found = forecast.played([station("a", 0.1, actors=2)], shards(11), cores=8)
    assert found.seconds == pytest.approx(6.0)


def test_pools_work_at_the_same_time_and_the_slowest_sets_the_pace() -> None:
    line = [station("a", 0.1), station("b", 0.3, cpu=0.0), station("c", 0.1)]
    found = forecast.played(line, shards(10), cores=8)
    assert found.seconds == pytest.approx(1 + 30 + 1)  # the first and the last shard of the others
    assert found.busy_s["b"] == pytest.approx(30.0)


def test_actors_that_want_more_cores_than_there_are_slow_each_other_down() -> None:
    crowded = forecast.played([station("a", 0.1, actors=4)], shards(40), cores=2)
    assert crowded.seconds == pytest.approx(20.0)  # 40 CPU seconds on two cores
    asleep = forecast.played([station("a", 0.1, actors=4, cpu=0.0)], shards(40), cores=2)
    assert asleep.seconds == pytest.approx(10.0)
    half = forecast.played([station("a", 0.1, actors=4, cpu=0.75)], shards(40), cores=2)
    assert half.seconds == pytest.approx(10.0 * (0.25 + 0.75 * 1.5))


def test_a_long_run_is_played_in_part_and_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    line = [station("a", 0.1, actors=2), station("b", 0.12)]
    whole = forecast.played(line, shards(200), cores=2)
    monkeypatch.setattr(forecast, "PLAYED_SHARDS", 50)
    scaled = forecast.played(line, shards(200), cores=2)
    assert scaled.seconds == pytest.approx(whole.seconds, rel=0.01)
    assert scaled.busy_s["b"] == pytest.approx(whole.busy_s["b"], rel=0.01)


def test_starts_share_the_cores() -> None:
    assert forecast.start_s([(2, 3.0, 2.0), (1, 2.0, 1.0)], cores=16) == 3.0
    assert forecast.start_s([(2, 3.0, 2.0), (1, 2.0, 1.0)], cores=1) == 5.0


def fake(**sections: object) -> RunConfig:
    return config.parse({"models": {"main": {"backend": "fake"}}, **sections})


def rates(decode: float, reason: float, reason_cpu: float = 0.0) -> Canary:
    def pool(step: str, wall: float, cpu: float) -> PoolRates:
        return PoolRates(load_s=2.0, load_cpu_s=1.0, steps={step: (even(wall), even(cpu))})

    return Canary(
        clips=10,
        pools={
            "decode": pool("decode", decode, decode),
            "reason.main": pool("explain", reason, reason_cpu),
            "write": pool("write", 0.0, 0.0),
        },
    )


def load(run_config: RunConfig, n_shards: int = 100) -> Load:
    flow = pipeline.steps(run_config, pipeline.Start(run="r"))
    return Load(config=run_config, flow=flow, shards=shards(n_shards, clips=16), look_s=0.5)


def on(*words: str) -> Hardware:
    return prediction.of_machines(prices.groups(words, TABLE))


def test_a_prediction_names_the_bottleneck_and_adds_start_and_end() -> None:
    here = Hardware(cpus=4, gpus=0, nodes=1, cores=2, usd_per_hour=3.6)
    found = prediction.predict(load(fake()), rates(decode=0.1, reason=0.5), here)
    assert found.bottleneck == "reason.main"
    assert found.work_s == pytest.approx(1600 * 0.5 + 16 * 0.1, abs=1.0)
    assert found.start_s == 0.5 + 2.0  # four actors of one CPU second on two cores
    assert found.usd == pytest.approx(3.6 * found.seconds / 3600)
    assert found.busy_share("decode") == pytest.approx(160 / (2 * found.work_s), rel=0.02)


def test_pools_are_staffed_for_machines_that_are_not_here() -> None:
    gpus = fake(pools={"explain": {"gpus": 1}})
    hardware = on("head:head", "8xgpu-1", "2xcpu-32:spot")
    assert (hardware.cpus, hardware.gpus, hardware.nodes) == (128, 8, 11)
    assert hardware.usd_per_hour == pytest.approx(0.2 + 16 + 1.6)
    found = prediction.predict(load(gpus, 2000), rates(decode=0.1, reason=0.5), hardware)
    actors = {pool.name: pool.max_actors for pool in found.pools}
    assert actors["reason.main"] == 8
    assert found.work_s == pytest.approx(32_000 * 0.5 / 8, rel=0.02)


def test_a_local_ray_leaves_its_actors_less_than_all_cores() -> None:
    def cores(local: bool) -> float:
        cluster = Cluster(cpus=4, gpus=0, nodes=1, local=local, cores=2)
        return prediction.hardware_of(cluster, (), None).cores

    assert (cores(local=True), cores(local=False)) == (2 - forecast.AT_HOME_CPUS, 2)


def test_the_driver_is_the_limit_where_shards_are_too_small_for_the_pools() -> None:
    many = on("100xcpu-32")
    found = prediction.predict(load(fake(), 3000), rates(decode=0.001, reason=0.0), many)
    assert found.bottleneck == forecast.RAY


def test_answers_with_a_price_are_part_of_the_dollars() -> None:
    here = Hardware(cpus=4, gpus=0, nodes=1, cores=2, usd_per_hour=None)
    free = prediction.predict(load(fake()), rates(0.1, 0.1), here)
    assert free.usd is None
    known = rates(0.1, 0.1)
    priced = Canary(clips=10, pools=known.pools, usd_per_clip=0.01)
    assert prediction.predict(load(fake()), priced, here).usd == pytest.approx(16.0)


def test_rates_of_another_recipe_are_refused() -> None:
    here = Hardware(cpus=4, gpus=0, nodes=1, cores=2, usd_per_hour=None)
    known = rates(0.1, 0.1)
    others = Canary(clips=1, pools={"decode": known.pools["decode"]})
    with pytest.raises(ConfigError, match=r"know no pool 'reason\.main'"):
        prediction.predict(load(fake()), others, here)


def whats(found: list[dict[str, object]]) -> list[str]:
    return [str(advice["what"]) for advice in found]


def advised(
    run_config: RunConfig, known: Canary, *machines: str, n_shards: int = 400
) -> tuple[Prediction, list[dict[str, object]]]:
    work = load(run_config, n_shards)
    found = prediction.predict(work, known, on(*machines))
    return found, cheaper.advices(work, known, found, TABLE)


def test_spot_machines_are_advised_but_not_for_the_head() -> None:
    before, found = advised(fake(), rates(0.2, 0.01), "head:head", "2xcpu-32")
    [advice] = [a for a in found if a["what"] == "take spot machines"]
    assert advice["usd"] == pytest.approx(before.seconds / 3600 * (0.2 + 1.6), rel=1e-3)
    assert "take spot machines" not in whats(advised(fake(), rates(0.2, 0.01), "2xcpu-32:spot")[1])


def test_larger_shards_are_advised_where_quick_ones_keep_the_driver_busy() -> None:
    quick, slow = rates(decode=0.001, reason=0.0), rates(decode=0.001, reason=0.5)
    small = {"frames": 1, "size_px": 32}  # a block holds four times as many
    before, found = advised(fake(media=small), quick, "100xcpu-32", n_shards=3000)
    [advice] = [a for a in found if "shard_clips" in str(a["what"])]
    assert str(advice["what"]).startswith("output.shard_clips = 64")
    assert float(str(advice["hours"])) < 0.5 * before.seconds / 3600
    assert "shard_clips" not in str(advised(fake(media=small), slow, "100xcpu-32")[1])
    large = {"frames": 64, "size_px": 224}  # and here not even 16
    assert "shard_clips" not in str(advised(fake(media=large), quick, "100xcpu-32")[1])


def test_gpus_that_wait_are_given_decoders_where_that_costs_less() -> None:
    gpus = fake(pools={"explain": {"gpus": 1}})
    before, found = advised(gpus, rates(decode=2.0, reason=0.1), "4xgpu-1")
    [advice] = [a for a in found if "decoders per GPU" in str(a["what"])]
    assert "cpu-32:spot" in str(advice["what"])
    assert before.usd is not None
    assert float(str(advice["usd"])) < before.usd
    _, fed = advised(gpus, rates(decode=0.01, reason=0.5), "4xgpu-1")
    assert not [what for what in whats(fed) if "decoders per GPU" in what]


def test_decoders_that_wait_are_given_back() -> None:
    gpus = fake(pools={"explain": {"gpus": 1}})
    _, found = advised(gpus, rates(decode=0.05, reason=1.0), "4xgpu-1", "4xcpu-32", n_shards=800)
    assert "1xcpu-32 instead of 4" in whats(found)


def test_gpus_that_nobody_asks_for_are_named() -> None:
    assert "use or leave out GPUs" in whats(advised(fake(), rates(0.1, 0.1), "2xgpu-1")[1])


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("8xnothing", "no machine 'nothing' in the price table"),
        ("two gpu-1", "give COUNTxMACHINE"),
        ("head:spot", "no spot_usd"),
    ],
)
def test_machines_that_cannot_be_are_refused(word: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        prices.groups([word], TABLE)


def test_the_shipped_price_table_is_dated_and_says_where_it_is_from() -> None:
    table = prices.load()
    assert pl.Series([table.date]).str.to_date()[0]
    assert table.source.startswith("https://")
    for name, machine in table.machines.items():
        assert machine.where, name
        assert machine.spot_usd is None or machine.spot_usd < machine.usd, name


def test_another_price_table_is_read_and_its_mistakes_are_named(tmp_path: Path) -> None:
    own = tmp_path / "prices.toml"
    own.write_text('date = "2026-01-01"\nsource = "mine"\n[machines.m]\ncpus = 4\nusd = 0.1\n')
    assert prices.load(str(own)).machines["m"].usd == 0.1
    own.write_text('date = "2026-01-01"\nsource = "mine"\n[machines.m]\ncpus = 4\ncosts = 0.1\n')
    with pytest.raises(ConfigError, match=r"machines\.m\.usd"):
        prices.load(str(own))
    with pytest.raises(ConfigError, match="--prices"):
        prices.load(str(tmp_path / "none.toml"))


def placed(lengths: dict[str, Extent]) -> pl.DataFrame:
    rows = [
        {**dict.fromkeys(schema.MANIFEST.names), "clip_id": name, "video_uri": "x.mp4"}
        for name in lengths
    ]
    listed = pl.DataFrame(pl.from_arrow(schema.table(rows, schema.MANIFEST)))
    table = index.assign_shards(listed, None, 16)
    return index.clips_of(table, index.unfinished(table, pl.DataFrame(_nothing())))


def _nothing() -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(schema.INDEX.empty_table()))


def test_a_canary_stands_for_all_lengths() -> None:
    lengths = {f"c{n:03d}": Extent(video_s=n + 1.0, audio_s=0.0) for n in range(160)}
    lengths |= {f"d{n:03d}": Extent(video_s=n + 1.0, audio_s=n + 1.0) for n in range(40)}
    tables = canary.tables(placed(lengths), lengths, None, 16)
    assert [table.num_rows for table in tables] == [1, 1, 1, 1, 1, 1, 4]
    assert all(isinstance(table, pa.Table) and table.schema == schema.CLIPS for table in tables)
    names = [name for table in tables for name in table["clip_id"].to_pylist()]
    chosen = sorted((lengths[name].audio_s, lengths[name].video_s) for name in names)
    assert chosen == [*((0.0, 11.0 + 20 * k) for k in range(8)), (11.0, 11.0), (31.0, 31.0)]
    assert tables[-1]["shard_clips"].to_pylist() == [4] * 4
    few = dict.fromkeys("ab", Extent(video_s=1.0, audio_s=1.0))
    assert sum(t.num_rows for t in canary.tables(placed(few), few, None, 16)) == 2


def test_rates_are_read_back_from_a_plan_and_anything_else_is_refused(tmp_path: Path) -> None:
    uri = tmp_path / "plan.json"
    uri.write_text('{"clips": 3}')
    with pytest.raises(ConfigError, match="no plan"):
        canary.rates_of(str(uri))
    with pytest.raises(ConfigError, match="--rates"):
        canary.rates_of(str(tmp_path / "none.json"))


def test_what_there_is_to_see_and_hear_comes_from_headers_and_windows(tmp_path: Path) -> None:
    film = synth.clip(tmp_path / "a.mp4", seconds=3)
    mute = synth.clip(tmp_path / "m.mp4", seconds=2, audio=False)
    (tmp_path / "b.mp4").write_bytes(b"no film at all")
    clips = [
        Clip(clip_id="whole", video_uri=film),
        Clip(clip_id="later", video_uri=film, start_s=1.0),
        Clip(clip_id="window", video_uri=film, start_s=1.0, end_s=1.5),
        Clip(clip_id="mute", video_uri=mute),
        Clip(clip_id="dubbed", video_uri=mute, audio_uri=film),
        Clip(clip_id="sound", audio_uri=film),
        Clip(clip_id="broken", video_uri=str(tmp_path / "b.mp4")),
        Clip(clip_id="gone", video_uri=str(tmp_path / "c.mp4")),
        Clip(clip_id="images", video_uri=str(tmp_path), fps=5.0),
    ]
    *known, broken, gone, images = probe.extents(clips, config.MediaConfig())
    assert [(round(e.video_s, 1), round(e.audio_s, 1)) for e in known if e] == [
        *((3.0, 3.0), (2.0, 2.0), (0.5, 0.5), (2.0, 0.0), (2.0, 2.0), (0.0, 3.0)),
    ]
    assert (broken, gone, images) == (None, None, None)


def test_cpu_seconds_count_children_that_live_and_those_that_ended() -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass\n"
    with clock.spending() as ended:
        subprocess.run([sys.executable, "-c", burn], check=True)
    assert ended.cpu_s >= 0.25  # the clock of children ticks in hundredths
    with clock.spending() as alive:
        child = subprocess.Popen(
            [sys.executable, "-c", f"{burn}print('done', flush=True)\ninput()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        child.stdout.readline()
    child.communicate(b"\n")
    assert alive.cpu_s >= 0.25


def test_what_was_predicted_stands_beside_what_was_measured() -> None:
    predicted = {
        **{"at": "then", "bottleneck": "decode", "clips": 100, "clips_per_s": 2.0},
        **{"hours": 50 / 3600, "usd": 1.0, "usd_per_hour": 72.0},
        "pools": {"decode": {"busy_s": 90.0, "busy_share": 0.9, "clips_per_s_per_actor": 1.1}},
    }
    start = {
        "seconds": 40.0,
        "cost": {"usd": None, "pools": {"decode": {"busy_s": 72.0, "busy_share": None}}},
    }
    found = cost.beside(predicted, start, clips=100)
    assert found["hours"]["error"] == pytest.approx(0.25)
    assert found["clips_per_s"] == {"predicted": 2.0, "measured": 2.5, "error": -0.2}
    assert found["usd"]["measured"] == pytest.approx(72 * 40 / 3600)
    assert found["pools"]["decode"]["busy_s"]["measured"] == 72.0
    assert found["pools"]["decode"]["busy_share"] == {
        **{"predicted": 0.9, "measured": None, "error": None}
    }
    assert json.loads(json.dumps(found)) == found
    assert not math.isnan(found["hours"]["measured"])


def test_the_command_gives_every_option_to_the_verb() -> None:
    from emer_ray import cli

    given = {param.name for param in cli.main.commands["plan"].params}
    assert given - {"config", "overrides", "as_json"} == set(PlanOptions.__dataclass_fields__)


def split_model(split: bool, **media: object) -> RunConfig:
    return config.parse(
        {
            "models": {
                "main": {
                    "backend": "transformers",
                    "model": "owner/name",
                    "revision": "0" * 40,
                    "options": {"split": split},
                }
            },
            "media": media,
        }
    )


def test_towers_stand_apart_where_embeddings_are_smaller_than_frames() -> None:
    small, large = {"frames": 2, "size_px": 56}, {"frames": 24, "size_px": 2160}
    assert whats(cheaper.splits(split_model(True, **small))) == [
        "models.main.options.split = false"
    ]
    assert whats(cheaper.splits(split_model(False, **large))) == [
        "models.main.options.split = true"
    ]
    assert cheaper.splits(split_model(False, **small)) == []
    assert cheaper.splits(fake()) == []


def pool_on_gpus(name: str, stage: object, actors: int) -> pipeline.Pool:
    step = pipeline.Step(name=name, stage=stage, settings={}, pool=name)  # type: ignore[arg-type]
    return pipeline.Pool(
        name=name,
        steps=(step,),
        min_actors=actors,
        max_actors=actors,
        cpus=1.0,
        gpus=1.0,
        memory_mb=None,
        reason="",
    )


def test_two_plans_are_predicted_one_after_the_other() -> None:
    """Towers take a tenth of what the language model does; each plan has all eight GPUs."""

    def predicted(phases: int) -> Prediction:
        pools = {"main_towers": {"gpus": 1}, "explain": {"gpus": 1}}
        if phases == 1:
            pools = {name: {**own, "actors": 4} for name, own in pools.items()}
        told = split_model(True, frames=2, size_px=56).model_dump()
        settings = config.parse({**told, "pools": pools, "output": {"phases": phases}})
        seconds = {"decode": 0.001, "main_towers": 0.1, "reason.main": 1.0, "write": 0.0}
        known = Canary(
            pools={
                name: PoolRates(load_s=5.0, load_cpu_s=0.0, steps={name: (even(s), Rate())})
                for name, s in seconds.items()
            }
        )
        hardware = Hardware(cpus=64, gpus=8, nodes=1, cores=64, usd_per_hour=None)
        return prediction.predict(load(settings, 500), known, hardware)

    once, twice = predicted(1), predicted(2)
    assert once.work_s == pytest.approx(8000 * 1.0 / 4, rel=0.02)
    assert twice.work_s == pytest.approx(8000 * 1.1 / 8, rel=0.05)
    assert twice.start_s == pytest.approx(once.start_s + 5.0)
    assert once.gpu_s == pytest.approx(8 * once.work_s)
    assert twice.gpu_s == pytest.approx(8 * twice.work_s)
    assert twice.bottleneck == "reason.main"
    names = ["decode", "main_towers", "recall", "reason.main", "write"]
    assert [pool.name for pool in twice.pools] == names


def both_phases(towers_s: float, language_s: float, load_s: float) -> dict[str, object] | None:
    """Towers and language on four GPUs each, of eight."""
    pools = [pool_on_gpus("towers", stages.Embed, 4), pool_on_gpus("language", stages.Reason, 4)]
    known = Canary(
        pools={
            name: PoolRates(load_s=load_s, load_cpu_s=0.0, steps={name: (even(s), Rate())})
            for name, s in (("towers", towers_s), ("language", language_s))
        }
    )
    work = load(fake(), 500)
    stations = [prediction.station_of(pool, known) for pool in pools]
    found = forecast.played(stations, work.shards, cores=64)
    predicted = Prediction(
        hardware=Hardware(cpus=64, gpus=8, nodes=1, cores=64, usd_per_hour=None),
        pools=pools,
        stations=stations,
        start_s=0.0,
        baselines_s=0.0,
        work_s=found.seconds,
        busy_s=found.busy_s,
    )
    return cheaper.two_phases(work, known, predicted)


def test_two_phases_pay_where_one_pool_on_gpus_waits_for_another() -> None:
    uneven = both_phases(towers_s=0.1, language_s=1.0, load_s=10.0)
    assert uneven is not None
    assert "GPU-hours instead of" in str(uneven["why"])
    assert both_phases(towers_s=1.0, language_s=1.0, load_s=10.0) is None  # both always busy
    assert both_phases(towers_s=0.1, language_s=1.0, load_s=5000.0) is None  # loading eats it up
