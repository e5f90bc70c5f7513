"""Record the golden values again."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest

from tests.golden import FOLDER
from tests.golden.proposals import all_proposals
from tests.golden.search import searched_epochs
from tests.golden.splits import all_splits


def write(name: str, value: object) -> None:
    (FOLDER / f"{name}.json").write_text(json.dumps(value, indent=0, sort_keys=True) + "\n")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("FREEZELINE_HOME", f"{folder}/home")
        write("proposals", all_proposals())
        write("splits", all_splits(Path(folder)))
        write("search", searched_epochs(Path(folder), patch))


if __name__ == "__main__":
    main()
