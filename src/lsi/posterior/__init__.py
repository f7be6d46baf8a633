"""Laplace posteriors of a trained probe: `diag`, `kron` and `full`."""

from lsi.posterior.base import Posterior, Removal
from lsi.posterior.diag import DiagPosterior
from lsi.posterior.full import FullPosterior
from lsi.posterior.kron import KronPosterior

POSTERIORS: dict[str, type[Posterior]] = {
    kind.name: kind for kind in (DiagPosterior, KronPosterior, FullPosterior)
}

__all__ = ["POSTERIORS", "DiagPosterior", "FullPosterior", "KronPosterior", "Posterior", "Removal"]
