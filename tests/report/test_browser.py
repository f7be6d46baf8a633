"""The report in a real browser: what a reader does with it, and what hostile data cannot do."""

import csv
import json

import numpy as np
import pytest
from tests.report.browser import chromium, why_not
from tests.report.made_up import made_up_samples, made_up_scores

from lsi.decisions.files import read_decisions
from lsi.report import write_report
from lsi.results.marks import read_mark
from lsi.scores import Scores

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "a browser is there")

HOSTILE = (
    "<script>window.hacked = 1</script>",
    '"><img src=x onerror="window.hacked = 1">',
    "</script><script>window.hacked = 1</script>",
    "javascript:window.hacked=1",
    "' onfocus='window.hacked=1' autofocus='",
    "\u202egnp.exe\u202c",
    '=HYPERLINK("http://example.com","x")',
    "{{ 7*7 }}",
)


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture
def open_page(browser, tmp_path):
    """Open the page of some scores; at the end, check that nothing failed and nothing left the machine."""
    problems, contexts = [], []

    def watch(page):
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
        page.on("dialog", lambda dialog: (problems.append(f"dialog {dialog.message}"), dialog.accept()))
        page.on("request", lambda request: problems.append(request.url) if away(request.url) else None)

    def open_it(scores, samples=None, **settings):
        path = write_report(tmp_path / "report.html", scores, samples)
        contexts.append(browser.new_context(offline=True, accept_downloads=True, **settings))
        page = contexts[-1].new_page()
        watch(page)
        page.goto(path.as_uri())
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert problems == []


def away(url):
    return not url.startswith(("file:", "data:image/", "blob:"))


def ids(page):
    return page.locator("#table-grid tbody tr:not(.spacer) th").all_inner_texts()


def cards(page):
    return [text.removeprefix("id ") for text in page.locator("#gallery-cards .id").all_inner_texts()]


def frame_of(scores):
    return scores.to_frame().sort_values("lsi", ascending=False, kind="stable")


def test_the_table_of_groups_is_sorted_by_its_headings(open_page):
    rows = [(10, 5.0, None), (2, 9.0, -1.5), (33, 7.0, 0.5)]
    names = ("lsi", "lsi_per_row", "mean_term", "covariance_term", "relative_error")
    groups = [
        {"group": f"site {n}", "n": n, "interaction": more, **dict.fromkeys(names, lsi)}
        for n, lsi, more in rows
    ]
    scores = made_up_scores(100, 3)
    page = open_page(Scores(scores.to_frame(), {**scores.manifest, "groups": groups}))
    listed = page.locator("#worth tbody th")
    expected = {
        "Group": [["2", "10", "33"], ["33", "10", "2"]],
        "Samples": [["33", "10", "2"], ["2", "10", "33"]],
        "Interaction": [["33", "2", "10"], ["2", "33", "10"]],  # what is unknown comes last
    }
    assert listed.all_inner_texts() == ["site 2", "site 33", "site 10"]
    for heading, orders in expected.items():
        for order in orders:
            page.locator("#worth thead").get_by_role("button", name=heading).click()
            assert listed.all_inner_texts() == [f"site {n}" for n in order]
    assert page.locator("#worth th[aria-sort]").get_attribute("aria-sort") == "ascending"
    assert page.locator("#worth th[aria-sort]").inner_text() == "Interaction"


def test_search_sort_and_filter_agree_with_the_table(open_page):
    scores = made_up_scores(3000, 10)
    frame = frame_of(scores)
    page = open_page(scores)
    assert ids(page)[:5] == list(frame["sample_id"][:5])
    page.fill("#table-search", "img_000000")
    status = page.locator("#table-status")
    wanted = frame[frame["sample_id"].str.lower().str.contains("img_000000")]
    status.get_by_text(f"{len(wanted):,} of 3,000 samples").wait_for()
    assert ids(page)[:9] == list(wanted["sample_id"][:9])
    page.select_option("#table-class", label="class 003")
    wanted = wanted[wanted["label"] == "class 003"]
    status.get_by_text(f"{len(wanted):,} of 3,000 samples").wait_for()
    assert cards(page)[:3] == list(frame[frame["label"] == "class 003"]["sample_id"][:3])
    page.get_by_role("button", name="Covariance term").press("Enter")
    assert page.locator("th[aria-sort]").get_attribute("data-key") == "covariance_term"
    assert page.locator("th[aria-sort]").get_attribute("aria-sort") == "descending"
    assert ids(page)[:9] == list(wanted.sort_values("covariance_term", ascending=False)["sample_id"][:9])
    page.get_by_role("button", name="Covariance term").press("Enter")
    assert ids(page)[:9] == list(wanted.sort_values("covariance_term")["sample_id"][:9])


