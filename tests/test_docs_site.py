"""The built site fetches nothing from elsewhere, and the build stops where it would."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

from tests.module_files import module_at

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return module_at("docs/hooks/nothing_fetched.py", monkeypatch)


@pytest.mark.parametrize(
    ("text", "suffix"),
    [
        ('<script src="https://example.org/shim"></script>', ".html"),
        ('<script async src="//example.org/shim.js"></script>', ".html"),
        ('<link rel="preconnect" href="https://example.org">', ".html"),
        ('<link rel="shortcut icon" href="https://example.org/a.png">', ".html"),
        ('<p><img alt="" src="HTTP://example.org/a.png"></p>', ".html"),
        ('<img src="a.png" srcset="b.png 1x, https://example.org/c.png 2x">', ".html"),
        ('<iframe src="https://example.org/"></iframe>', ".html"),
        ('<i style="background: url(https://example.org/a.png)"></i>', ".html"),
        ("<style>@import 'https://example.org/a.css';</style>", ".html"),
        ('@font-face { src: url("https://example.org/a.woff") }', ".css"),
    ],
)
def test_what_a_page_fetches_is_found(hook: ModuleType, text: str, suffix: str) -> None:
    assert len(hook.fetched(text, suffix)) == 1


@pytest.mark.parametrize(
    ("text", "suffix"),
    [
        ('<a href="https://example.org">text</a><link rel="canonical" href="https://example.org/">', ".html"),
        ('<script src="a.js"></script><link rel="stylesheet" href="site.css"><img src="data:image/png;base64,//8=">', ".html"),
        ("<style>a { color: red }</style><p>url(https://example.org)</p><code>&lt;script src=https://a&gt;</code>", ".html"),
        ("/* https://example.org */ a { background: url(a.svg) }", ".css"),
    ],
)
def test_links_and_own_files_are_not_fetched_from_elsewhere(hook: ModuleType, text: str, suffix: str) -> None:
    assert hook.fetched(text, suffix) == []


def test_the_build_stops_at_such_a_page(hook: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exceptions = ModuleType("mkdocs.exceptions")
    exceptions.PluginError = type("PluginError", (Exception,), {})
    monkeypatch.setitem(sys.modules, "mkdocs", ModuleType("mkdocs"))
    monkeypatch.setitem(sys.modules, "mkdocs.exceptions", exceptions)
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text('<script src="iframe-worker.js"></script>')
    (tmp_path / "assets/a.css").write_text("a { color: red }")
    hook.on_post_build(config={"site_dir": str(tmp_path)})
    (tmp_path / "faq.html").write_text('<script src="https://example.org/shim"></script>')
    with pytest.raises(exceptions.PluginError, match=r"faq.html fetches https://example.org/shim"):
        hook.on_post_build(config={"site_dir": str(tmp_path)})


def test_search_has_a_worker_of_its_own() -> None:
    """The offline plugin names one elsewhere unless a polyfill's name has "iframe-worker" in it."""
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "polyfills: [iframe-worker.js]" in settings and "hooks: [docs/hooks/nothing_fetched.py]" in settings
    assert 'location.protocol === "file:"' in (ROOT / "docs/iframe-worker.js").read_text(encoding="utf-8")


def test_the_picture_of_the_method_is_readable_on_a_phone() -> None:
    """At 420 pixels the text column has 388: the smallest letters are still 10 high; and what E made of a view reaches M."""
    text = (ROOT / "docs/method.svg").read_text(encoding="utf-8")
    width = float(ElementTree.fromstring(text).attrib["width"])
    assert min(float(size) for size in re.findall(r"font-size[:=]\"?(\d+)", text)) * min(1.0, 388 / width) >= 10
    assert text.count(">E</text>") == 2 and "f of the new view" in text
