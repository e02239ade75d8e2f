"""Reasoners: `explain(clues) -> replies`, one answer per input, order kept (house §4.7)."""

from collections.abc import Sequence
from typing import Protocol

from emer_ray.errors import ClipError
from emer_ray.records import Clues, Reply


class Reasoner(Protocol):
    """A model behind one method; a reply or an expected failure for each clip."""

    def explain(self, clues: Sequence[Clues]) -> list[Reply | ClipError]: ...

    def close(self) -> None: ...
