"""Door for `ray job submit … -- python jobs/relabel.py CONFIG …`: the words of `emer relabel`."""

import sys

from emer_ray.cli import main

if __name__ == "__main__":
    main(["relabel", *sys.argv[1:]])
