"""Text of unknown origin made harmless to whoever shows it: spreadsheets, Markdown, terminals.

What a model said and what a subtitle holds is data. `=HYPERLINK(…)` must not run in a spreadsheet,
`<script>` not in a page, and a mark that turns the direction of writing must not hide words.
"""

import re
import unicodedata
from typing import Final

_FORMULA = re.compile(r"^[=+\-@\t\r]")
_NAME_OR_NUMBER = re.compile(r"[+-][\w.\-+]*")
"""A cell like -3g5yACwYnA_1 or -0.5 begins like a formula and can call nothing."""
_TURNING: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")
_MARKDOWN = re.compile(r"[\\`*_{}\[\]|~<>&$@]|(?<=www)\.|:(?=//)|^[-+#]", re.IGNORECASE)
"""What forms Markdown inside a line or at its start, and what becomes a link by itself."""


def plain(text: str) -> str:
    """Turn control characters into spaces, and make visible what would turn the writing."""
    return "".join(_shown(letter) for letter in text).strip()


def _shown(letter: str) -> str:
    if letter in _TURNING:
        return "�"
    match unicodedata.category(letter):
        case "Cc" | "Zl" | "Zp":
            return " "
        case "Cs" | "Co" | "Cn":
            return "�"
    return letter


_JOINERS: Final = "\u200c\u200d"
"""Some scripts, and emoji, need them; they turn nothing."""
_BREAKS = re.compile("\r\n?|[\u2028\u2029\x85]")


def visible(text: str) -> str:
    """Keep text as it is, line ends included, and show by its number what cannot be seen."""
    return "".join(
        letter
        if letter in "\n\t" + _JOINERS
        or unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Co", "Cn")
        else f"⟨{ord(letter):04X}⟩"
        for letter in _BREAKS.sub("\n", text)
    )


def csv_cell(text: str) -> str:
    """Put an apostrophe before what a spreadsheet program would take for a formula."""
    risky = _FORMULA.match(text) and not _NAME_OR_NUMBER.fullmatch(text)
    return f"'{text}" if risky else text


def from_csv_cell(text: str) -> str:
    """Take the apostrophe off again."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text[1:2]) else text


def markdown(text: str) -> str:
    """Write text so that Markdown and the HTML in it show its letters and nothing else."""
    entities = {"<": "&lt;", ">": "&gt;", "&": "&amp;", "|": "&#124;"}
    return _MARKDOWN.sub(lambda sign: entities.get(sign[0], f"\\{sign[0]}"), plain(text))
