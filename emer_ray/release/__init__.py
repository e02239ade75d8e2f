"""A relabeled corpus as something to hand on: rows keyed by the corpus's own ids, files, a card.

    rows.py     what is handed on of a clip, and whether its licence lets it go
    files.py    Hugging Face, CSV, JSONL, the MER challenges, LLaMA-Factory
    card.py     README.md: what this is, where it comes from, figures, limits, licence

Media are never among the files.
"""
