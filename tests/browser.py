"""Pages in a browser without a window, as a reader opens them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from playwright.sync_api import Browser, Locator, Page

from benchmarks.browser import READY

TIMEOUT = 5000  # milliseconds


@dataclass
class Opened:
    """A page in a browser, with what it asked the network for and what went wrong in it."""

    page: Page
    path: Path
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @classmethod
    def at(cls, page: Page, path: Path, fragment: str = "") -> Opened:
        """The page of a file, once its scripts have run."""
        opened = cls(page, path)
        page.set_default_timeout(TIMEOUT)
        page.on("request", lambda request: opened.requests.append(request.url))
        page.on("pageerror", lambda error: opened.errors.append(str(error)))
        page.on("console", lambda message: opened.errors.append(message.text))
        page.on("dialog", lambda dialog: opened.errors.append(dialog.message))
        page.goto(f"{path.as_uri()}{fragment}")
        page.locator(READY).wait_for()
        return opened

    def tab(self, name: str) -> Locator:
        """The panel of a tab, which is opened."""
        self.page.get_by_role("tab", name=name, exact=True).click()
        return self.page.get_by_role("tabpanel", name=name, exact=True)

    def table(self, panel: str, caption: str) -> Rows:
        """A table in a panel."""
        return Rows(self.tab(panel).get_by_role("table", name=caption, exact=True))


Open: TypeAlias = Callable[..., Opened]
"""Function that writes the page of a report and opens it."""


@contextmanager
def reader(browser: Browser, folder: Path) -> Iterator[Open]:
    """A function that writes the page of a report and opens it; in the end nothing has gone wrong."""
    pages: list[Opened] = []

    def open_page(
        report: Any,
        fragment: str = "",
        *,
        width: int = 1300,
        color_scheme: Literal["light", "dark"] = "light",
        bypass_csp: bool = False,
        **options: Any,
    ) -> Opened:
        path = folder / f"{len(pages)}.html"
        report.to_html(path, **options)
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=color_scheme,
            bypass_csp=bypass_csp,
        )
        pages.append(Opened.at(context.new_page(), path, fragment))
        return pages[-1]

    yield open_page
    for opened in pages:
        assert opened.errors == []
        assert {url.partition("#")[0] for url in opened.requests} == {opened.path.as_uri()}
        opened.page.context.close()


@dataclass
class Rows:
    """Rows of a table, by the names of its columns."""

    table: Locator

    def headers(self) -> list[str]:
        return self.table.locator("thead th").all_inner_texts()

    def all(self) -> list[dict[str, str]]:
        headers = self.headers()
        rows = self.table.locator("tbody tr:not(.detail)").all_inner_texts()
        return [dict(zip(headers, map(str.strip, row.split("\t")), strict=True)) for row in rows]

    def column(self, name: str) -> list[str]:
        return [row[name] for row in self.all()]

    def sort_by(self, name: str) -> str | None:
        """Click a header, and return the order that it then has."""
        self.table.get_by_role("button", name=name, exact=True).click()
        header = self.table.get_by_role("columnheader", name=name, exact=True)
        return header.get_attribute("aria-sort")
