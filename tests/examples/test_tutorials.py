"""The examples run, and the tutorials tell to type what they run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.docs.pages import REPOSITORY, blocks, commands

EXAMPLES = REPOSITORY / "examples"
# What each example prints last, in this form.
ENDS = {
    "customers": r"1\d of the 17 removed customers had a flipped label, of 48 in all\.",
    "photos": r"19 of 20 pictures that lay in the wrong folder are in the right one now\.",
    "reviews": r"40 of 40 wrong labels are right now, and 0 that were right are wrong\.",
    "network": r"accuracy without them: 0\.8\d\d",
}
TUTORIALS = sorted(page for page in (REPOSITORY / "docs" / "tutorials").glob("*.md") if page.stem in ENDS)


@pytest.mark.parametrize("name", ENDS)
def test_an_example_runs_to_its_end(name, tmp_path):
    script = [sys.executable, str(EXAMPLES / f"{name}.py"), str(tmp_path)]
    done = subprocess.run(script, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(ENDS[name] + r"\s*\Z", done.stdout)


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_says_what_its_example_does(page):
    """Commands and Python of the page stand in the script, in the same order."""
    script = Path(EXAMPLES / f"{page.stem}.py").read_text(encoding="utf-8")
    told = script
    for name, words in re.findall(r'^    (\w+) = "(.*)"$', script, re.M):
        told = told.replace(f"{{{name}}}", words)
    flat, place = re.sub(r"\s+", " ", told), 0
    for block in blocks(page.read_text(encoding="utf-8")):
        lines = [line for _, line in commands(block) if line.startswith("lsi ")]
        parts = lines if block.language == "bash" else [block.text] if block.language == "python" else []
        for part in parts:
            wanted = re.sub(r"\s+", " ", part).strip()
            assert wanted in flat[place:], f"{page.name}, line {block.line}: {wanted}"
            place = flat.index(wanted, place)


def test_every_example_has_its_tutorial():
    scripts = {path.stem for path in EXAMPLES.glob("*.py")} - {"steps"}
    assert scripts == set(ENDS) == {page.stem for page in TUTORIALS}
    for page in TUTORIALS:
        assert f"python examples/{page.stem}.py" in page.read_text(encoding="utf-8")
        assert f"docs/tutorials/{page.name}" in (EXAMPLES / f"{page.stem}.py").read_text(encoding="utf-8")
