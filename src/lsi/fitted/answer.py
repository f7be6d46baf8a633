"""What a question to a fitted object returns: one table with divergences and certificates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True, eq=False)
class Answer:
    """One row for each group or candidate.

    Attributes:
        frame: The table: what the row is about, then `lsi`, its terms, and `relative_error`.
    """

    frame: pd.DataFrame

    @property
    def lsi(self) -> np.ndarray:
        """Laplace Sample Information of each row of the table, nats, float64."""
        return self.frame["lsi"].to_numpy(dtype=np.float64)

    def to_frame(self) -> pd.DataFrame:
        """Return the table as a copy."""
        return self.frame.copy()

    def top(self, k: int = 10) -> pd.DataFrame:
        """Return the k rows of the highest LSI, highest first."""
        return self.frame.sort_values("lsi", ascending=False, kind="stable").head(k)

    def __len__(self) -> int:
        return len(self.frame)

    def __repr__(self) -> str:
        return repr(self.frame)

    def _repr_html_(self) -> str:
        shown: str = self.frame.to_html(escape=True, max_rows=20, index=False)
        return shown
