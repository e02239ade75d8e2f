"""From plain data to one HTML file that needs nothing else.

Whatever comes from data is escaped, and its control and direction marks are made visible: a
subtitle is text and nothing more. The content security policy allows this page's own style and
script by their hashes, pictures and sound inside the file, and nothing else, so that no request can
leave it.
"""

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from emer_ray import inert


def render(values: Mapping[str, Any]) -> str:
    """Fill the template; style and script are the files beside it."""
    style, script = _asset("page.css"), _asset("page.js")
    policy = (
        f"default-src 'none'; img-src data:; media-src data:; style-src '{_hash(style)}'; "
        f"script-src '{_hash(script)}'; base-uri 'none'; form-action 'none'"
    )
    page = _environment().get_template("page.html.j2")
    return page.render(
        **values,
        policy=Markup(policy),  # noqa: S704 - made of our own words and hashes
        style=Markup(style),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704 - our own file
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("emer_ray.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_final,
    )
    environment.filters |= {"thousands": thousands, "duration": duration, "figure": figure}
    return environment


def _final(value: Any) -> Any:
    """Everything the template prints comes by here; only what is markup already stays as it is."""
    return (
        value if isinstance(value, Markup) else inert.visible("" if value is None else str(value))
    )


def thousands(value: int | float) -> str:
    """Write a count: 12,345."""
    return f"{value:,.0f}"


def figure(value: float | None, digits: int = 3) -> str:
    """Write a number shortly; null is a dash, never a zero."""
    return "—" if value is None else f"{value:.{digits}f}"


def duration(seconds: float | None) -> str:
    """Write a stretch of time the way people say it."""
    if seconds is None:
        return "—"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _asset(name: str) -> str:
    return (files("emer_ray.report") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
