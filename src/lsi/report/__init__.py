"""Scores → summary and rows (plain data) → one HTML page that needs no network."""

from lsi.report.html import build_page, check_report, render, write_report
from lsi.report.summary import summarize

__all__ = ["build_page", "check_report", "render", "summarize", "write_report"]
