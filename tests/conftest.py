"""Fixtures for every test: a separate home folder, and small generated images."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import hypothesis
import numpy as np
import pytest
from PIL import Image

from tuning.common.environment import configure_environment

configure_environment()  # as at the start of a command, before a library is imported
os.environ["HF_HUB_OFFLINE"] = "1"  # no test may reach a model hub

# No deadline: on a busy machine an example may be slow without being wrong.
# The same examples in every run, so that a change fails only by its own fault; make faults draws new ones.
COMMON_SETTINGS = {"suppress_health_check": list(hypothesis.HealthCheck), "print_blob": True}
hypothesis.settings.register_profile("freezeline", deadline=None, derandomize=True, **COMMON_SETTINGS)
hypothesis.settings.register_profile("faults", deadline=20_000, max_examples=5_000, **COMMON_SETTINGS)
hypothesis.settings.load_profile("freezeline")

MakeFolder = Callable[..., Path]
CLASS_COLORS = ((200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 40), (40, 200, 200), (200, 40, 200))


# Folders whose tests run in one worker each, and start first, because they take longest. The second one shares Ray.
SYSTEM_GROUPS = ("tests/system/own_processes/", "tests/system/")


def scope_of(nodeid: str) -> str:
    """Return the unit of tests that one worker runs: a group of system tests, otherwise a file."""
    file = nodeid.partition("::")[0]
    return next((group for group in SYSTEM_GROUPS if file.startswith(group)), file)


def in_order_of_start(uses_real_part: Mapping[str, bool]) -> list[str]:
    """Return the tests, by id whether it is marked ``system``, in the order in which their scopes start.

    Long scopes start first: the groups, then files with marked tests, then the others by their number of tests.
    """
    sizes = Counter(map(scope_of, uses_real_part))
    with_real_parts = {scope_of(nodeid) for nodeid, is_marked in uses_real_part.items() if is_marked}

    def rank(nodeid: str) -> tuple[bool, bool, int, str]:
        scope = scope_of(nodeid)
        return scope not in SYSTEM_GROUPS, scope not in with_real_parts, -sizes[scope], scope

    return sorted(uses_real_part, key=rank)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Distribute scopes in the order of the collected tests, which ``pytest_collection_modifyitems`` determines."""
    from xdist.scheduler import LoadScopeScheduling

    class ByScope(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return scope_of(nodeid)

    config.option.loadscopereorder = False  # otherwise the scope with most tests would start first
    return ByScope(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the system tests; in a worker of pytest-xdist, sort all tests."""
    for item in items:
        if item.nodeid.startswith("tests/system/"):
            item.add_marker("system")
    if hasattr(config, "workerinput"):
        order = in_order_of_start({item.nodeid: item.get_closest_marker("system") is not None for item in items})
        positions = {nodeid: position for position, nodeid in enumerate(order)}
        items.sort(key=lambda item: positions[item.nodeid])


def skip_without(part: str) -> NoReturn:
    """Skip a test that needs a part which this machine lacks; in CI, where .ci/run installs every part, fail."""
    if os.environ.get("CI"):
        pytest.fail(f"{part} must be present in CI, but is not; .ci/run must install it")
    pytest.skip(f"{part} is missing")


@pytest.fixture(autouse=True)
def freezeline_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test its own FREEZELINE_HOME, so that tests share no cache with the user or with each other."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("FREEZELINE_HOME", str(home))
    return home


def tiny_image(label: int, number: int, size: tuple[int, int] = (20, 16)) -> Image.Image:
    """Return a noisy image [width, height] in the color of its class: easy to learn, and each one different."""
    noise = np.random.default_rng((label, number)).normal(0, 30, (size[1], size[0], 3))
    return Image.fromarray(np.clip(noise + CLASS_COLORS[label % len(CLASS_COLORS)], 0, 255).astype(np.uint8))


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """Return a factory of image folders: ``make_folder(counts={"cat": 8, "dog": 8})``; keys may be ``train/cat``."""

    def make(
        counts: dict[str, int] | None = None, name: str = "images", size: tuple[int, int] = (20, 16), first: int = 0
    ) -> Path:
        root = tmp_path / name
        for label, (folder, count) in enumerate((counts or {"blue": 8, "green": 8, "red": 8}).items()):
            (root / folder).mkdir(parents=True, exist_ok=True)
            for number in range(first, first + count):
                tiny_image(label, number, size).save(root / folder / f"{number:03}.png")
        return root

    return make


@pytest.fixture
def image_folder(make_folder: MakeFolder) -> Path:
    """Return a folder of three classes with eight easily learned images each, 20 x 16 pixels."""
    return make_folder()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a file system of 400 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(scope="session")
def datasets() -> Path:
    """Return the folder of real photo data sets; skip the test if it is absent."""
    default = Path(__file__).parents[2] / "shared" / "datasets"
    folder = Path(os.environ.get("FREEZELINE_DATASETS", default))
    if not folder.is_dir():
        pytest.skip("the real photo data sets are absent; set FREEZELINE_DATASETS to their folder")
    return folder
