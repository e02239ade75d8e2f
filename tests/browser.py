"""A real browser for tests of pages: Debian's Chromium, driven by Playwright.

`chromium()` runs it; `visiting` opens a fresh window (no cookies, no storage) that writes down
every complaint of the page and every request that it makes. `make test` installs both where it may;
where it may not, these tests are skipped with what to type.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
INLINE = ("data:", "blob:", "about:")


@dataclass
class Visit:
    """A window and what happened in it."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    """Errors and warnings of the console, refused by the content security policy included, and
    exceptions that nobody caught."""
    requests: list[str] = field(default_factory=list)
    """Every address that was asked for, but for those that a page carries inside itself."""
    dialogs: list[str] = field(default_factory=list)
    """What `alert` and its like said: proof that somebody's script ran."""


@contextmanager
def chromium() -> Iterator[Any]:
    """Run the browser without a window; skips the test where there is none."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="needs Playwright: pip install 'emer-ray[browser]'"
    )
    program = os.environ.get("EMER_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("needs Chromium: apt-get install chromium, or set EMER_CHROMIUM to its path")
    # root has no sandbox, and containers have a small /dev/shm
    arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
    with playwright.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=program, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visiting(browser: Any, **options: Any) -> Iterator[Visit]:
    """Open a window; `options` are those of a Playwright context (viewport, color_scheme, …)."""
    context = browser.new_context(**options)
    visit = Visit(context.new_page())

    def hear(message: Any) -> None:
        if message.type in ("error", "warning"):
            visit.complaints.append(message.text)

    def ask(request: Any) -> None:
        if not request.url.startswith(INLINE):
            visit.requests.append(request.url)

    def answer(dialog: Any) -> None:
        visit.dialogs.append(dialog.message)
        dialog.dismiss()

    visit.page.on("console", hear)
    visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
    visit.page.on("dialog", answer)
    context.on("request", ask)
    try:
        yield visit
    finally:
        context.close()
