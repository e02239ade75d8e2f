"""Scores given by a language model, as a Ray Data job over questions.

    questions   what is asked, what an answer is worth; asks nobody
    answers     what was answered before, and what it would cost to ask the rest
    job         asks, through the project's own model backends

A score is a pure function of the two tables and the kept answers, so scoring again asks nothing.
"""
