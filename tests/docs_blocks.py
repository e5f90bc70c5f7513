"""The code blocks of README and docs, and how each is tested.

A block is executed unless an HTML comment on the line above it marks it:

- ``<!-- parsed: WHY -->``: its commands are parsed by the real option parser, not executed;
- ``<!-- run by tests/FILE.py::NAME -->``: the named test executes it;
- ``<!-- not run: WHY -->``.
"""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tuning import cli

ROOT = Path(__file__).resolve().parents[1]
PAGES = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/RESULTS.md")),
    *sorted((ROOT / "docs").glob("*.md")),
)
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\s*$")
MARK = re.compile(r"^\s*<!-- (?P<kind>parsed|run by|not run):? (?P<detail>.+) -->\s*$")
INDENTED = re.compile(r"^ {4,}\S")
SPAN = re.compile(r"`(freezeline [a-z][^`]+|python -m tuning [^`]+|mlflow run [^`]+)`")
REDIRECTIONS = {">", ">>", "|"}
TUNING_MODULE = ["python", "-m", "tuning"]


@dataclass(frozen=True)
class Block:
    """A fenced block: its location, language, text and mark (empty: the block is executed)."""

    page: Path
    line: int
    language: str
    text: str
    mark: str = ""
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    lines = page.read_text().splitlines()
    start = 0
    while start < len(lines):
        fence = FENCE.match(lines[start])
        if fence:
            end = next(number for number in range(start + 1, len(lines)) if lines[number].strip() == "```")
            text = "\n".join(line.removeprefix(fence["indent"]) for line in lines[start + 1 : end])
            match = MARK.match(lines[start - 1]) if start else None
            mark = (match["kind"], match["detail"]) if match else ("", "")
            yield Block(page, start + 1, fence["language"], text, *mark)
            start = end
        start += 1


def indented_blocks(page: Path) -> list[str]:
    """Return the locations of lines that Markdown would render as a code block without a fence."""
    locations, in_fence, previous = [], False, ""
    for number, line in enumerate(page.read_text().splitlines(), start=1):
        in_fence ^= line.strip().startswith("```")
        if not in_fence and not previous.strip() and INDENTED.match(line):
            locations.append(f"{page.relative_to(ROOT)}:{number}")
        previous = line
    return locations


def shell_commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each command of a shell block, without comments and redirections."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            yield list(itertools.takewhile(lambda word: word not in REDIRECTIONS, words))


def tuning_arguments(words: list[str]) -> list[str] | None:
    """Return the arguments of ``freezeline``, ``python -m tuning`` or ``mlflow run``; None for another command."""
    if words[:1] == ["freezeline"]:
        return words[1:]
    if words[:3] == TUNING_MODULE:
        return words[3:]
    if words[:2] != ["mlflow", "run"]:
        return None
    pairs = list(itertools.pairwise(words))
    settings = [setting for option, setting in pairs if option == "-P"]
    return [dict(pairs).get("-e", "tune"), *(f"--{setting}" for setting in settings)]


def check_options(words: list[str]) -> None:
    """Parse a command with the real option parser.

    Raises:
        SettingError: an option is unknown or invalid.
    """
    name, *arguments = words
    if {"--help"} & set(arguments) or name.startswith("--"):
        return
    cli.parse_options(name, [word for word in arguments if not word.endswith(".yaml")])


def inline_commands(page: Path) -> Iterator[list[str]]:
    """Yield the arguments of the ``freezeline`` commands in the text of a page."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for span in SPAN.findall(text):
        words = tuning_arguments(shlex.split(" ".join(span.split())))
        if words and words[1:] and not words[0].isupper():  # without arguments it is only the name of a command
            yield words
