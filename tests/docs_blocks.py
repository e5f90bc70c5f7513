"""The code blocks of README and docs, and what is to be done with each.

A block is executed, unless an HTML comment on the line above it says otherwise:

- ``<!-- parsed: WHY -->``: its commands are read by the real parser of options, and not run;
- ``<!-- run by tests/FILE.py::NAME -->``: that test runs it;
- ``<!-- not run: WHY -->``.
"""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from tuning import cli
from tuning.cli.parser import parse, parse_args
from tuning.cli.predict import split_arguments
from tuning.recipe.loader import load_recipe
from tuning.recipe.schema import Recipe

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\s*$")
MARK = re.compile(r"^\s*<!-- (?P<kind>parsed|run by|not run):? (?P<detail>.+) -->\s*$")
INDENTED = re.compile(r"^ {4,}\S")
SPAN = re.compile(r"`(python -m tuning [^`]+|mlflow run [^`]+)`")
OUTWARDS = {">", ">>", "|"}
OUR_MODULE = ["python", "-m", "tuning"]


@dataclass(frozen=True)
class Block:
    """A fenced block: where it begins, its language and text, and its mark (empty: it is executed)."""

    page: Path
    line: int
    language: str
    text: str
    mark: str = ""
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """Yield a page's fenced blocks."""
    lines = page.read_text().splitlines()
    at = 0
    while at < len(lines):
        opened = FENCE.match(lines[at])
        if opened:
            end = next(n for n in range(at + 1, len(lines)) if lines[n].strip() == "```")
            text = "\n".join(line.removeprefix(opened["indent"]) for line in lines[at + 1 : end])
            mark = MARK.match(lines[at - 1]) if at else None
            said = (mark["kind"], mark["detail"]) if mark else ("", "")
            yield Block(page, at + 1, opened["language"], text, *said)
            at = end
        at += 1


def indented(page: Path) -> list[str]:
    """Return the lines that Markdown would take for a block without a fence."""
    found, within, before = [], False, ""
    for number, line in enumerate(page.read_text().splitlines(), start=1):
        within ^= line.strip().startswith("```")
        if not within and not before.strip() and INDENTED.match(line):
            found.append(f"{page.relative_to(ROOT)}:{number}")
        before = line
    return found


def shell_commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each command of a shell block; comments, and where its output goes, are left out."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            yield list(itertools.takewhile(lambda word: word not in OUTWARDS, words))


def as_tuning(words: list[str]) -> list[str] | None:
    """Return what follows ``python -m tuning``, for ``mlflow run`` too; None for another command."""
    if words[:3] == OUR_MODULE:
        return words[3:]
    if words[:2] != ["mlflow", "run"]:
        return None
    given = dict(itertools.pairwise(words))
    settings = [words[at + 1] for at, word in enumerate(words) if word == "-P"]
    return [given.get("-e", "tune"), *(f"--{setting}" for setting in settings)]


def check_options(words: list[str]) -> None:
    """Let the real parser read a command.

    Raises:
        SettingError: it does not know or refuses an option.
    """
    name, *arguments = words
    if {"--help"} & set(arguments):
        return
    model: type[BaseModel] = cli.load(name).OPTIONS
    if name == "tune":
        load_recipe(*parse_args(Recipe, [word for word in arguments if not word.endswith(".yaml")]))
    elif name == "predict":
        files, rest = split_arguments(arguments)
        parse(model, rest, **({"files": files} if files else {}))
    else:
        parse(model, arguments)


def inline_commands(page: Path) -> Iterator[list[str]]:
    """Yield the words after ``python -m tuning`` of the commands within a page's text."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for span in SPAN.findall(text):
        words = as_tuning(shlex.split(" ".join(span.split())))
        if words and words[1:] and not words[0].isupper():  # a command alone is its name, not a call
            yield words
