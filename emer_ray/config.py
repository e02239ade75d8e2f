"""The configuration of one run: a TOML file, `--set` overrides, defaults. Validation lives here and
nowhere else.

Keys are `recipe input output media models.<name> pools.<step> budget` (design §3). Everything
inside the package trusts the values. `fingerprint_parts` says which of them decide results;
staffing, paths and the manifest do not.
"""

import difflib
import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from emer_ray.errors import ConfigError
from emer_ray.records import Modality

RESULTS_VERSION = 1
"""Raised by hand when code changes results; a golden test forces it."""

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class InputConfig(_Section):
    manifest: str | None = None
    """CSV, JSONL or Parquet file, or a folder/prefix of media; local or s3://."""
    where: str | None = None
    """Polars SQL condition over manifest columns, e.g. "split = 'test' AND start_s < 20"."""
    sample: Count | None = None
    """Keep this many rows, drawn by a hash of `seed` and clip id."""
    limit: Count | None = None
    """Keep the first rows, after `where` and `sample`."""
    seed: int = 0
    allow_http: bool = False
    """Accept http(s) URIs; link-local, loopback and private hosts stay refused."""
    answers: str | None = None
    """Run directory whose equal steps are reused: their answers, and embeddings it kept."""


class OutputConfig(_Section):
    run: str | None = None
    """Run directory, local or s3://."""
    shard_clips: Count = 16
    """Clips per shard; lowered where a shard's heaviest table would pass `block_mb`."""
    block_mb: Count = 128
    in_flight: Count | None = None
    """Shards under way at a time, decoded and not yet written: what a stop may have to do again.
    Left out: four per actor."""
    embeddings: bool = False
    """Keep what a split model's towers make of each clip, for later runs with other prompts."""
    phases: Literal[1, 2] = 1
    """2: the towers of split models see every clip first, and their embeddings are kept; then GPUs
    are given back and language models loaded."""
    snapshot_clips: Count = 10_000
    """The driver rolls an index snapshot after this many receipts, and after every tenth of them
    names the new ones in a small file beside it."""


class MediaConfig(_Section):
    """How clips are decoded; all but `threads`, `deadline_s` and `memory_mb` change results."""

    frames: Count = 24
    sampling: Literal["centre", "affectgpt", "segment_start", "fps"] = "centre"
    """centre: middle of n equal segments. affectgpt, segment_start: the rules of earlier systems
    (science §a.6). fps: every 1/`fps` seconds, at most `frames`."""
    fps: Positive | None = None
    """Only with sampling = "fps"."""
    resize: Literal["shorter", "square", "none"] = "shorter"
    size_px: Count = 360
    """Shorter side at most this (never enlarged), or the side of the square."""
    max_mb: Count = 2048
    max_pixels: Count = 8192 * 4320
    max_window_s: Positive = 600.0
    """A longer window is failed as too_large: EMER explains short clips."""
    threads: Count = 1
    deadline_s: Positive = 60.0
    memory_mb: Count = 2048
    """Address space a decoder child may take beyond its start."""

    @model_validator(mode="after")
    def _fps_with_fps(self) -> "MediaConfig":
        if (self.sampling == "fps") != (self.fps is not None):
            raise ValueError('fps is needed with sampling = "fps" and with no other sampling')
        return self


Backend = Literal["embedded", "fake", "openai", "replay", "transformers", "vllm"]
Dollars = Annotated[float, Field(ge=0)]


class PriceConfig(_Section):
    """What a hosted model costs, in US dollars; the table is yours, prices change."""

    input_usd: Dollars = 0.0
    """Per million tokens that go in."""
    output_usd: Dollars = 0.0
    """Per million tokens that come out."""
    request_usd: Dollars = 0.0
    """Per request."""


