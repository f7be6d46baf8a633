"""Scores → summary (plain data) → one HTML page that needs no network."""

from lsi.report.html import check_report, render, write_report
from lsi.report.summary import summarize

__all__ = ["check_report", "render", "summarize", "write_report"]
