r"""MkDocs hook: turn the docstrings' ``.. math::`` blocks and ``:math:`` roles into MathML.

Browsers draw MathML themselves, so that the pages need no script and no network.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as etree
from typing import Any

from latex2mathml.converter import convert_to_element
from markdown import Markdown
from markdown.blockprocessors import BlockProcessor
from markdown.extensions import Extension
from markdown.inlinepatterns import InlineProcessor

ROLE = r":math:`([^`]+)`"
DIRECTIVE = re.compile(r"(?:^|\n)\.\. math::[ \t]*(.*)", re.DOTALL)


class MathRole(InlineProcessor):
    """Replace ``:math:`x``` within a line."""

    def handleMatch(self, m: re.Match[str], data: str) -> tuple[etree.Element, int, int]:
        """Return the MathML element and the span that it replaces."""
        return convert_to_element(m.group(1)), m.start(0), m.end(0)


class MathDirective(BlockProcessor):
    """Replace a ``.. math::`` block: its first line and the indented lines that follow."""

    def test(self, parent: etree.Element, block: str) -> bool:
        """Return whether the block starts with the directive or has it on a later line."""
        return DIRECTIVE.search(block) is not None

    def run(self, parent: etree.Element, blocks: list[str]) -> None:
        """Replace the block by its MathML, taking the following block where the formula stands there."""
        block = blocks.pop(0)
        match = DIRECTIVE.search(block)
        assert match is not None
        if before := block[: match.start()].strip():
            self.parser.parseBlocks(parent, [before])
        formula = match.group(1)
        if not formula.strip() and blocks and blocks[0].startswith(" "):
            formula = blocks.pop(0)
        lines = formula.split("\n")
        end = next(
            (i for i, line in enumerate(lines[1:], 1) if line and not line.startswith(" ")), len(lines)
        )
        box = etree.SubElement(parent, "div", {"class": "math"})
        box.append(convert_to_element(" ".join(lines[:end]).strip(), display="block"))
        if rest := "\n".join(lines[end:]).strip():
            blocks.insert(0, rest)


class RstMath(Extension):
    """Both of them, ahead of what would take the backticks or the indentation for code."""

    def extendMarkdown(self, md: Markdown) -> None:
        """Register the processors."""
        md.inlinePatterns.register(MathRole(ROLE, md), "rst-math-role", 200)
        md.parser.blockprocessors.register(MathDirective(md.parser), "rst-math-directive", 95)


def on_config(config: Any) -> Any:
    """Add the extension for pages and docstrings alike."""
    config.markdown_extensions.append(RstMath())
    return config
