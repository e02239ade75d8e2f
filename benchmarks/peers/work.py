"""The work that every program here does, so that only what lies around it differs.

A decoder that burns 5 ms of CPU per clip, outside the interpreter's lock as decoders do, and gives
1.2 MB of frames; a model that takes 5 ms per clip, eight at a time, on the one device there is. The
model appends a line per clip to a trace before it answers, as the fake backend of emer_ray does:
`emer bench peers` reads from it when work began, when to kill, and what was asked twice.
"""

import argparse
import hashlib
import json
import os
import time
from collections.abc import Sequence

import numpy as np

DECODE_S = 0.005
MODEL_S = 0.005
BATCH = 8
SHAPE = (8, 224, 224, 3)
WORDS = ("happy", "angry", "sad", "worried", "surprised", "calm")
PIECE = bytes(2**16)
FRAMES = np.random.default_rng(0).integers(0, 255, SHAPE, np.uint8)


def decode() -> np.ndarray:
    """Burn CPU like a decoder; the frames are there already."""
    until = time.thread_time() + DECODE_S
    while time.thread_time() < until:
        hashlib.sha256(PIECE)
    return FRAMES


def answer(clip_ids: Sequence[str], frames: Sequence[np.ndarray], trace: str) -> list[str]:
    """Ask the model about a batch."""
    assert len(clip_ids) == len(frames)
    assert all(clip.nbytes == FRAMES.nbytes for clip in frames)
    file = os.open(trace, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, "".join(f"{time.time():.3f} {name}\n" for name in clip_ids).encode())
    os.close(file)
    time.sleep(MODEL_S * len(clip_ids))
    return [_said(name) for name in clip_ids]


def _said(clip_id: str) -> str:
    label = WORDS[hashlib.sha256(clip_id.encode()).digest()[0] % len(WORDS)]
    said = {
        "visual_clues": ["8 frames were shown"],
        "explanation": f"A simulated model drew {label} from the clip's name.",
        "labels": [label],
    }
    return json.dumps(said)


def arguments(parser: argparse.ArgumentParser | None = None) -> argparse.Namespace:
    """Read where the manifest (Parquet), the rows and the trace lie."""
    parser = parser or argparse.ArgumentParser()
    for name in ("manifest", "out", "trace"):
        parser.add_argument(f"--{name}", required=True)
    return parser.parse_args()
