"""Perception with small models: faces, expression, voice and words of a decoded clip become
measures."""

from emer_ray.perceive.perceiver import Perceiver

__all__ = ["Perceiver"]
