"""Human rounds: what is given to annotators, how a sheet holds their judgements, what they make of
it together.

    items.py       a clip's clues, explanation and labels as things to judge, and who judges them
    sheets.py      judgements as a spreadsheet, CSV, JSONL or Parquet file, and back
    merging.py     many annotators' judgements to one account of a clip, and where they are at odds
    agreement.py   Krippendorff's alpha for sets of labels and for verdicts

docs/review.md is the description for people.
"""
