"""Plots: Vega-Lite specifications drawn to SVG by vl-convert, each with its n and its table.

Colours are variables of the page's style sheet, so that one drawing serves light and dark; what is
drawn is named in words and printed as numbers, so that colour never speaks alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import vl_convert
from markupsafe import Markup

from emer_ray import inert

INK, FAINT, MAIN = "var(--ink)", "var(--rule)", "var(--bar)"
VEGA_LITE: Final = "v6_4"

_CONFIG: Final[Mapping[str, Any]] = {
    "background": None,
    "font": "sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": INK,
        "titleColor": INK,
        "titleFontWeight": "normal",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "domain": False,
        "ticks": False,
        "gridColor": FAINT,
        "labelPadding": 6,
        "labelLimit": 150,
    },
    "text": {"color": INK, "fontSize": 12},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A drawing, what it rests on, and the same as a table."""

    title: str
    n: int
    unit: str
    """What is counted in n."""
    svg: Markup
    head: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    says: str = ""
    """How to read it, one sentence."""


def bars(
    title: str,
    counts: Sequence[tuple[str, int]],
    *,
    n: int,
    unit: str,
    what: str,
    says: str = "",
    width: int = 300,
) -> Plot:
    """Draw horizontal bars with their counts, in the order given."""
    values = [{"what": name, "count": count} for name, count in counts]
    y = {"field": "what", "type": "nominal", "sort": None, "title": None}
    spec = {
        "data": {"values": values},
        "width": width,
        "height": {"step": 22},
        "encoding": {"y": {**y, "axis": {"grid": False}}},
        "layer": [
            {
                "mark": {"type": "bar", "color": MAIN, "height": 13, "cornerRadiusEnd": 2},
                "encoding": {"x": _count_axis(counts)},
            },
            {
                "mark": {"type": "text", "align": "left", "dx": 5},
                "encoding": {
                    "x": {"field": "count", "type": "quantitative"},
                    "text": {"field": "count", "format": ",d"},
                },
            },
        ],
    }
    return Plot(
        title=title,
        n=n,
        unit=unit,
        svg=_draw(spec, title),
        head=(what, unit),
        rows=tuple(counts),
        says=says,
    )


def columns(
    title: str, counts: Sequence[tuple[str, int]], *, n: int, unit: str, what: str, says: str = ""
) -> Plot:
    """Draw a histogram whose bins are named, in the order given."""
    values = [{"what": name, "count": count} for name, count in counts]
    step = max(34, 10 + 8 * max((len(f"{count:,}") for _, count in counts), default=0))
    x = {"field": "what", "type": "ordinal", "sort": None, "title": what}
    spec = {
        "data": {"values": values},
        "width": {"step": step},
        "height": 150,
        "encoding": {"x": {**x, "axis": {"labelAngle": 0}}},
        "layer": [
            {
                "mark": {"type": "bar", "color": MAIN, "width": 24, "cornerRadiusEnd": 2},
                "encoding": {"y": {**_count_axis(counts), "axis": None}},
            },
            {
                "mark": {"type": "text", "baseline": "bottom", "dy": -4},
                "encoding": {
                    "y": {"field": "count", "type": "quantitative"},
                    "text": {"field": "count", "format": ",d"},
                },
            },
        ],
    }
    return Plot(
        title=title,
        n=n,
        unit=unit,
        svg=_draw(spec, title),
        head=(what, unit),
        rows=tuple(counts),
        says=says,
    )


def heat(
    title: str,
    cells: Sequence[tuple[str, str, int, float]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    n: int,
    unit: str,
    what: tuple[str, str],
    says: str = "",
) -> Plot:
    """Draw a table of (row, column, count, shade 0 to 1): the shade is behind the printed count."""
    values = [{"row": a, "column": b, "count": c, "shade": s} for a, b, c, s in cells]
    shade = {"field": "shade", "type": "quantitative", "legend": None}
    spec = {
        "data": {"values": values},
        "width": {"step": 46},
        "height": {"step": 26},
        "encoding": {
            "y": {"field": "row", "type": "nominal", "sort": list(rows), "title": None},
            "x": {
                "field": "column",
                "type": "nominal",
                "sort": list(columns),
                "title": None,
                "axis": {"labelAngle": -40, "orient": "top", "labelLimit": 120},
            },
        },
        "layer": [
            {
                "mark": {"type": "rect", "color": MAIN, "cornerRadius": 2},
                "encoding": {
                    "opacity": {**shade, "scale": {"domain": [0, 1], "range": [0.04, 0.62]}}
                },
            },
            {
                "transform": [{"filter": "datum.count > 0"}],
                "mark": {"type": "text", "fontSize": 11},
                "encoding": {"text": {"field": "count", "format": ",d"}},
            },
        ],
    }
    return Plot(
        title=title,
        n=n,
        unit=unit,
        svg=_draw(spec, title),
        head=(*what, unit),
        rows=tuple((a, b, c) for a, b, c, _ in cells if c),
        says=says,
    )


def intervals(
    title: str,
    values: Sequence[tuple[str, float, float | None, float | None, int]],
    *,
    n: int,
    unit: str,
    says: str = "",
) -> Plot:
    """Draw (name, value, low, high, n) as points with their intervals."""
    data = [
        {"what": name, "value": value, "low": low, "high": high}
        for name, value, low, high, _ in values
    ]
    x = {"type": "quantitative", "title": None, "axis": {"tickCount": 5}}
    spec = {
        "data": {"values": data},
        "width": 420,
        "height": {"step": 22},
        "encoding": {"y": {"field": "what", "type": "nominal", "sort": None, "title": None}},
        "layer": [
            {
                "transform": [{"filter": "datum.low !== null && datum.high !== null"}],
                "mark": {"type": "rule", "color": MAIN, "strokeWidth": 3, "opacity": 0.45},
                "encoding": {"x": {"field": "low", **x}, "x2": {"field": "high"}},
            },
            {
                "mark": {"type": "point", "color": MAIN, "filled": True, "size": 70, "opacity": 1},
                "encoding": {"x": {"field": "value", **x}},
            },
        ],
    }
    return Plot(
        title=title,
        n=n,
        unit=unit,
        svg=_draw(spec, title),
        head=("metric", "value", "low", "high", unit),
        rows=tuple(values),
        says=says,
    )


def _count_axis(counts: Sequence[tuple[str, int]]) -> dict[str, Any]:
    most = max((count for _, count in counts), default=0)
    return {
        "field": "count",
        "type": "quantitative",
        "axis": None,
        "scale": {"domain": [0, max(1, most) * 1.12]},
    }


def _draw(spec: Mapping[str, Any], title: str) -> Markup:
    """Draw a specification. The drawing is one picture to a screen reader: its table says more."""
    svg: str = vl_convert.vegalite_to_svg({**spec, "config": _CONFIG}, vl_version=VEGA_LITE)
    head, rest = inert.visible(svg).split(">", 1)
    label = Markup.escape(f"{title}; the numbers are in the table below")
    return Markup(f'{head} role="img" aria-label="{label}" focusable="false">{rest}')  # noqa: S704
