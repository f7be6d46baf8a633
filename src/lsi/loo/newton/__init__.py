"""`Newton`: the leave-one-out optimum itself, by one factorisation and a low-rank downdate."""

from lsi.loo.newton.settings import Newton

__all__ = ["Newton"]
