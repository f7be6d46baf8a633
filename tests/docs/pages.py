"""The code blocks of README.md and of the pages in docs/."""

import re
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
FENCE = re.compile(r"^ {0,3}```(\w*)\s*$")
# An indented line that begins with one of these is a command; other indented blocks are formulas and trees.
PROGRAMS = ("lsi", "python", "pip", "pytest", "make", "apt")


@dataclass(frozen=True)
class Block:
    """A block of code on a page.

    Attributes:
        language: As the fence says; `bash` for indented commands.
        line: Number of its first line.
        text: Its lines.
    """

    language: str
    line: int
    text: str


def blocks(page_text):
    """Return the blocks of a page, from top to bottom."""
    found, language, first, lines = [], None, 0, []

    def close():
        if lines:
            found.append(Block(language, first, "\n".join(lines)))

    for number, line in enumerate(page_text.splitlines(), 1):
        fence = FENCE.match(line)
        if fence and language in (None, "indented"):
            close()
            language, first, lines = fence[1] or "text", number + 1, []
        elif fence:
            close()
            language, lines = None, []
        elif language in (None, "indented") and line.startswith("    "):
            if language is None:
                language, first, lines = "indented", number, []
            lines.append(line[4:])
        elif language == "indented":
            close()
            language, lines = None, []
        elif language:
            lines.append(line)
    close()
    return [_named(block) for block in found]


def _named(block):
    """Return an indented block of commands as one of bash."""
    program = block.text.split(maxsplit=1)[0] if block.text.split() else ""
    return (
        Block("bash", block.line, block.text)
        if block.language == "indented" and program in PROGRAMS
        else block
    )


def commands(block):
    """Yield the commands of a block of bash: line, text. Comments are gone, continued lines are joined."""
    pending = ""
    for number, line in enumerate(block.text.splitlines(), block.line):
        line = re.sub(r"(^|\s)#.*$", "", line).strip()
        if line.endswith("\\"):
            pending += line[:-1]
        elif pending + line:
            yield number, pending + line
            pending = ""


def quoted(page_text):
    """Yield what stands between single backquotes outside of blocks: line, text."""
    inside = False
    for number, line in enumerate(page_text.splitlines(), 1):
        if FENCE.match(line):
            inside = not inside
        elif not inside and not line.startswith("    "):
            for text in re.findall(r"`([^`]+)`", line):
                yield number, text
