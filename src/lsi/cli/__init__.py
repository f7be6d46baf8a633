"""The command ``lsi``: parse, call, write. No mathematics."""

from lsi.cli.app import main

__all__ = ["main"]
