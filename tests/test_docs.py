"""README and docs: every block is executed or says why not, every command is one, every link leads somewhere."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.docs_blocks import (
    PAGES,
    ROOT,
    Block,
    as_tuning,
    blocks,
    check_options,
    indented,
    inline_commands,
    shell_commands,
)

BLOCKS = [block for page in PAGES for block in blocks(page)]
SHELL = [block for block in BLOCKS if block.language == "bash"]
RUNNABLE = {"bash", "python"}
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)(?:#([^)]+))?\)|<(?:img|source)[^>]+src(?:set)?=\"(?!https?:)([^\"]+)\"")
MODULE = re.compile(r"python -m ((?:benchmarks|server|tests)(?:\.[a-z_]+)*)(?!\.)")
TARGET = re.compile(r"(?:`|^)make ([a-z][a-z-]*)", re.MULTILINE)


def test_all_pages_and_their_blocks_are_found() -> None:
    assert len(PAGES) >= 14
    assert len(BLOCKS) >= 50
    assert len([block for block in BLOCKS if not block.mark]) >= 12


def test_every_block_has_a_fence_and_a_language() -> None:
    assert [place for page in PAGES for place in indented(page)] == []
    assert [str(block) for block in BLOCKS if not block.language] == []


def test_every_block_is_executed_or_says_why_not() -> None:
    silent = [str(block) for block in BLOCKS if not block.mark and block.language not in RUNNABLE]
    assert silent == [], "put <!-- not run: WHY --> above each"
    assert [str(block) for block in BLOCKS if block.mark and len(block.detail) < 8] == []


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.mark == "run by"], ids=str)
def test_a_test_that_is_said_to_run_a_block_exists(block: Block) -> None:
    file, _, name = block.detail.partition("::")
    functions = [
        node.name for node in ast.walk(ast.parse((ROOT / file).read_text())) if isinstance(node, ast.FunctionDef)
    ]
    assert name in functions


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_the_options_of_every_command_are_taken_by_the_real_parser(block: Block) -> None:
    for words in shell_commands(block.text):
        ours = as_tuning(words)
        if ours:
            check_options(ours)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_within_the_text_are_taken_too(page: Path) -> None:
    for words in inline_commands(page):
        check_options(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_and_picture_is_there(page: Path) -> None:
    for file, anchor, picture in LINK.findall(page.read_text()):
        target = (page.parent / (file or picture)).resolve()
        assert target.exists(), f"{page.name} links to {file or picture}"
        if anchor:
            heads = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}, f"#{anchor}"


def test_every_module_and_target_that_is_named_is_there() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    modules = set(MODULE.findall(text))
    assert len(modules) > 8
    for module in modules:
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module
    targets = set(TARGET.findall(text))
    assert targets >= {"tune", "test", "screenshots"}
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert targets <= known


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 200


def test_every_picture_is_shown_somewhere_and_is_small() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    files = sorted((ROOT / "docs" / "images").iterdir())
    assert len(files) >= 8
    assert [file.name for file in files if f"images/{file.name}" not in text] == []
    assert [file.name for file in files if file.stat().st_size > 300_000] == []
