"""Photos: which of my pictures lie in the wrong folder? docs/tutorials/photos.md goes through it in words.

    python examples/photos.py [FOLDER]

writes a folder of small pictures (scikit-learn's handwritten digits, each saved as PNG, one in twenty in the
wrong folder on purpose), finds those that are in the wrong one, and writes a folder where they are not.
"""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from steps import run

N = 400
NAMES = "zero one two three four five six seven eight nine".split()


def make_pictures(folder: Path, n: int = N, seed: int = 0) -> dict[str, str]:
    """Write `n` pictures, one folder for each digit; return the right folder of those in a wrong one."""
    digits = load_digits()
    rng = np.random.default_rng(seed)
    wrong = set(rng.choice(n, n // 20, replace=False).tolist())
    right = {}
    for k in range(n):
        code = int(digits.target[k])
        shown = (code + int(rng.integers(1, 10))) % 10 if k in wrong else code
        place = folder / NAMES[shown]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[k] / 16 * 255).astype(np.uint8)).save(place / f"{k:04d}.png")
        if k in wrong:
            right[f"{k:04d}.png"] = NAMES[code]
    return right


def decide(path: Path, right: dict[str, str]) -> None:
    """Write into the list of suspects what somebody who looks at each picture would write."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    sample, suggested, decision = (
        rows[0].index(name) for name in ("sample_id", "suggested_label", "decision")
    )
    for row in rows[1:]:
        seen = right.get(Path(row[sample]).name)
        row[decision] = "reject" if seen is None else "accept" if row[suggested] == seen else "remove"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def main() -> None:
    """Make the pictures, score them, apply the decisions, and count what was mended."""
    right = make_pictures(Path("pictures"))
    run("lsi compute --dataset pictures/ --encoder raw --weight-decay 1e-2 --output scores/")
    run("lsi mislabeled scores/ --fdr 0.1 -o suspects.csv")
    run("lsi report scores/ -o report.html")
    decide(Path("suspects.csv"), right)
    run("lsi apply suspects.csv pictures/ -o pictures-cleaned/")
    run("lsi compute --dataset pictures-cleaned/ --encoder raw --weight-decay 0.01 --output scores-cleaned/")
    run("lsi compare scores/ scores-cleaned/")
    mended = sum((Path("pictures-cleaned") / folder / name).is_file() for name, folder in right.items())
    print(f"\n{mended} of {len(right)} pictures that lay in the wrong folder are in the right one now.")


if __name__ == "__main__":
    os.chdir(sys.argv[1] if len(sys.argv) > 1 else ".")
    main()
