"""The real S3 server of the tests; the benchmarks use it too."""

from emer_ray.bench.seaweed import (
    ACCESS_KEY,
    READER_KEY,
    READER_SECRET,
    SECRET_KEY,
    client,
    credentials,
    seaweedfs,
)

__all__ = [
    "ACCESS_KEY",
    "READER_KEY",
    "READER_SECRET",
    "SECRET_KEY",
    "client",
    "credentials",
    "seaweedfs",
]
