"""Door for `ray job submit … -- python jobs/evaluate.py PRED …`: the words of `emer evaluate`.

With `--partitions N` every partition of the clips is a task of the cluster, so that a corpus larger
than any machine's memory can be scored; give Parquet files or run directories then, and `--out`.
"""

import sys
from collections.abc import Callable, Iterable
from typing import Any

import ray

from emer_ray import runner
from emer_ray.cli import main


def on_cluster(work: Callable[[int], Any], numbers: Iterable[int]) -> list[Any]:
    """Do `map(work, numbers)` as Ray tasks."""
    task = ray.remote(work)
    return list(ray.get([task.remote(number) for number in numbers]))


if __name__ == "__main__":
    runner.connect()
    main(["evaluate", *sys.argv[1:]], obj=on_cluster)
