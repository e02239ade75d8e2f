"""Write the generated parts of the pages: data contract, command reference, measures, weights.

    python docs/generate.py            rewrite the pages
    python docs/generate.py --check    exit 1 when a page is not what would be written

A part lies between `<!-- begin NAME -->` and `<!-- end NAME -->`.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import click
import pyarrow as pa

from emer_ray import cli, schema, weights
from emer_ray.errors import FAILURE_KINDS
from emer_ray.perceive.measures import MEASURES

ROOT = Path(__file__).parents[1]

TABLES = {
    "manifest": schema.RUN_MANIFEST,
    "explanations": schema.EXPLANATIONS,
    "failures": schema.FAILURES,
    "index": schema.INDEX,
    "audit": schema.AUDIT,
    "comparison": schema.COMPARISON,
}


REVIEW_TABLES = {
    "items": schema.REVIEW_ITEMS,
    "sheets, marks": schema.MARKS,
    "merged": schema.REVIEWED,
    "conflicts": schema.CONFLICTS,
}


def review_columns() -> str:
    """Every column of a review round."""
    return columns_of(REVIEW_TABLES)


def data_contract() -> str:
    """Every stored column: its type, the tables it is in, and what it means."""
    return columns_of(TABLES)


def columns_of(described: Mapping[str, pa.Schema]) -> str:
    """A table of columns: type, tables they are in, meaning."""
    lines = ["| column | type | in | meaning |", "|---|---|---|---|"]
    for name, kind, tables, doc in schema.documentation(described):
        lines.append(f"| `{name}` | {kind.replace('|', chr(92) + '|')} | {tables} | {doc} |")
    return "\n".join(lines)


def failure_kinds() -> str:
    """The closed set."""
    lines = ["| kind | meaning |", "|---|---|"]
    return "\n".join(
        lines + [f"| `{kind}` | {meaning} |" for kind, meaning in FAILURE_KINDS.items()]
    )


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command with its words, groups included."""

    def below(words: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
        yield words, command
        if isinstance(command, click.Group):
            for name, child in command.commands.items():
                yield from below(f"{words} {name}", child)

    yield from below("emer", cli.main)


def help_of(words: str) -> str:
    """A command's help as it prints it, 80 columns wide."""
    width = {"terminal_width": 80, "max_content_width": 80}
    first, *rest = words.split()
    context = cli.main.make_context(first, [], resilient_parsing=True, **width)
    for word in rest:
        assert isinstance(context.command, click.Group)
        child = context.command.commands[word]
        context = child.make_context(word, [], parent=context, resilient_parsing=True, **width)
    return context.get_help()


def command_reference() -> str:
    """What each command's `--help` prints."""
    parts = []
    for words, _ in commands():
        parts.append(f"<details><summary><code>{words}</code></summary>\n")
        parts.append(f"```text\n{help_of(words)}\n```\n\n</details>")
    return "\n".join(parts)


def measures() -> str:
    """Every number that the embedded perception reads off a clip."""
    lines = ["| measure | unit | meaning |", "|---|---|---|"]
    return "\n".join(lines + [f"| `{n}` | {unit} | {doc} |" for n, (unit, doc) in MEASURES.items()])


def embedded_weights() -> str:
    """Every package that the embedded weights are taken out of."""
    lines = [
        "| package | files, with their licences | lost without it | remarks |",
        "|---|---|---|---|",
    ]
    for source in weights.sources("embedded"):
        package = (
            f"{source.package} {source.version} ({source.registry}, {source.size / 1e6:.1f} MB)"
        )
        files = ", ".join(f"`{file.name}` ({file.licence})" for file in source.files)
        lines.append(f"| {package} | {files} | {source.gives} | {source.note} |")
    return "\n".join(lines)


PAGES: dict[Path, dict[str, Callable[[], str]]] = {
    ROOT / "README.md": {
        "data contract": data_contract,
        "failure kinds": failure_kinds,
        "command reference": command_reference,
    },
    ROOT / "docs" / "review.md": {"review columns": review_columns},
    ROOT / "docs" / "embedded.md": {"measures": measures, "weights": embedded_weights},
}


def generated(page: Path) -> str:
    """A page's text with its generated parts as they should be."""
    text = page.read_text(encoding="utf-8")
    for name, part in PAGES[page].items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        head, rest = text.split(begin)
        text = f"{head}{begin}\n{part()}\n{end}{rest.split(end)[1]}"
    return text


if __name__ == "__main__":
    for path in PAGES:
        new = generated(path)
        if "--check" in sys.argv[1:] and path.read_text(encoding="utf-8") != new:
            sys.exit(f"{path.name} is not what docs/generate.py writes; run `make docs`")
        path.write_text(new, encoding="utf-8")
