import matplotlib as mpl
import numpy as np
import pytest

from lsi.errors import InputError
from lsi.report import plots
from lsi.scores import Scores

mpl.use("Agg")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


def heights(ax):
    return [sum(bar.get_height() for bar in bars) for bars in ax.containers]


def test_the_histogram_counts_every_sample(make_scores):
    ax = make_scores(planted=6).plot()
    assert heights(ax) == [60, 6]
    assert ax.get_xscale() == "log"
    assert ax.get_legend() is not None
    assert heights(make_scores().plot("distribution")) == [60]


def test_equal_and_vanishing_values_are_drawn(make_scores):
    frame = make_scores(n=6, audited=0).to_frame()
    ax = Scores(frame.assign(lsi=[0.0, np.nan, 2.0, 2.0, 2.0, 2.0]), {}).plot()
    assert heights(ax) == [4]


def test_classes_are_ordered_by_their_median_and_drawn_in_place(make_scores):
    import matplotlib.pyplot as plt

    scores = make_scores(labels=("cat", "$d$og", "eel"))
    given = plt.subplots()[1]
    ax = scores.plot("classes", ax=given)
    assert ax is given
    medians = scores.class_summary().set_index("label")["median_lsi"].sort_values()
    assert [text.get_text() for text in ax.get_yticklabels()] == [
        k.replace("$", r"\$") for k in medians.index
    ]
    ax.figure.canvas.draw()  # foreign text must not be read as mathematics


def test_many_classes_are_cut(make_scores):
    ax = make_scores(n=200, labels=tuple(f"class {k}" for k in range(50))).plot("classes")
    assert len(ax.get_yticklabels()) == plots.MOST_CLASSES


def test_what_cannot_be_drawn_is_refused(make_scores, monkeypatch):
    scores = make_scores()
    with pytest.raises(InputError, match=r"no plot 'clases'\. Did you mean 'classes'"):
        scores.plot("clases")
    regression = Scores(scores.to_frame(), {**scores.manifest, "task": "regression"})
    with pytest.raises(InputError, match=r"regression.*plot\(.distribution.\)"):
        regression.plot("classes")
    with pytest.raises(InputError, match="nothing to draw"):
        Scores(scores.to_frame().assign(lsi=0.0), {}).plot()
    monkeypatch.setattr(plots, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install -c constraints\.txt '\.\[plot\]'"):
        scores.plot()
