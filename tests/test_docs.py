"""README and docs: blocks are executed or marked, commands are valid, and links have a target."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.docs_blocks import (
    PAGES,
    ROOT,
    Block,
    blocks,
    check_options,
    indented_blocks,
    inline_commands,
    shell_commands,
    tuning_arguments,
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
    assert [location for page in PAGES for location in indented_blocks(page)] == []
    assert [str(block) for block in BLOCKS if not block.language] == []


def test_every_block_is_executed_or_marked_with_a_reason() -> None:
    unmarked = [str(block) for block in BLOCKS if not block.mark and block.language not in RUNNABLE]
    assert unmarked == [], "put <!-- not run: WHY --> above each"
    assert [str(block) for block in BLOCKS if block.mark and len(block.detail) < 8] == []


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.mark == "run by"], ids=str)
def test_the_test_that_runs_a_block_exists(block: Block) -> None:
    file, _, name = block.detail.partition("::")
    functions = [
        node.name for node in ast.walk(ast.parse((ROOT / file).read_text())) if isinstance(node, ast.FunctionDef)
    ]
    assert name in functions


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_the_commands_in_blocks_are_valid(block: Block) -> None:
    for words in shell_commands(block.text):
        arguments = tuning_arguments(words)
        if arguments:
            check_options(arguments)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_in_the_text_are_valid(page: Path) -> None:
    for words in inline_commands(page):
        check_options(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_and_image_has_a_target(page: Path) -> None:
    for file, anchor, image in LINK.findall(page.read_text()):
        target = (page.parent / (file or image)).resolve()
        assert target.exists(), f"{page.name} links to {file or image}"
        if anchor:
            titles = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in anchors, f"#{anchor}"


def test_every_module_and_make_target_in_the_text_exists() -> None:
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


def test_every_image_is_used_and_small() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    files = sorted((ROOT / "docs" / "images").iterdir())
    assert len(files) >= 8
    assert [file.name for file in files if f"images/{file.name}" not in text] == []
    assert [file.name for file in files if file.stat().st_size > 300_000] == []
