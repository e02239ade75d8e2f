"""A request as one text in a checkpoint's own words: its chat template with its placeholders."""

from typing import Any

from emer_ray.records import Request

KINDS = {"text": "text", "frames": "video", "audio": "audio"}


def chat(processor: Any, request: Request) -> str:
    """Write system and user turns as the template of a processor, or of a tokenizer, wants them."""
    takes_media = getattr(processor, "tokenizer", processor) is not processor
    user: Any = [
        {"type": KINDS[part.kind], **({"text": part.text} if part.kind == "text" else {})}
        for part in request.parts
    ]
    if not takes_media:  # takes text only, and its template wants a string
        user = "\n\n".join(part.text for part in request.parts if part.kind == "text")
    said: Any = [{"role": "user", "content": user}]
    if request.system:
        system: Any = request.system
        if takes_media:
            system = [{"type": "text", "text": request.system}]
        said.insert(0, {"role": "system", "content": system})
    text: str = processor.apply_chat_template(said, add_generation_prompt=True, tokenize=False)
    return text
