"""Reasoners: `explain(requests) -> replies`, one answer per input, order kept (house §4.7)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from emer_ray.errors import ClipError
from emer_ray.reason.baselines import Baselines
from emer_ray.records import Reply, Request


class Reasoner(Protocol):
    """A model behind one method; a reply or an expected failure for each request."""

    def explain(self, requests: Sequence[Request]) -> list[Reply | ClipError]: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """What a run gives one actor of a model: its part of limits and money, and its yardsticks."""

    actors: int = 1
    """Actors that ask this model: each may use this part of its rate limits."""
    usd: float | None = None
    """What this actor may spend in this start of the run; null = no limit."""
    baselines: Baselines = field(default_factory=dict)
