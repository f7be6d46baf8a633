"""Reviews: which texts have the wrong mood? docs/tutorials/reviews.md goes through it in words.

    python examples/reviews.py [FOLDER]

writes reviews.csv (made up from the sentences below, one label in sixteen wrong), turns the texts
into features with scikit-learn alone, finds the wrong labels, and writes reviews-cleaned.csv.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from steps import run

N = 640
GOOD = """A film to see twice. | The cast is a delight. | I laughed until the end. | Tender, clever and warm.
Every scene has a reason. | The music carries it gently. | A small wonder of timing. | The dialogue sparkles.
We left the cinema smiling. | Rarely was a story told so well. | The camera finds beauty everywhere."""
BAD = """I looked at my watch twice. | The plot makes no sense. | Dull from start to finish. | Dreary.
Nobody seems to know why they are there. | Two hours that felt like four. | The ending is an insult.
A waste of a good cast. | The dialogue is wooden. | Loud, empty and long. | We left before the end."""
EITHER = """It runs for two hours. | The director also wrote it. | It was shot in Lisbon.
We saw it on Sunday. | It is based on a novel. | The hall was half full. | It has a long scene on a train."""


def make_reviews(n: int = N, seed: int = 0) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return made-up reviews, and the right mood of those whose label is wrong, by id."""
    rng = np.random.default_rng(seed)
    pools = {mood: re.split(r" \| |\n", text) for mood, text in (("good", GOOD), ("bad", BAD))}
    either = re.split(r" \| |\n", EITHER)
    wrong = set(rng.choice(n, n // 16, replace=False).tolist())
    rows, right = [], {}
    for k in range(n):
        mood, other = rng.permutation(["good", "bad"]).tolist()
        parts = [*rng.choice(pools[mood], 3, replace=False), *rng.choice(either, 2, replace=False)]
        if rng.random() < 0.1:  # a word of praise or blame that does not decide
            parts.append(str(rng.choice(pools[other])))
        rows.append((f"r{k:03d}", " ".join(rng.permutation(parts)), other if k in wrong else mood))
        if k in wrong:
            right[f"r{k:03d}"] = mood
    return pd.DataFrame(rows, columns=["id", "text", "mood"]), right


def main() -> None:
    """Write the reviews, turn them into features, score them, and apply the decisions."""
    reviews, right = make_reviews()
    reviews.to_csv("reviews.csv", index=False)
    words = TfidfVectorizer(sublinear_tf=True).fit_transform(reviews["text"])
    X = TruncatedSVD(50, random_state=0).fit_transform(words)
    np.savez("features.npz", X=X, y=reviews["mood"].to_numpy(str), ids=reviews["id"].to_numpy(str))

    run("lsi compute --dataset features.npz --weight-decay 1e-3 --output scores/")
    run("lsi mislabeled scores/ --fdr 0.1 -o suspects.csv")
    same = "reviews.csv --id-column id --text-column text --label-column mood --ids-only"
    run(f"lsi report scores/ {same} -o report.html")
    run(f"lsi apply suspects.csv {same} --as relabel -o reviews-cleaned.csv")

    cleaned = pd.read_csv("reviews-cleaned.csv")["mood"]
    true = reviews["id"].map(right).fillna(reviews["mood"])
    was_wrong, is_wrong = true != reviews["mood"], true != cleaned
    print(f"\n{(was_wrong & ~is_wrong).sum()} of {was_wrong.sum()} wrong labels are right now, ", end="")
    print(f"and {(is_wrong & ~was_wrong).sum()} that were right are wrong.")


if __name__ == "__main__":
    os.chdir(Path(sys.argv[1]) if len(sys.argv) > 1 else Path())
    main()
