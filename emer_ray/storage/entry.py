"""What a listing says of an object."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An object in a listing."""

    uri: str
    size: int
    """Bytes."""
    modified_s: float
    """Seconds since 1970, by the store's clock."""
    version: str
    """Changes whenever the object is stored anew: its ETag, or its size and time to the ns."""