class ModelConfig(_Section):
    """A named backend with its settings; `options` go to the backend as they are."""

    backend: Backend = "embedded"
    model: str = ""
    """Model id, folder or s3:// prefix, where the backend wants one."""
    revision: str | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    """0 = greedy; several samples of a step need more."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: int = 0
    """Every clip, step and sample draws from a seed of its own, derived from this one."""
    max_tokens: Count = 1024
    """Tokens of one answer, at most; an answer that reaches it is cut off, and that is known."""
    max_text_tokens: Count = 4096
    """Tokens that the words and earlier answers of one clip may put into a prompt, by estimate; the
    longest are shortened to fit, and the row notes it."""
    answer_chars: Count | None = None
    """Characters that all strings of a structured answer may have together: lists and strings get
    limits, so that one that never ends by itself does not fill the answer. Left out: eight times
    `max_tokens` for vllm, no limits elsewhere, because some endpoints refuse such a schema."""
    send_gated: bool = False
    """Send clips of a gated or unknown licence to a host that is not this one."""
    price: PriceConfig | None = None
    options: dict[str, Any] = Field(default_factory=dict)


class PoolConfig(_Section):
    """Staffing of one step; what is left out is chosen from the cluster and recorded."""

    actors: Count | None = None
    max_actors: Count | None = None
    cpus: Annotated[float, Field(ge=0)] | None = None
    gpus: Annotated[float, Field(ge=0)] | None = None
    memory_mb: Count | None = None
    batch: Count | None = None
    """Clips handed to the model at once; null = a whole shard."""
    shards: Count | None = None
    """Shards that an actor works on side by side, so that a model never waits between two; for vllm
    (left out: 8) and transformers (left out: 2, of which one is answered) only."""
    deadline_s: Positive | None = None
    """Seconds per clip. A batch that takes longer ends its process and is tried clip by clip; a
    clip that hangs alone three times is failed as `timeout`."""


class BudgetConfig(_Section):
    failed_share: Share = 0.2
    stop_early: bool = False
    stall_s: Positive = 900.0
    """Without a finished clip for so long, the log says what every stage is waiting for."""
    drain_s: Positive = 25.0
    """After SIGTERM, for what is in flight; stay below the grace period of who sends it."""
    usd: Positive | None = None


Fault = Literal["raise", "hang", "segfault", "exit", "bloat"]


JudgedScore = Literal["clue", "label", "set", "sentence", "groups", "preference"]


class JudgeModels(_Section):
    judge: ModelConfig


class JudgePools(_Section):
    judge: PoolConfig = PoolConfig()


class JudgeBudget(_Section):
    usd: Positive | None = None
    """For one start: what is predicted to cost more is refused, what does cost more is stopped."""


class JudgeConfig(_Section):
    """A language model that scores (`emer evaluate --judge`); sections as in a run's TOML."""

    scores: tuple[JudgedScore, ...] = ()
    """What to ask for; empty = everything that the tables allow."""
    language: Literal["en", "zh"] = "en"
    """Of the prompts."""
    answers: str | None = None
    """Folder, local or s3://, where every answer is kept and looked up before asking."""
    models: JudgeModels
    pools: JudgePools = JudgePools()
    budget: JudgeBudget = JudgeBudget()


class RunConfig(_Section):
    recipe: str = "one_shot"
    language: Literal["en", "zh"] = "en"
    modalities: tuple[Modality, ...] = ("video", "audio", "text")
    """What any step may look at; a step left with nothing to look at drops out of the recipe."""
    samples: dict[str, Count] = Field(default_factory=dict)
    """Step -> answers to draw, where it is not the recipe's number."""
    input: InputConfig = InputConfig()
    output: OutputConfig = OutputConfig()
    media: MediaConfig = MediaConfig()
    models: dict[str, ModelConfig] = Field(default_factory=lambda: {"main": ModelConfig()})
    pools: dict[str, PoolConfig] = Field(default_factory=dict)
    budget: BudgetConfig = BudgetConfig()
    faults: dict[str, dict[str, Fault]] = Field(default_factory=dict)
    """Rehearsal: stage -> clip id -> disaster. Proves containment on your own cluster."""


