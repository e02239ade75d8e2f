"""Cross-validation as a split: the set in which a clip is tested."""

from collections.abc import Mapping
from typing import Final

from emer_ray.corpora.tree import Tree

SET: Final = r"set_(?P<set>[1-5])"


def tested_in(tree: Tree, lists: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Turn the test list of each set (clips to labels) into each clip's set.

    Every other set trains on the clip. A second set that tests a clip is noted; the first counts.
    """
    sets: dict[str, str] = {}
    for name in sorted(lists):
        for clip in lists[name]:
            if (first := sets.setdefault(clip, name)) != name:
                tree.leave(f"{clip} in {name}", "duplicate", f"it is tested in {first} already")
    return sets
