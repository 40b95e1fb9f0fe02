"""The site fetches nothing: the build stops when a page or style sheet names a script, style, picture or font elsewhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

FETCHED_LINKS = {"stylesheet", "icon", "preload", "prefetch", "preconnect", "dns-prefetch", "modulepreload", "manifest"}
ELSEWHERE = re.compile(r"\s*(https?:)?//", re.IGNORECASE)
IN_STYLES = re.compile(r"""(?:url\(\s*|@import\s+)["']?((?:https?:)?//[^\s"')]+)""", re.IGNORECASE)


class _Fetched(HTMLParser):
    """Addresses elsewhere that a browser asks for when it opens the page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.in_style = tag == "style"
        asked = [values.get(name, "") for name in ("src", "poster", "data")] + values.get("srcset", "").split(",")
        if tag == "link" and FETCHED_LINKS & set(values.get("rel", "").lower().split()):
            asked.append(values.get("href", ""))
        self.addresses += [address.strip() for address in asked if ELSEWHERE.match(address)]
        self.addresses += IN_STYLES.findall(values.get("style", ""))

    def handle_data(self, data: str) -> None:
        if self.in_style:
            self.addresses += IN_STYLES.findall(data)


def fetched(text: str, suffix: str) -> list[str]:
    """What a page (.html) or a style sheet (.css) fetches from elsewhere."""
    if suffix == ".css":
        return IN_STYLES.findall(text)
    page = _Fetched()
    page.feed(text)
    return page.addresses


def fetched_by_site(folder: Path) -> dict[str, list[str]]:
    """File -> what it fetches from elsewhere, for the files of a built site that fetch something."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".html", ".css"))
    found = {str(path.relative_to(folder)): fetched(path.read_text(encoding="utf-8"), path.suffix) for path in files}
    return {name: addresses for name, addresses in found.items() if addresses}


def on_post_build(*, config: dict[str, object], **_: object) -> None:
    """Called by mkdocs when the site stands."""
    from mkdocs.exceptions import PluginError

    found = fetched_by_site(Path(str(config["site_dir"])))
    if found:
        name, addresses = next(iter(found.items()))
        raise PluginError(f"{name} fetches {addresses[0]} when it opens, and {len(found) - 1} other files fetch something")
