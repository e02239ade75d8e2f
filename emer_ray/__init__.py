"""Explainable multimodal emotion reasoning for whole corpora, as a batch job on Ray."""

__version__ = "0.1.0"
