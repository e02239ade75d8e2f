"""Scores: label sets, wheels, fixed labels, valence, text overlap, ranking, and what holds them
together.

Every metric is a set of per-clip columns that can be added up and a function from the sums to a
value, so any order or sharding of clips gives the same number. Nothing here knows of models, media
or Ray.
"""
