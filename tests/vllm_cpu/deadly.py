"""A logits processor that ends its engine's process when a prompt holds the poisoned word.

vLLM loads it inside the engine (`engine_args.logits_processors`), so what dies is the real thing,
and always on the same clip.
"""

import os
from typing import Any

from vllm.v1.sample.logits_processor import LogitsProcessor

LETTERS = "zqzqzqzqzq"


class Deadly(LogitsProcessor):
    """Changes nothing, or ends everything."""

    def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None:
        from transformers import AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(vllm_config.model_config.model)

    def is_argmax_invariant(self) -> bool:
        return True

    def update_state(self, batch_update: Any) -> None:
        for _, _, prompt, _ in batch_update.added if batch_update else ():
            if LETTERS in self._tokenizer.decode(prompt or []):
                os._exit(1)

    def apply(self, logits: Any) -> Any:
        return logits
