"""What is handed on of a clip, and whether its licence lets it go.

Old labels stay with the corpus: whoever has it joins them by `clip_id`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from emer_ray import schema
from emer_ray.errors import ConfigError

Row = dict[str, Any]

GATED: Final = "gated:"

SENSES: Final = ("visual", "acoustic", "lexical")

_WORDS: Final = pa.list_(pa.field("item", pa.string(), nullable=False))

RELEASED: Final = pa.schema(
    [
        schema.CLIP_ID,
        schema.CORPUS,
        schema.SPLIT,
        pa.field("labels", _WORDS, nullable=False),
        pa.field("supports", pa.list_(pa.float64()), nullable=False),
        schema.EXPLANATION,
        *(pa.field(f"{sense}_clues", _WORDS, nullable=False) for sense in SENSES),
        schema.CONFIDENCE,
        schema.SUBTITLE,
        schema.SUBTITLE_SOURCE,
        pa.field("one_hot", pa.string()),
        pa.field("ranking", _WORDS),
        pa.field("valence", pa.float64()),
        pa.field("sentiment", pa.string()),
        schema.LICENCE_TAG,
        schema.COMPOSITE,
    ]
)
"""A clip as it is handed on: plainer than a run's own tables, lists of words without evidence.
`supports` are those of `labels`, in their order; the projections are null where nobody asked."""


def row(found: Mapping[str, Any], listed: Mapping[str, Any], said: Mapping[str, Any]) -> Row:
    """Build a row of `RELEASED` from a row of `explanations/`.

    `listed` is the clip's row of the manifest, `said` what projections of the recipe answered.
    """
    return {
        "clip_id": found["clip_id"],
        "corpus": listed.get("corpus"),
        "split": listed.get("split"),
        "labels": [label["label"] for label in found["labels"]],
        "supports": [label["support"] for label in found["labels"]],
        "explanation": found["explanation"],
        **{f"{s}_clues": [clue["text"] for clue in found[f"{s}_clues"]] for s in SENSES},
        "confidence": found["confidence"],
        "subtitle": found["subtitle"],
        "subtitle_source": found["subtitle_source"],
        **{name: said.get(name) for name in ("one_hot", "ranking", "valence", "sentiment")},
        "licence_tag": found["licence_tag"],
        "composite": found["composite"],
    }


def refuse_gated(run: str, tags: Sequence[str | None], have_the_right: bool) -> None:
    """Refuse to hand on what stands under an agreement; raises ConfigError with the reason."""
    gated = Counter(tag for tag in tags if tag and tag.startswith(GATED))
    if not gated or have_the_right:
        return
    which = ", ".join(f"{n} of {tag.removeprefix(GATED)}" for tag, n in gated.most_common())
    raise ConfigError(
        f"{run}: {sum(gated.values())} clips stand under an agreement with the corpus's owner "
        f"({which}). Such agreements forbid to pass on the data, and often labels and texts made "
        f"from them as well, so nothing was written. Add --i-have-the-right if the owner allows "
        f"it, or if the files stay with those who signed"
    )
