"""Write down English speech: Moonshine tiny, an encoder and a decoder run greedily by onnxruntime.

The model was trained on English only; what it writes for another language is noise, which shows in
the low probability of its own words. It sees
stretches of speech of at most `WINDOW_S` seconds, since it was trained on short ones.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from emer_ray.perceive.runtime import session
from emer_ray.perceive.voice import Segment
from emer_ray.records import AUDIO_HZ, Pcm

FILES: Final = ("encoder_model.ort", "decoder_model_merged.ort", "tokenizer.bin")
START: Final = 1
END: Final = 2
WINDOW_S: Final = 20.0
MARGIN_S: Final = 0.2
"""Sound kept before and after speech: the detector cuts soft onsets."""
TOKENS_PER_S: Final = 6.5
"""Faster is a decoder that repeats itself (the model's authors' own limit)."""


class Recogniser:
    """Moonshine, loaded; not thread-safe."""

    def __init__(self, encoder: Path, decoder: Path, tokenizer: Path) -> None:
        self._encoder = session(encoder)
        self._decoder = session(decoder)
        self._pieces = _pieces(tokenizer.read_bytes())
        self._past = {
            i.name: (i.shape[1], i.shape[3])
            for i in self._decoder.get_inputs()
            if i.name.startswith("past_key_values")
        }
        self._present = [o.name for o in self._decoder.get_outputs()]

    def transcribe(self, pcm: Pcm, speech: Sequence[Segment]) -> tuple[str, float]:
        """Return the words of the speech segments, and the geometric mean of their probabilities.

        ("", 0) where there are none.
        """
        said: list[str] = []
        logs: list[float] = []
        for start, end in windows(speech, len(pcm) / AUDIO_HZ):
            tokens, sure = self._tokens(pcm[round(start * AUDIO_HZ) : round(end * AUDIO_HZ)])
            said.append(self._text(tokens))
            logs += sure
        text = " ".join(words for words in said if words)
        return (text, float(np.exp(np.mean(logs)))) if text else ("", 0.0)

    def _tokens(self, sound: Pcm) -> tuple[list[int], list[float]]:
        """Decode greedily; also return the log probability of each step, the end included."""
        batch = np.ascontiguousarray(sound[None], np.float32)
        everywhere = np.ones(batch.shape, np.int64)  # one mask over samples, for both networks
        hidden = self._encoder.run(None, {"input_values": batch, "attention_mask": everywhere})[0]
        past = {
            name: np.zeros((1, heads, 0, width), np.float32)
            for name, (heads, width) in self._past.items()
        }
        most = max(1, int(len(sound) / AUDIO_HZ * TOKENS_PER_S))
        tokens = [START]
        logs: list[float] = []
        while len(tokens) <= most:
            first = len(tokens) == 1
            outputs = self._decoder.run(
                None,
                {
                    "input_ids": np.array([tokens[-1:]], np.int64),
                    "encoder_attention_mask": everywhere,
                    "encoder_hidden_states": hidden,
                    "use_cache_branch": np.array([not first]),
                    **past,
                },
            )
            scores = outputs[0][0, -1].astype(np.float64)
            token = int(scores.argmax())
            logs.append(-float(np.log(np.exp(scores - scores[token]).sum())))
            if token == END:
                break
            tokens.append(token)
            past = _carried(dict(zip(self._present, outputs, strict=True)), past, first)
        return tokens[1:], logs

    def _text(self, tokens: Sequence[int]) -> str:
        text = b"".join(self._pieces[token] for token in tokens).decode(errors="replace")
        return text.replace("▁", " ").strip()


def windows(speech: Sequence[Segment], length_s: float) -> list[Segment]:
    """Join speech into windows of at most `WINDOW_S`; a longer stretch is cut evenly."""
    joined: list[Segment] = []
    for start, end in speech:
        if joined and end - joined[-1][0] <= WINDOW_S:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    out = []
    for start, end in joined:
        n = int(-(-(end - start) // WINDOW_S))
        edges = np.linspace(start, end, n + 1)
        out += [
            (max(0.0, float(a) - MARGIN_S), min(length_s, float(b) + MARGIN_S))
            for a, b in itertools.pairwise(edges)
        ]
    return out


def _carried(
    outputs: Mapping[str, np.ndarray], past: Mapping[str, np.ndarray], first: bool
) -> dict[str, np.ndarray]:
    """Take over the decoder's memory; that of the encoder is only right after the first step."""
    return {
        name: old
        if ".encoder." in name and not first
        else outputs[name.replace("past_key_values", "present")]
        for name, old in past.items()
    }


def _pieces(data: bytes) -> list[bytes]:
    """Read the token file: each piece follows its length, one byte, or two from 128 on."""
    pieces = []
    at = 0
    while at < len(data):
        length = data[at]
        at += 1
        if length >= 128:
            length = length - 128 + 128 * data[at]
            at += 1
        pieces.append(data[at : at + length])
        at += length
    return pieces
