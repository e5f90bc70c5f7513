"""Execute the code blocks of README and docs in a copy of one tiny search, with its names in place of the docs'."""

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
from tests.docs_blocks import PAGES, Block, blocks, shell_commands, tuning_arguments
from tests.system.conftest import FinishedSearch, Workspace, runs_of
from tuning.__main__ import main
from tuning.search.samplers import SAMPLERS

EXECUTED = [block for page in PAGES for block in blocks(page) if not block.mark]
# Names in the docs, and those in the test's workspace.
REPLACEMENTS = {
    r"\b(pets|digits)\b": "photos",
    r"\bdemo\b": "photos",
    r"\bresnet34\b": "test_resnet",
}


@pytest.fixture(scope="module")
def workspace_copy(finished_search: FinishedSearch, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, str]:
    """Return a workspace that the blocks may change, and the run id of its search."""
    folder = tmp_path_factory.mktemp("docs") / "copy"
    workspace = Workspace(shutil.copytree(finished_search.workspace.folder, folder))
    image = next(workspace.photos.rglob("*.png"))
    (folder / "new").mkdir()
    for name in ("some.png", "cat.jpg", "new/1.png"):
        shutil.copy(image, folder / name)
    return workspace, runs_of(workspace.client)[0].info.run_id


@pytest.fixture
def run_id(workspace_copy: tuple[Workspace, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Activate the workspace; return the run id of its search."""
    workspace, parent_run_id = workspace_copy
    workspace.activate(monkeypatch)
    # The smoke test takes seconds; tests/tuning/test_smoke_test.py covers it.
    monkeypatch.setattr("tuning.registry.promotion.verify_model_loads", lambda *_: None)
    return parent_run_id


def replace_names(text: str, run_id: str) -> str:
    for pattern, name in REPLACEMENTS.items():
        text = re.sub(pattern, name, text)
    return text.replace("PARENT_RUN_ID", run_id)


@pytest.mark.parametrize("block", [block for block in EXECUTED if block.language == "bash"], ids=str)
def test_a_bash_block_runs(block: Block, run_id: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in shell_commands(replace_names(block.text, run_id)):
        arguments = tuning_arguments(command)
        assert arguments, f"{command} is not a Freezeline command: mark the block"
        assert main(arguments) == 0, capsys.readouterr().err


@pytest.mark.parametrize("block", [block for block in EXECUTED if block.language == "python"], ids=str)
def test_a_python_block_runs(block: Block, run_id: str, restored_tables: None, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("docs_block")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # a table entry is looked up by its module
    monkeypatch.setattr(sys, "path", [*sys.path])
    exec(compile(replace_names(block.text, run_id), str(block), "exec"), vars(module))  # noqa: S102  (the project's docs)


@pytest.fixture
def restored_tables() -> Iterator[None]:
    """Restore the tables of augmentations, weights, networks and samplers, to which a block may add entries."""
    tables: tuple[dict[str, Any], ...] = (TRANSFORMS, STRENGTHS, PACKAGES, UNPRETRAINED, SAMPLERS)
    before = [dict(table) for table in tables]
    yield
    for table, entries in zip(tables, before, strict=True):
        table.clear()
        table.update(entries)