def load(
    path: str | Path | None,
    overrides: Sequence[str] = (),
    defaults: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Read a run's TOML and apply `a.b=c` overrides. Precedence: defaults < file < overrides."""
    return parse(_read(path, overrides, defaults or {}))


def parse(values: Mapping[str, Any]) -> RunConfig:
    """Validate plain values; a wrong key is answered with the nearest right one."""
    return _validated(RunConfig, values)


def load_judge(path: str | Path, overrides: Sequence[str] = ()) -> JudgeConfig:
    """Read a judge's TOML and apply `a.b=c` overrides."""
    return _validated(JudgeConfig, _read(path, overrides, {}))


def _read(
    path: str | Path | None, overrides: Sequence[str], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    values: dict[str, Any] = dict(defaults)
    if path is not None:
        try:
            text = Path(path).read_bytes()
        except OSError as error:
            raise ConfigError(
                f"configuration {path}: {error.strerror}; give the path of a TOML file"
            ) from None
        try:
            values = _merge(values, tomllib.loads(text.decode()))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"configuration {path}: not TOML ({error})") from None
    for override in overrides:
        values = _merge(values, _override(override))
    return values


Config = TypeVar("Config", bound=_Section)


def _validated(model: type[Config], values: Mapping[str, Any]) -> Config:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        said = "; ".join(_sentence(dict(item), model) for item in error.errors())
        raise ConfigError(said) from None


def _sentence(item: Mapping[str, Any], model: type[_Section]) -> str:
    path = ".".join(str(part) for part in item["loc"])
    if item["type"] == "missing":
        return f"{path} is not set; add it to the configuration"
    if item["type"] != "extra_forbidden":
        message = str(item["msg"]).removeprefix("Value error, ")
        return f"{path or 'configuration'}: {message} (got {item['input']!r})" if path else message
    *parents, wrong = [str(part) for part in item["loc"]]
    section = _section(model, parents)
    near = difflib.get_close_matches(wrong, section, n=1, cutoff=0.5)
    elsewhere = [p for p in known_keys(model) if p.rsplit(".", 1)[-1] == wrong]
    hint = elsewhere[0] if elsewhere else ".".join([*parents, *near])
    tail = (
        f"did you mean {hint}?" if elsewhere or near else f"known keys here: {', '.join(section)}"
    )
    return f"unknown key {path}: {tail}"


def _section(model: type[_Section], parents: Sequence[str]) -> list[str]:
    """List the keys of the section that a path of keys leads to."""
    for prefix, section in _SECTIONS[model].items():
        wanted = ["*" if part[0] == "<" else part for part in prefix.split(".")]
        given = ["*" if want == "*" else part for want, part in zip(wanted, parents, strict=False)]
        if given == wanted and len(parents) == len(wanted):
            return list(section.model_fields)
    return list(model.model_fields)


_SECTIONS: Final[Mapping[type[_Section], Mapping[str, type[_Section]]]] = {
    RunConfig: {
        "input": InputConfig,
        "output": OutputConfig,
        "media": MediaConfig,
        "models.<name>": ModelConfig,
        "models.<name>.price": PriceConfig,
        "pools.<step>": PoolConfig,
        "budget": BudgetConfig,
    },
    JudgeConfig: {
        "models.judge": ModelConfig,
        "models.judge.price": PriceConfig,
        "pools.judge": PoolConfig,
        "budget": JudgeBudget,
    },
}
"""Sections of each kind of configuration, with `<name>` and `<step>` where a name is free."""


def known_keys(model: type[_Section] = RunConfig) -> list[str]:
    """List every dotted key of a kind of configuration."""
    sections = _SECTIONS[model]
    above = {prefix.split(".")[0] for prefix in sections} | {"faults"}
    keys = [name for name in model.model_fields if name not in above]
    for prefix, section in sections.items():
        keys += [f"{prefix}.{name}" for name in section.model_fields]
    return keys


def _override(text: str) -> dict[str, Any]:
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise ConfigError(f"--set {text}: give KEY=VALUE, for example --set input.limit=100")
    nested: Any = _value(value)
    for part in reversed(path.strip().split(".")):
        nested = {part: nested}
    return cast(dict[str, Any], nested)


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def _merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = _merge(cast(Mapping[str, Any], old), value) if both else value
    return merged


def digest(value: Any) -> str:
    """Hash plain JSON values: the same on every machine and Python."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