def test_a_range_is_selected_with_the_keyboard_and_with_the_mouse(open_page):
    scores = made_up_scores(2000, 5)
    page = open_page(scores)
    low, high = (
        page.locator("#histogram").evaluate(f"box => Number(box.dataset.{end})") for end in ("low", "high")
    )
    step = (high - low) / 48
    logs = np.log10(scores.lsi)

    def expect(n):
        page.locator("#range-status").get_by_text(f"{n:,} samples of 2,000 selected").wait_for()
        page.locator("#table-status").get_by_text(f"{n:,} of 2,000 samples").wait_for()

    first, last = page.get_by_role("slider").all()
    last.press("PageDown")
    last.press("ArrowLeft")
    expect((logs <= high - 5 * step).sum())
    for _ in range(4):
        first.press("PageUp")
    inside = (logs >= low + 16 * step) & (logs <= high - 5 * step)
    expect(inside.sum())
    assert first.get_attribute("aria-valuetext").endswith(" nats")
    assert set(cards(page)) <= set(scores.sample_id[inside])
    first.press("Escape")
    page.locator("#range-status").get_by_text("All 2,000 samples selected").wait_for()
    box = page.locator("#histogram").bounding_box()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 60, steps=4)
    page.mouse.up()
    shown = int(page.locator("#range-status").inner_text().split(" ")[0].replace(",", ""))
    middle = (logs >= low + 24 * step) & (logs <= low + 36 * step)
    assert abs(shown - middle.sum()) <= 0.01 * 2000
    page.get_by_role("button", name="select all").click()
    page.locator("#table-status").get_by_text("All 2,000 samples").wait_for()


def test_decisions_are_taken_kept_and_exported(open_page, tmp_path):
    scores = made_up_scores(500, 4)
    frame = scores.to_frame()
    worst = frame.sort_values(["wrong_probability", "lsi"], ascending=False)
    suspects = worst[worst["suggested_label"] != worst["label"]]
    page = open_page(scores)
    items = page.locator("#suspects-list > li")
    shown = [text.split("id ")[1] for text in items.locator(".note").all_inner_texts()]
    assert shown == list(suspects["sample_id"][:20])
    items.nth(0).focus()
    for key in "arx":
        page.keyboard.press(key)
    items.nth(3).get_by_role("button", name="accept").click()
    items.nth(4).get_by_role("button", name="reject").click()
    items.nth(4).get_by_role("button", name="reject").click()  # a second press takes it back
    page.locator("#decisions-status").get_by_text("4 decisions: 2 accept, 1 reject, 1 remove").wait_for()
    page.reload()
    page.locator("#decisions-status").get_by_text("4 decisions: 2 accept, 1 reject, 1 remove").wait_for()
    expected = dict(zip(shown[:4], ("accept", "reject", "remove", "accept"), strict=True))
    written = json.loads(exported(page, "#export-json", tmp_path))
    assert {key: written[key] for key in ("format", "version", "fingerprint")} == {
        "format": "lsi-decisions",
        "version": 1,
        "fingerprint": "0" * 64,
    }
    rows = list(csv.DictReader(exported(page, "#export-csv", tmp_path).splitlines()))
    marks = [read_mark(tmp_path / f"decisions.{kind}") for kind in ("json", "csv")]
    assert [(mark.kind, mark.fingerprint) for mark in marks] == [("lsi-decisions", "0" * 64)] * 2
    assert [len(read_decisions(tmp_path / f"decisions.{kind}")[0].given) for kind in ("json", "csv")] == [
        4,
        4,
    ]
    by_id = suspects.set_index("sample_id")
    for records in (written["decisions"], rows):
        assert {record["sample_id"]: record["decision"] for record in records} == expected
        for record in records:
            assert list(record)[:4] == ["sample_id", "decision", "label", "suggested_label"]
            known = by_id.loc[record["sample_id"]]
            assert (record["label"], record["suggested_label"]) == (known["label"], known["suggested_label"])
    page.evaluate("localStorage.clear()")
    page.reload()
    page.locator("#decisions-status").get_by_text("No decisions yet").wait_for()
    page.set_input_files("#import-json", tmp_path / "decisions.json")
    page.locator("#decisions-status").get_by_text("4 decisions: 2 accept, 1 reject, 1 remove").wait_for()


def exported(page, control, folder):
    with page.expect_download() as waiting:
        page.click(control)
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path.read_text(encoding="utf-8")


