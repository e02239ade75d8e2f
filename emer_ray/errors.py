"""The exceptions of emer_ray, as a tree.

    EmerError              a user can act on it; the command line prints it without a traceback
    ├── ConfigError        a key, value or combination in the configuration is wrong       (exit 2)
    ├── ManifestError      rows of a manifest break its grammar                            (exit 2)
    ├── RunDirError        a run directory is foreign, taken, damaged or not one           (exit 2)
    ├── ModelError         weights are missing, unreadable or fail their checksum          (exit 2)
    ├── StorageError       an object cannot be read, written or listed                     (exit 2)
    ├── JobError           a cluster's job server cannot be reached, or refuses             (exit 2)
    ├── BudgetError        a run went over its budget; what it wrote stays                 (exit 1)
    ├── Interrupted        a run was asked to stop and did; starting again resumes        (exit 75)
    └── ClipError          the expected failure of one clip; a row, never the end of a run
    EngineDied             outside the tree: an actor ends itself and is started again

A message names the thing, the value and the remedy. Nothing decides by message text: `StorageError`
and `ClipError` carry a `kind` out of a closed set.
"""

from collections.abc import Sequence
from typing import Any, Final, Literal, get_args

StorageKind = Literal["missing", "denied", "storage"]

FailureKind = Literal[
    "missing",
    "denied",
    "storage",
    "empty",
    "not_media",
    "corrupt",
    "truncated",
    "too_large",
    "timeout",
    "crashed",
    "memory",
    "unparsable",
    "no_answer",
    "refused",
    "repetitive",
    "cut_off",
    "gated",
    "rejected",
    "endpoint",
    "error",
]

FAILURE_KINDS: Final[dict[FailureKind, str]] = {
    "missing": "the URI names nothing",
    "denied": "access to the object was refused",
    "storage": "the object store kept failing after its retries",
    "empty": "the file has zero bytes",
    "not_media": "no audio or video container was recognised",
    "corrupt": "a container was recognised, but nothing in it decodes",
    "truncated": "less than half of the declared window decodes",
    "too_large": "bytes, picture size or duration are beyond the limits of `media` or of a model",
    "timeout": "a stage passed its deadline on this clip",
    "crashed": "the process died on this clip, each time it was tried alone",
    "memory": "decoding this clip, or a model that looks at it, ran out of memory",
    "unparsable": "no explanation could be read from the model's answer; the answer is kept",
    "no_answer": "the model's answer was empty, or held nothing but thinking",
    "refused": "the model declined to answer, or a filter withheld its answer",
    "repetitive": "the model repeated itself instead of answering",
    "cut_off": "the answer reached `max_tokens` before it was complete",
    "gated": "the clip's licence tag is gated or unknown, so it was not sent to another host",
    "rejected": "the model's server refused this request; repeating it would not help",
    "endpoint": "the model's server kept failing after its retries",
    "error": "any other exception; its type and text are the message",
}
"""The closed set of failure kinds and what each means (design §4)."""

assert set(FAILURE_KINDS) == set(get_args(FailureKind))


class EmerError(Exception):
    """Raised for anything a user can act on."""

    exit_code: int = 2


class ConfigError(EmerError):
    """A key, a value or a combination in the configuration is wrong."""


class ManifestError(EmerError):
    """Rows of a manifest break its grammar."""


class RunDirError(EmerError):
    """A run directory is foreign, taken, damaged, or not one."""


class ModelError(EmerError):
    """Weights are missing, unreadable, or fail their checksum."""


class JobError(EmerError):
    """A cluster's job server cannot be reached, or refuses what it is asked."""


class BudgetError(EmerError):
    """A run went over its budget; everything it wrote stays."""

    exit_code = 1
    replies: Sequence[Any] = ()
    """What a model had answered of the requests at hand, in their order; null = not answered."""


class Interrupted(EmerError):
    """A run was asked to stop, finished what was in flight, and can be started again."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: try again


class StorageError(EmerError):
    """An object cannot be read, written or listed; `kind` says which way."""

    def __init__(self, kind: StorageKind, message: str) -> None:
        super().__init__(message)
        self.kind: StorageKind = kind

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return (type(self), (self.kind, str(self)))


class ClipError(EmerError):
    """The expected failure of one clip: becomes a row of `failures/`."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(message)
        self.kind: FailureKind = kind

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return (type(self), (self.kind, str(self)))


class EngineDied(Exception):
    """A model's engine, a process of its own, is gone: this actor is of no use without it.

    A contained stage ends its process, whose claim bounds how often a clip may do that.
    """
