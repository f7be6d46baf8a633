"""The site: four parts, and a search that works where it is opened from a folder."""

import re
import subprocess
import sys
from importlib.util import find_spec

import pytest
from tests.docs.pages import REPOSITORY
from tests.report.browser import chromium, why_not

DOCS = REPOSITORY / "docs"
SETTINGS = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8")
ENTRY = re.compile(r"  - (?P<part>[\w -]+):|      - [^:]+: (?P<page>\S+)|  - Home: index\.md")
PARTS = {
    "Tutorials": "tutorials",
    "How-to guides": "how-to",
    "Reference": "reference",
    "Explanation": "explanation",
}


def test_every_page_stands_in_the_part_of_its_folder():
    nav = SETTINGS[SETTINGS.index("\nnav:\n") : SETTINGS.index("\nhooks:\n")]
    found, part = {}, None
    for line in nav.splitlines()[2:]:
        entry = ENTRY.fullmatch(line)
        if line:
            assert entry, line
            part = entry["part"] or part
            found.setdefault(part, []).append(entry["page"])
    del found[None]
    listed = {PARTS[name]: {page for page in pages if page} for name, pages in found.items()}
    assert listed == {
        name: {f"{name}/{path.name}" for path in (DOCS / name).glob("*.md")} for name in PARTS.values()
    }
    assert [path.name for path in DOCS.glob("*.md")] == ["index.md"]


def test_the_script_for_the_search_is_our_own():
    """The plugin for offline reading would load one from the network, unless one of this name is there."""
    script = re.search(r"polyfills:\n    - (\S+)", SETTINGS)[1]
    assert "iframe-worker" in script
    assert "http" not in script
    assert (DOCS / script).is_file()


@pytest.mark.slow
@pytest.mark.skipif(bool(why_not()), reason=why_not() or "a browser is there")
@pytest.mark.skipif(find_spec("mkdocs") is None, reason="mkdocs is not installed")
def test_the_search_works_where_the_site_is_a_folder(tmp_path):
    site = tmp_path / "site"
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)]
    subprocess.run(build, cwd=REPOSITORY, check=True, capture_output=True)
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto((site / "index.html").as_uri())
        page.locator(".md-search__input").first.fill("receipt")
        page.locator(".md-search-result__item").first.wait_for(timeout=30_000)
        assert "matching documents" in page.locator(".md-search-result__meta").inner_text()
    assert not [url for url in asked if not url.startswith(("file:", "data:", "about:", "blob:"))]
