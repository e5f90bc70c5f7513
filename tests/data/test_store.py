from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import platformdirs
import pytest

from data.store import Store, home, write_atomically


def write(text: str):  # noqa: ANN201
    return lambda folder: (folder / "file").write_text(text)


def test_home_is_the_environment_variable(freezeline_home: Path) -> None:
    assert home() == freezeline_home


def test_home_is_the_users_cache_where_the_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FREEZELINE_HOME")
    assert home() == Path(platformdirs.user_cache_dir("freezeline"))


def test_an_entry_is_made_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert (store.get_or_make("kind/key", write("first")) / "file").read_text() == "first"
    assert (store.get_or_make("kind/key", write("second")) / "file").read_text() == "first"


def test_a_maker_that_fails_leaves_no_entry(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        Store(tmp_path).get_or_make("key", fail)
    assert [path.name for path in (Store(tmp_path).get_or_make("key", write("whole"))).iterdir()] == ["file"]


def test_what_a_killed_maker_left_is_made_anew(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from data.store import Store\n"
        "def make(folder):\n    (folder / 'half').write_text('x'); os._exit(9)\n"
        "Store(Path(sys.argv[1])).get_or_make('key', make)"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=root, check=False).returncode == 9
    assert not (tmp_path / "key").exists()
    assert [path.name for path in (Store(tmp_path).get_or_make("key", write("whole"))).iterdir()] == ["file"]


def test_two_makers_at_once_make_an_entry_once(tmp_path: Path) -> None:
    made: list[int] = []
    started = threading.Barrier(4)

    def work() -> None:
        started.wait()
        Store(tmp_path).get_or_make("key", lambda folder: made.append(1))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]


@pytest.mark.parametrize("key", ["", "/root/x", "../x", "a/../b", ".hidden", "a b", "a/"])
def test_a_key_that_could_leave_the_store_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="key must be"):
        Store(tmp_path).get_or_make(key, write(""))


def test_a_file_written_atomically_replaces_the_old_one_and_leaves_nothing_beside(tmp_path: Path) -> None:
    write_atomically(tmp_path / "new" / "file", b"one")
    write_atomically(tmp_path / "new" / "file", b"two")
    assert [(path.name, path.read_bytes()) for path in (tmp_path / "new").iterdir()] == [("file", b"two")]
