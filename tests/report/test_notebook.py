import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from lsi.scores import Scores

EVIL = "<script>alert('x')</script>&\u202e"


def test_a_notebook_shows_lines_a_histogram_and_both_ends(make_scores):
    scores = make_scores()
    html = scores._repr_html_()
    tree = ElementTree.fromstring(html)
    assert sum(1 for _ in tree.iter("rect")) == 40
    tables = [[cell.text for cell in table.iter("td")][::5] for table in tree.iter("table")]
    assert tables == [[str(i) for i in frame["sample_id"]] for frame in (scores.top(5), scores.bottom(5))]
    assert "Scores of 60 samples in 3 classes" in html
    assert len(html) < 15_000


def test_text_from_outside_is_escaped(make_scores):
    html = make_scores(labels=(EVIL, "b"), ids=[f"{EVIL}{k}" for k in range(60)])._repr_html_()
    assert not re.search(r"<(script|img)", html)
    assert "\u202e" not in html
    ElementTree.fromstring(html)


@pytest.mark.parametrize("values", [np.zeros(4), np.array([np.nan, 0.0, 0.0, 1.0])])
def test_without_positive_values_there_is_no_histogram(make_scores, values):
    frame = make_scores(n=4, audited=0).to_frame().assign(lsi=values)
    assert "<svg" not in Scores(frame, {})._repr_html_()


def test_no_scores_at_all(make_scores):
    scores = make_scores(audited=0)
    assert "Scores of 0 samples" in Scores(scores.to_frame().head(0), scores.manifest)._repr_html_()


def test_integer_ids_and_labels_are_shown_as_integers(make_scores):
    scores = make_scores(40)
    frame = scores.to_frame().assign(sample_id=np.arange(4110, 4150), label=1, loo_prediction=2)
    page = Scores(frame, scores.manifest, scores.audit)._repr_html_()
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", page)
    assert cells[1:3] == ["1", "2"]
    assert {int(cell) for cell in cells[::5]} <= set(range(4110, 4150))
