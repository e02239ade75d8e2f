"""Settings that go with the tiny models; imports no torch, so that every test may."""

SMALL = {"videos_kwargs": {"size": {"shortest_edge": 56 * 56, "longest_edge": 8 * 112**2}}}
"""For `models.<name>.options.processor`: the processors' own sizes make long prompts."""
