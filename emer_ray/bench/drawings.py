"""Drawings of kept results: SVG files with colours of their own, on white, for Markdown."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import vl_convert

VEGA_LITE: Final = "v6_4"
INK, OURS, THEIRS, RULE = "#1f2933", "#1f6f8b", "#b8c4cc", "#e1e6ea"

_CONFIG: Final[Mapping[str, Any]] = {
    "background": "white",
    "padding": 12,
    "font": "sans-serif",
    "view": {"stroke": None},
    "title": {"color": INK, "fontSize": 14, "anchor": "start", "fontWeight": "normal"},
    "axis": {
        **{"labelColor": INK, "titleColor": INK, "titleFontWeight": "normal", "ticks": False},
        **{"labelFontSize": 12, "titleFontSize": 12, "domain": False, "gridColor": RULE},
        **{"labelPadding": 6, "labelLimit": 200},
    },
    "header": {"labelColor": INK, "labelFontSize": 12, "titleFontSize": 12},
    "text": {"color": INK, "fontSize": 12},
}


def panels(
    title: str, shown: Sequence[tuple[str, Sequence[tuple[str, float]]]], first: str
) -> dict[str, Any]:
    """Specify bars of (head, (name, value)…) side by side; the name `first` stands out."""
    return _with_title(title) | {
        "hconcat": [
            {
                "title": {"text": head, "fontSize": 12, "offset": 4},
                "data": {"values": [{"name": name, "value": value} for name, value in bars]},
                "width": 130,
                "height": {"step": 24},
                "encoding": {
                    "y": {
                        **{"field": "name", "type": "nominal", "sort": None, "title": None},
                        "axis": {"grid": False} if number == 0 else None,
                    },
                    "x": {
                        **{"field": "value", "type": "quantitative", "axis": None},
                        "scale": {"domain": [0, 1.3 * max(1.0, *(value for _, value in bars))]},
                    },
                },
                "layer": [
                    {
                        "mark": {"type": "bar", "height": 15, "cornerRadiusEnd": 2},
                        "encoding": {
                            "color": {
                                "condition": {"test": f"datum.name === '{first}'", "value": OURS},
                                "value": THEIRS,
                            }
                        },
                    },
                    {
                        "mark": {"type": "text", "align": "left", "dx": 5},
                        "encoding": {"text": {"field": "value", "format": ",.4~r"}},
                    },
                ],
            }
            for number, (head, bars) in enumerate(shown)
        ]
    }


def history(title: str, points: Sequence[tuple[str, str, float]]) -> dict[str, Any]:
    """Specify (name, time, share of its goal) as a row of points per name, beside a line at 1."""
    values = [{"name": name, "at": at, "value": value} for name, at, value in points]
    x = {
        "type": "quantitative",
        "title": "share of the goal that is reached",
        "scale": {"type": "log"},
    }
    return _with_title(title) | {
        "data": {"values": values},
        "width": 420,
        "height": {"step": 28},
        "encoding": {"y": {"field": "name", "type": "nominal", "sort": None, "title": None}},
        "layer": [
            {
                "mark": {"type": "rule", "color": INK, "strokeDash": [4, 3]},
                "encoding": {"x": {"datum": 1}, "y": None},
            },
            {
                "transform": [
                    {
                        "window": [{"op": "row_number", "as": "turn"}],
                        "groupby": ["name"],
                        "sort": [{"field": "at", "order": "descending"}],
                    }
                ],
                "mark": {"type": "point", "filled": True, "size": 80, "opacity": 1},
                "encoding": {
                    "x": {"field": "value", **x},
                    "color": {
                        "condition": {"test": "datum.turn === 1", "value": OURS},
                        "value": THEIRS,
                    },
                },
            },
        ],
    }


def draw(spec: Mapping[str, Any], file: Path) -> None:
    """Write an SVG whose first line tells from what it was drawn; one that is there stays.

    No two drawings of one specification are equal, in names of their parts and in widths of fonts.
    """
    if not (file.exists() and file.read_text(encoding="utf-8").startswith(mark(spec))):
        drawn: str = vl_convert.vegalite_to_svg(dict(spec), vl_version=VEGA_LITE)
        file.write_text(f"{mark(spec)}\n{drawn}\n", encoding="utf-8")


def mark(spec: Mapping[str, Any]) -> str:
    """Name a specification by its hash, in a comment."""
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()
    return f"<!-- {digest[:16]} -->"


def _with_title(title: str) -> dict[str, Any]:
    return {"title": title, "config": _CONFIG}
