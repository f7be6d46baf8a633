"""A customer table: whose label is wrong? docs/tutorials/customers.md goes through it in words.

    python examples/customers.py [FOLDER]

writes customers.csv (synthetic, drawn by `make_customers`, 6 % of the labels flipped on purpose), scores it
as it is, lists the labels that are probably wrong, and writes the table without these customers.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from steps import run

N = 800
WRONG = 0.06


def make_customers(n: int = N, wrong: float = WRONG, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Return a synthetic table of customers, and `(n,)` bool: which entries of `churn` were flipped.

    It has what real tables have: an id, numbers with gaps, money with a long tail, categories, a date, a
    column that says nothing, and a remark in words.
    """
    random = np.random.default_rng(seed)
    plan = random.choice(["basic", "plus", "pro"], n, p=[0.5, 0.3, 0.2])
    country = random.choice(["AT", "CH", "DE", "FR", "IT", "NL"], n, p=[0.1, 0.1, 0.4, 0.2, 0.1, 0.1])
    months = random.integers(0, 72, n)
    age = random.normal(45, 14, n).clip(18, 90).round()
    spend = random.lognormal(3.4, 0.8, n).round(2)
    calls = random.poisson(1.2, n)
    pull = np.select([plan == "basic", plan == "plus"], [1.2, 0.0], -1.6) + 0.9 * (calls - 1.2)
    pull += -0.05 * (months - 36) - 0.9 * (np.log(spend) - 3.4) - 0.3 + 0.6 * (country == "FR")
    churn = random.random(n) < 1 / (1 + np.exp(-2.5 * pull))
    flipped = np.zeros(n, dtype=bool)
    flipped[random.choice(n, round(wrong * n), replace=False)] = True
    since = pd.Timestamp("2026-06-30") - pd.to_timedelta(30.4 * months, unit="D")
    frame = pd.DataFrame(
        {
            "customer_id": [f"C{number:05d}" for number in random.permutation(n) + 10_000],
            "customer_since": since.strftime("%Y-%m-%d"),
            "age": np.where(random.random(n) < 0.1, np.nan, age),
            "plan": plan,
            "country": country,
            "monthly_spend": spend,
            "support_calls": calls,
            "currency": "EUR",
            "remark": [f"asked about invoice {number} by telephone" for number in random.permutation(n)],
            "churn": np.where(churn ^ flipped, "yes", "no"),
        }
    )
    return frame, flipped


def main() -> None:
    """Write the table, score it, apply the decisions, and count what was found."""
    frame, flipped = make_customers()
    frame.to_csv("customers.csv", index=False)
    run("lsi compute --dataset customers.csv --label-column churn --id-column customer_id --output scores/")
    run("lsi mislabeled scores/ --fdr 0.1 -o suspects.csv")
    run("lsi report scores/ -o report.html")
    run("lsi apply suspects.csv customers.csv --as remove -o customers-cleaned.csv")
    cleaned = "--dataset customers-cleaned.csv --label-column churn --id-column customer_id"
    run(f"lsi compute {cleaned} --output scores-cleaned/")
    run("lsi compare scores/ scores-cleaned/")
    removed = ~frame["customer_id"].isin(pd.read_csv("customers-cleaned.csv")["customer_id"]).to_numpy()
    print(
        f"\n{(removed & flipped).sum()} of the {removed.sum()} removed customers had a flipped label, ",
        end="",
    )
    print(f"of {flipped.sum()} in all.")


if __name__ == "__main__":
    os.chdir(Path(sys.argv[1]) if len(sys.argv) > 1 else Path())
    main()
