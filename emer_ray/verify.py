"""Prove from a run directory alone that every clip ended exactly once."""

from emer_ray.store import index


def verify(run: str) -> index.Verdict:
    """Read every raw part, check its bytes, and count its rows against the manifest."""
    return index.verify(run)


def advice(run: str, verdict: index.Verdict) -> str:
    """Say what to do when a verdict does not hold."""
    if verdict.bad_parts:
        return f"delete the parts named above, then start `emer relabel` on {run} again"
    if verdict.duplicate:
        return (
            f"{run}: two fingerprints wrote the same clips; delete the parts of the unwanted one "
            f"(their names end in its first 12 digits)"
        )
    if verdict.missing:
        return f"start `emer relabel` on {run} again; it does what is missing"
    return "every clip ended exactly once"
