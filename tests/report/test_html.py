import base64
import hashlib
import json
import os
from html.parser import HTMLParser

import numpy as np
import pytest

from lsi.errors import InputError, OutputError
from lsi.report import assets, build_page, check_report, html, write_report

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "[red]x[/red] {{ 7*7 }} {% raw %}",
    "\x1b[31mred\u202egnp\x00",
    "' onload='alert(1)",
    "</script><script>alert(1)</script><!--",
    "javascript:alert(1)",
    "日本語 עברית",
)


class Page(HTMLParser):
    """Collects what a browser would act on."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text, self.scripts = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "script":
            self.scripts.append("")

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)

    def handle_data(self, data):
        if self.tags[-1:] == ["script"] and self.inside_script():
            self.scripts[-1] += data
        else:
            self.text.append(data)

    def inside_script(self):
        return self.cdata_elem == "script"


@pytest.mark.parametrize("images", [True, False, None])
def test_hostile_text_stays_text(make_scores, make_samples, images):
    ids = [f"{HOSTILE[k % len(HOSTILE)]} {k}" for k in range(60)]
    source = {"kind": "file", "name": HOSTILE[0], "description": HOSTILE[1]}
    scores = make_scores(labels=HOSTILE, ids=ids, planted=6, source=source)
    samples = None if images is None else make_samples(scores, images=images, name=HOSTILE[0])
    text = build_page(scores, samples)
    page = Page(text)
    assert page.tags.count("script") == 2
    assert "<script>" not in text
    assert json.loads(page.scripts[0])["n"] == 60
    assert page.scripts[1] == assets.script()
    assert not [value for name, value in page.attributes if name == "href" and not value.startswith("#")]
    assert page.tags.count("img") == (48 if images else 0)
    assert [name for name, _ in page.attributes if name.startswith("on")] == []
    assert "<script>alert(1)</script>" in "".join(page.text)
    assert "[red]x[/red] {{ 7*7 }} {% raw %}" in "".join(page.text)
    assert not set("\x1b\x00\u202e") & set(text)


@pytest.mark.parametrize("planted", [0, 6])
def test_the_page_needs_no_network(make_scores, make_samples, planted):
    scores = make_scores(planted=planted)
    page = Page(build_page(scores, make_samples(scores)))
    loaded = [value for name, value in page.attributes if name in ("src", "href", "srcset", "data", "poster")]
    assert all(value.startswith(("data:image/", "#")) for value in loaded)
    assert "link" not in page.tags
    text = "".join(page.text)
    assert "@import" not in text
    assert "url(" not in text


def test_only_the_page_s_own_program_may_run(make_scores):
    page = Page(build_page(make_scores()))
    policy = next(value for _, value in page.attributes if value and value.startswith("default-src"))
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


@pytest.mark.parametrize(
    "word",
    ["innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "fetch(", "XMLHttp", "://"],
)
def test_data_enters_the_page_as_text_only(word):
    program = assets.script().replace("http://www.w3.org/2000/svg", "")  # the name of SVG, not an address
    assert word not in program


@pytest.mark.parametrize("name", assets.SCRIPTS)
def test_programs_stay_short(name):
    path = assets.files("lsi.report").joinpath("templates", "script", f"{name}.js")
    assert len(path.read_text(encoding="utf-8").splitlines()) < 200


def test_every_link_leads_to_a_section(make_scores):
    page = Page(build_page(make_scores(planted=6)))
    ids = {value for name, value in page.attributes if name == "id"}
    targets = {value[1:] for name, value in page.attributes if name == "href"}
    assert targets <= ids
    assert len(targets) == 10


def test_every_picture_has_an_alternative_text(make_scores, make_samples):
    scores = make_scores()
    page = Page(build_page(scores, make_samples(scores)))
    alternatives = [value for name, value in page.attributes if name == "alt"]
    assert len(alternatives) == page.tags.count("img") == 48
    assert all(", label " in text for text in alternatives)


def test_what_was_run_and_found_is_said(make_scores):
    text = " ".join("".join(Page(build_page(make_scores(planted=6))).text).split())
    for part in (
        "All 60 samples in 3 classes",
        "linear (weight decay 0.0001, fit intercept yes)",
        "diag, prior precision 1.0",
        "newton (tol 0.01)",
        "The values and their order are computed right.",
        "8 samples were left out again by brute force: half of them drawn at random",
        "6 labels were changed on purpose",
        "AUROC",
        "1.000",
        "one factorisation",
    ):
        assert part in text


def test_a_run_without_audit_says_so(make_scores):
    assert "This run was not audited." in build_page(make_scores(audited=0))


def test_many_classes_are_cut_and_said(make_scores):
    scores = make_scores(n=410, labels=tuple(f"class {k}" for k in range(205)))
    page = build_page(scores)
    assert page.count("data-class=") - assets.script().count("data-class=") == 200
    assert "The 200 classes with the highest mean of 205." in " ".join(page.split())


def test_a_minimal_manifest_is_enough(make_scores):
    from lsi.scores import Scores

    frame = make_scores().to_frame()
    assert "scores" in build_page(Scores(frame, {}, None))


def test_vanishing_scores_still_make_a_page(make_scores):
    from lsi.scores import Scores

    scores = make_scores(n=4, audited=0)
    page = build_page(Scores(scores.to_frame().assign(lsi=np.zeros(4)), scores.manifest, None))
    assert "No sample carries measurable information." in page


def test_writing_replaces_only_pages_of_this_library(make_scores, tmp_path):
    path = tmp_path / "new folder" / "report.html"
    assert write_report(path, make_scores()) == path
    first = path.read_text(encoding="utf-8")
    write_report(path, make_scores(n=30))
    assert path.read_text(encoding="utf-8") != first
    path.write_text("<html>my own page</html>")
    with pytest.raises(OutputError, match="--overwrite"):
        write_report(path, make_scores())
    assert path.read_text() == "<html>my own page</html>"
    write_report(path, make_scores(), overwrite=True)
    assert path.read_text(encoding="utf-8") == first
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]


def test_a_failed_write_leaves_the_old_page(make_scores, tmp_path, monkeypatch):
    path = write_report(tmp_path / "report.html", make_scores())
    before = path.read_bytes()

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(
        OutputError, match=r"The report cannot be written to .*the disk is full\. Free some space"
    ):
        write_report(path, make_scores(n=30))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


def test_places_that_cannot_be_written_are_refused_early(tmp_path):
    with pytest.raises(OutputError, match="is a folder"):
        check_report(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="is a file"):
        check_report(tmp_path / "file" / "report.html")


def test_a_read_only_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OutputError, match="read-only"):
        check_report(tmp_path / "report.html")


def test_missing_packages_name_the_cure(make_scores, monkeypatch):
    monkeypatch.setattr(html, "find_spec", lambda name: None if name == "jinja2" else object())
    with pytest.raises(InputError, match=r"needs jinja2.*pip install -c constraints\.txt '\.\[report\]'"):
        write_report("report.html", make_scores())
