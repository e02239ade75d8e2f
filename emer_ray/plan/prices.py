"""What machines cost: a TOML table that its reader edits.

`cluster/prices.toml` of a checkout; a wheel carries the same file inside the package. Prices are
per hour, in US dollars, without storage, traffic and taxes.
"""

import re
import tomllib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from emer_ray import storage
from emer_ray.errors import ConfigError, StorageError

_CHECKOUT: Final = Path(__file__).parents[2] / "cluster" / "prices.toml"
_GROUP = re.compile(r"(?:(?P<n>\d+)\s*x\s*)?(?P<name>[^:\s]+)(?P<words>(?::(?:spot|head))*)")

Dollars = Annotated[float, Field(ge=0)]


class Machine(BaseModel):
    """One type of machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpus: Annotated[float, Field(ge=0)]
    """As Ray counts them: virtual CPUs."""
    gpus: Annotated[float, Field(ge=0)] = 0.0
    gpu: str = ""
    memory_gb: Annotated[float, Field(ge=0)] = 0.0
    usd: Dollars
    """On demand."""
    spot_usd: Dollars | None = None
    """At the date of the table; spot prices move by the hour."""
    where: str = ""
    """Cloud and region."""


class Prices(BaseModel):
    """The table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    date: str
    """When the prices were read; they change."""
    source: str
    machines: dict[str, Machine]


def load(path: str | None = None) -> Prices:
    """Read a price table; without a path the one that comes with the code."""
    where = path or str(_CHECKOUT if _CHECKOUT.is_file() else "the price table of the package")
    try:
        if path is not None:
            text = storage.read(path)
        elif _CHECKOUT.is_file():
            text = _CHECKOUT.read_bytes()
        else:
            text = (resources.files("emer_ray.plan") / "prices.toml").read_bytes()
        return Prices.model_validate(tomllib.loads(text.decode()))
    except StorageError as error:
        raise ConfigError(f"--prices {error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}: not TOML ({error})") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{where}: {key}: {first['msg']} (got {first['input']!r})") from None


class Group(BaseModel):
    """So many machines of one type."""

    model_config = ConfigDict(frozen=True)

    count: int
    name: str
    machine: Machine
    spot: bool
    head: bool
    """Runs the driver and no stage."""

    @property
    def usd(self) -> float:
        """Dollars per hour of all of them."""
        price = self.machine.spot_usd if self.spot else self.machine.usd
        assert price is not None
        return self.count * price


def groups(words: Sequence[str], prices: Prices) -> list[Group]:
    """Read machines as typed: `8xg6e.2xlarge`, `4xc7i.8xlarge:spot`, `m7i.xlarge:head`."""
    return [_group(word.strip(), prices) for text in words for word in text.split(",")]


def _group(word: str, prices: Prices) -> Group:
    found = _GROUP.fullmatch(word)
    if found is None:
        raise ConfigError(f"--on {word!r}: give COUNTxMACHINE[:spot][:head], e.g. 8xg6e.2xlarge")
    name, marks = found["name"], found["words"].split(":")
    machine = prices.machines.get(name)
    if machine is None:
        raise ConfigError(
            f"--on {word}: no machine {name!r} in the price table "
            f"(it has {', '.join(prices.machines)}); add it there, or give a table by --prices"
        )
    if "spot" in marks and machine.spot_usd is None:
        raise ConfigError(f"--on {word}: {name} has no spot_usd in the price table; add it there")
    return Group(
        count=int(found["n"] or 1),
        name=name,
        machine=machine,
        spot="spot" in marks,
        head="head" in marks,
    )