def test_fifty_thousand_rows_stay_small_and_scroll(open_page, tmp_path):
    scores = made_up_scores(50_000, 100)
    page = open_page(scores, made_up_samples(scores))
    assert (tmp_path / "report.html").stat().st_size < 8_000_000
    assert len(ids(page)) < 60
    page.locator("#table-rows").evaluate("box => (box.scrollTop = box.scrollHeight)")
    last = str(frame_of(scores)["sample_id"].iloc[-1])
    page.locator("#table-grid").get_by_text(last).wait_for()
    assert len(ids(page)) < 60
    assert page.locator("#table-grid").get_attribute("aria-rowcount") == "50001"
    page.fill("#table-search", last.upper())
    page.locator("#table-status").get_by_text("1 of 50,000 samples").wait_for()
    assert page.evaluate("document.querySelectorAll('*').length") < 12_000


def hostile_scores():
    scores = made_up_scores(200, len(HOSTILE))
    frame = scores.to_frame()
    names = dict(zip(sorted(frame["label"].unique()), HOSTILE, strict=True))
    for column in ("label", "loo_prediction", "suggested_label"):
        frame[column] = frame[column].map(names)
    frame["sample_id"] = [f"{HOSTILE[k % len(HOSTILE)]}{k}" for k in range(200)]
    manifest = {**scores.manifest, "classes": list(HOSTILE), "source": {"name": HOSTILE[0]}}
    return Scores(frame, manifest)


def test_hostile_text_stays_text(open_page, tmp_path):
    scores = hostile_scores()
    page = open_page(scores)
    assert page.locator("h1").inner_text() == HOSTILE[0]
    for name in HOSTILE:
        shown = name.replace("\u202e", "\ufffd").replace("\u202c", "\ufffd")
        page.select_option("#table-class", label=shown)
        n = int((scores.to_frame()["label"] == name).sum())
        page.locator("#table-status").get_by_text(f"{n} of 200 samples").wait_for()
    page.select_option("#table-class", value="-1")
    page.locator("#table-rows tbody button").first.click()
    page.locator("#details").get_by_role("button", name="Close").click()
    page.click("#suspects-accept")
    rows = list(csv.reader(exported(page, "#export-csv", tmp_path).splitlines()))[1:]
    assert len(rows) > 8
    cells = [cell for row in rows for cell in row]
    assert not [cell for cell in cells if cell[:1] in tuple("=+-@\t\r")]
    assert any(cell.startswith("'=HYPERLINK") for cell in cells)
    written = json.loads(exported(page, "#export-json", tmp_path))["decisions"]
    assert {record["sample_id"] for record in written} <= set(scores.sample_id)
    restored = [
        cell[1:] if cell.startswith(("'=", "'+", "'-", "'@", "'\t", "'\r", "''")) else cell
        for cell, *_ in rows
    ]
    assert restored == [record["sample_id"] for record in written]
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0
    assert "\u202e" not in page.locator("body").inner_text()


def test_nothing_is_wider_than_a_narrow_screen_and_every_control_has_a_name(open_page):
    page = open_page(made_up_scores(300, 30), viewport={"width": 360, "height": 740}, color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    nameless = """() => [...document.querySelectorAll('button, select, input, [role=slider]')].filter(
        (control) =>
            !(control.textContent.trim() || control.getAttribute('aria-label') || control.labels?.length)
    ).length"""
    assert page.evaluate(nameless) == 0
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"


def test_without_scripts_the_essentials_are_there(open_page):
    scores = made_up_scores(300, 5)
    page = open_page(scores, java_script_enabled=False)
    top = frame_of(scores)["sample_id"].iloc[0]
    for section in ("#gallery", "#suspects", "#table"):
        assert page.locator(f"{section} .static").is_visible()
        assert not page.locator(f"{section} .interactive").first.is_visible()
    assert page.locator("#table").get_by_text(top).is_visible()


def test_in_print_the_essentials_are_there(open_page):
    page = open_page(made_up_scores(300, 5))
    assert page.locator("#table-rows").is_visible()
    page.emulate_media(media="print")
    for section in ("#gallery", "#suspects", "#table"):
        assert page.locator(f"{section} .static").is_visible()
        assert not page.locator(f"{section} .interactive").first.is_visible()
    assert not page.locator("nav").is_visible()


@pytest.mark.parametrize("task", ["regression", "multilabel", "contrastive"])
def test_other_tasks_have_a_page_that_works(open_page, task):
    scores = made_up_scores(300, 5)
    frame = scores.to_frame().drop(columns=["wrong_probability", "suggested_label"])
    if task == "regression":
        frame["label"], frame["loo_prediction"] = np.linspace(-1, 1, 300), np.linspace(-1.1, 1.1, 300)
        frame["loo_probability"] = np.nan
    page = open_page(Scores(frame, {**scores.manifest, "task": task}))
    page.get_by_role("button", name="Highest 1").click()
    page.locator("#table-status").get_by_text("3 of 300 samples").wait_for()
    page.get_by_role("button", name="Given", exact=True).click()
    assert page.locator("th[aria-sort]").get_attribute("data-key") == "label"
    assert page.locator("#suspects").count() == 0
