"""The blocks of README and docs that are executed: on a copy of one tiny search, names in the docs stood in for."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from data.loading.augmentation import STRENGTHS, TRANSFORMS
from models.backbones.weight_packages import PACKAGES, UNPRETRAINED
from tests.docs_blocks import PAGES, Block, as_tuning, blocks, shell_commands
from tests.system.conftest import Searched, World, runs_of
from tuning.__main__ import main
from tuning.search.samplers import SAMPLERS

EXECUTED = [block for page in PAGES for block in blocks(page) if not block.mark]
# What the docs call it, and what there is in the world of the test.
STAND_INS = {
    r"\b(pets|digits)\b": "photos",
    r"\bdemo\b": "photos",
    r"\bresnet34\b": "test_resnet",
}


@pytest.fixture(scope="module")
def copied(searched: Searched, tmp_path_factory: pytest.TempPathFactory) -> tuple[World, str]:
    """A world that the blocks may change, and the id of its search."""
    folder = tmp_path_factory.mktemp("docs") / "copy"
    world = World(shutil.copytree(searched.world.folder, folder))
    picture = next(world.photos.rglob("*.png"))
    (folder / "new").mkdir()
    for name in ("some.png", "cat.jpg", "new/1.png"):
        shutil.copy(picture, folder / name)
    return world, runs_of(world.client)[0].info.run_id


@pytest.fixture
def inside(copied: tuple[World, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Enter the world; return the id of its search."""
    world, run_id = copied
    world.enter(monkeypatch)
    # Whether a version loads in a clean process is tried in tests/tuning/test_smoke_test.py; here it would cost seconds.
    monkeypatch.setattr("tuning.registry.promotion.check_loads", lambda *_: None)
    return run_id


def stood_in(text: str, run_id: str) -> str:
    for name, instead in STAND_INS.items():
        text = re.sub(name, instead, text)
    return text.replace("PARENT_RUN_ID", run_id)


@pytest.mark.parametrize("block", [block for block in EXECUTED if block.language == "bash"], ids=str)
def test_a_block_of_commands_runs_as_it_stands(block: Block, inside: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in shell_commands(stood_in(block.text, inside)):
        ours = as_tuning(words)
        assert ours, f"{words} is no command of ours: mark the block"
        assert main(ours) == 0, capsys.readouterr().err


@pytest.mark.parametrize("block", [block for block in EXECUTED if block.language == "python"], ids=str)
def test_a_block_of_python_runs_as_it_stands(
    block: Block, inside: str, tables_kept: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("block_of_the_docs")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # what a block adds to a table is found by its module
    monkeypatch.setattr(sys, "path", [*sys.path])
    exec(compile(stood_in(block.text, inside), str(block), "exec"), vars(module))  # noqa: S102  (our own docs)


@pytest.fixture
def tables_kept() -> Iterator[None]:
    """Let a block add its own augmentation, weights, network or sampler without leaving them to the next test."""
    tables: tuple[dict[str, Any], ...] = (TRANSFORMS, STRENGTHS, PACKAGES, UNPRETRAINED, SAMPLERS)
    before = [dict(table) for table in tables]
    yield
    for table, entries in zip(tables, before, strict=True):
        table.clear()
        table.update(entries)
