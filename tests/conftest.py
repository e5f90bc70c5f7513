"""Fixtures for every test: a home of its own, and tiny generated pictures."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from PIL import Image

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ["HF_HUB_OFFLINE"] = "1"  # no test reaches a hub, wherever it runs

# A busy machine is no failure: an example may take as long as it needs.
hypothesis.settings.register_profile(
    "freezeline", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], print_blob=True
)
hypothesis.settings.load_profile("freezeline")

MakeFolder = Callable[..., Path]
COLORS = ((200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 40), (40, 200, 200), (200, 40, 200))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:  # pytest-xdist's own
    """Keep a file's tests in one of pytest-xdist's processes, and those of tests/system, which share one Ray."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "tests/system" if nodeid.startswith("tests/system/") else nodeid.partition("::")[0]

    return ByFile(config, log)


@pytest.fixture(autouse=True)
def freezeline_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test its own home, so that none touches the user's cache or finds what another left."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("FREEZELINE_HOME", str(home))
    return home


def tiny_picture(label: int, number: int, size: tuple[int, int] = (20, 16)) -> Image.Image:
    """Return a noisy picture [width, height] in its class's color: easily learned, and no two alike."""
    noise = np.random.default_rng((label, number)).normal(0, 30, (size[1], size[0], 3))
    return Image.fromarray(np.clip(noise + COLORS[label % len(COLORS)], 0, 255).astype(np.uint8))


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """Return a maker of image folders: ``make_folder(counts={"cat": 8, "dog": 8})`` or with ``train/cat`` as keys."""

    def make(
        counts: dict[str, int] | None = None, name: str = "pictures", size: tuple[int, int] = (20, 16), first: int = 0
    ) -> Path:
        root = tmp_path / name
        for at, (folder, count) in enumerate((counts or {"blue": 8, "green": 8, "red": 8}).items()):
            (root / folder).mkdir(parents=True, exist_ok=True)
            for number in range(first, first + count):
                tiny_picture(at, number, size).save(root / folder / f"{number:03}.png")
        return root

    return make


@pytest.fixture
def image_folder(make_folder: MakeFolder) -> Path:
    """Return a folder of three classes of eight pictures, 20 x 16 pixels, that are easily learned."""
    return make_folder()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a file system of 400 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(scope="session")
def datasets() -> Path:
    """Return the folder of real photo sets; skip the test where it is absent."""
    beside = Path(__file__).parents[2] / "shared" / "datasets"
    folder = Path(os.environ.get("FREEZELINE_DATASETS", beside))
    if not folder.is_dir():
        pytest.skip("the real photo sets are absent; FREEZELINE_DATASETS names their folder")
    return folder
