"""The words that have left the project stay out, and files stay where the layout puts them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEXTS = (
    ".py",
    ".md",
    ".yaml",
    ".yml",
    ".html",
    ".toml",
    ".sh",
    ".example",
    ".txt",
    "Makefile",
    "MLproject",
    "Dockerfile",
)
MAX_LINES = 450

# Each was replaced by a standard term; docs/glossary.md has the terms that are ours.
LEFT = (
    *(
        "pictures?",
        "rubbish",
        "whoever",
        "nobody",
        "told",
        "mend(s|ed|ing)?",
        "thrown out",
        "blown up",
        "go(es)? on",
        "gone on",
    ),
    *(
        "the house",
        "by luck",
        "within:",
        "held against",
        "holds? against",
        "asked for",
        "anew",
        "so many",
        "return what",
    ),
    *("what (is|was|were|are) (asked|kept|told|made|left|given|shown|seen|said)", "learned by heart", "thought out"),
    *(
        "ledger",
        "likeness",
        "twins?",
        "torn",
        "uncut",
        "spool",
        "finalists?",
        "handover",
        "tidying",
        "blameless",
        "hopeless",
    ),
    *("levels=(last|all)", "lr_decay", "final_seeds", "warm_start=", "leaks=", "reuse=(on|exact|off)", "test_looks"),
)
PATTERN = re.compile(rf"(?<![\w/`.-])({'|'.join(LEFT)})(?![\w/])", re.IGNORECASE)
# HTML's own element; the history of names; this list.
ALLOWED = re.compile(r"</?picture>")
EXEMPT = {"CHANGELOG.md", "tests/test_language.py", "tests/golden/proposals.py", "LICENSE"}


def tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.splitlines() if (ROOT / name).is_file()]


def texts() -> list[Path]:
    return [path for path in tracked() if path.name.endswith(TEXTS) and str(path.relative_to(ROOT)) not in EXEMPT]


def test_no_text_uses_a_word_that_was_replaced() -> None:
    files = texts()
    assert len(files) > 300
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match.group()}"
        for path in files
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if (match := PATTERN.search(ALLOWED.sub("", line)))
    ]
    assert found == []


def test_a_replaced_word_is_found() -> None:
    assert PATTERN.search("Return what was asked for.")
    assert PATTERN.search("read the Picture")
    assert not PATTERN.search("the parameter `lr_decay`")


def test_no_python_file_is_longer_than_450_lines() -> None:
    files = tracked("*.py")
    assert len(files) > 300
    assert {
        str(path.relative_to(ROOT)): count
        for path in files
        if (count := len(path.read_text().splitlines())) > MAX_LINES
    } == {}


def test_the_root_of_tuning_holds_packages_and_the_entry_point() -> None:
    entries = {
        path.name
        for path in tracked("tuning")
        for path in [ROOT / "tuning" / path.relative_to(ROOT / "tuning").parts[0]]
    }
    assert entries == {
        *("cli", "workflows", "recipe", "search", "registry", "tracking", "reporting", "ui", "common", "monitoring"),
        *("__init__.py", "__main__.py"),
    }  # fmt: skip
