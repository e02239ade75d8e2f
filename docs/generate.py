"""Write the generated parts of the README: the data contract and the command reference.

    python docs/generate.py            rewrite README.md
    python docs/generate.py --check    exit 1 when it is not what would be written

A part lies between `<!-- begin NAME -->` and `<!-- end NAME -->`.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from emer_ray import cli, schema
from emer_ray.errors import FAILURE_KINDS

README = Path(__file__).parents[1] / "README.md"

TABLES = {
    "manifest": schema.RUN_MANIFEST,
    "explanations": schema.EXPLANATIONS,
    "failures": schema.FAILURES,
    "index": schema.INDEX,
}


def data_contract() -> str:
    """Every stored column: its type, the tables it is in, and what it means."""
    lines = ["| column | type | in | meaning |", "|---|---|---|---|"]
    for name, kind, tables, doc in schema.documentation(TABLES):
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


def help_of(words: str, command: click.Command) -> str:
    """A command's help as it prints it, 80 columns wide."""
    context = None
    for word in words.split():
        context = click.Context(
            command,
            info_name=word,
            parent=context,
            terminal_width=80,
            max_content_width=80,
            help_option_names=["-h", "--help"],  # as the group hands down to every command
        )
    assert context is not None
    return command.get_help(context)


def command_reference() -> str:
    """What each command's `--help` prints."""
    parts = []
    for words, command in commands():
        parts.append(f"<details><summary><code>{words}</code></summary>\n")
        parts.append(f"```text\n{help_of(words, command)}\n```\n\n</details>")
    return "\n".join(parts)


def generated(text: str) -> str:
    """Put the generated parts into a README's text."""
    for name, part in (
        ("data contract", data_contract()),
        ("failure kinds", failure_kinds()),
        ("command reference", command_reference()),
    ):
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
        assert pattern.search(text), f"README.md has no part {name!r}"
        text = pattern.sub(lambda _, part=part, b=begin, e=end: f"{b}\n{part}\n{e}", text)
    return text


if __name__ == "__main__":
    old = README.read_text(encoding="utf-8")
    new = generated(old)
    if "--check" in sys.argv[1:]:
        sys.exit(
            0 if old == new else "README.md is not what docs/generate.py writes; run `make docs`"
        )
    README.write_text(new, encoding="utf-8")
