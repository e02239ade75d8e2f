"""Prove from a run directory alone that every clip ended exactly once."""

from emer_ray.store import index


def verify(run: str, *, deep: bool = False) -> index.Verdict:
    """Check parts and count their rows against the manifest; `deep` reads every byte of them."""
    return index.verify(run, deep=deep)


def advice(run: str, verdict: index.Verdict) -> str:
    """Say what a verdict rests on, or what to do when it does not hold."""
    if verdict.bad_parts:
        return (
            f"delete the parts named above from {run}, then start `emer relabel` on it again: "
            f"only their clips are done anew"
        )
    if verdict.duplicate:
        return (
            f"{run}: two fingerprints wrote the same clips; delete the parts of the unwanted one "
            f"(their names hold its first 12 digits), then start `emer relabel` on it again"
        )
    if verdict.missing:
        return f"start `emer relabel` on {run} again; it does what is missing"
    if verdict.read == verdict.parts:
        return f"every clip ended exactly once; all {verdict.parts} parts were read and hashed"
    return (
        f"every clip ended exactly once; {verdict.read} of {verdict.parts} parts were read and "
        f"hashed, the store attests the others unchanged since they were written (--deep reads all)"
    )
