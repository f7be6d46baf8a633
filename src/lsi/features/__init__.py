"""Features as the engines read them."""

from lsi.features.design import Design, row_space

__all__ = ["Design", "row_space"]
