"""TODO"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import platformdirs
import pytest

import data.cache.content_cache
from data.atomic_write import write_atomically
from data.cache.content_cache import ContentCache, size_limit_bytes
from data.errors import SettingError
from data.home import state_dir

ROOT = Path(__file__).parents[2]


def write(text: str):  # noqa: ANN201
    return lambda folder: (folder / "file").write_text(text)


def test_home_is_the_environment_variable(freezeline_home: Path) -> None:
    assert state_dir() == freezeline_home


def test_home_is_the_users_cache_where_the_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FREEZELINE_HOME")
    assert state_dir() == Path(platformdirs.user_cache_dir("freezeline"))


def test_an_entry_is_made_once(tmp_path: Path) -> None:
    store = ContentCache(tmp_path)
    assert (store.get_or_create("kind/key", write("first")) / "file").read_text() == "first"
    assert (store.get_or_create("kind/key", write("second")) / "file").read_text() == "first"


def test_a_maker_that_fails_leaves_no_entry(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        ContentCache(tmp_path).get_or_create("key", fail)
    assert sorted(path.name for path in ContentCache(tmp_path).get_or_create("key", write("whole")).iterdir()) == [
        ".sums.json",
        "file",
    ]


def test_what_a_killed_maker_left_is_made_anew(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from data.cache.content_cache import Store\n"
        "def make(folder):\n    (folder / 'half').write_text('x'); os._exit(9)\n"
        "Store(Path(sys.argv[1])).get_or_make('key', make)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=False).returncode == 9
    assert not (tmp_path / "key").exists()
    assert sorted(path.name for path in ContentCache(tmp_path).get_or_create("key", write("whole")).iterdir()) == [
        ".sums.json",
        "file",
    ]


def test_two_makers_at_once_make_an_entry_once(tmp_path: Path) -> None:
    made: list[int] = []
    started = threading.Barrier(4)

    def work() -> None:
        started.wait()
        ContentCache(tmp_path).get_or_create("key", lambda folder: made.append(1))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]


@pytest.mark.parametrize("key", ["", "/etc/x", "../x", "a/../b", ".hidden", "a b", "a/"])
def test_a_key_that_could_leave_the_store_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="key must be"):
        ContentCache(tmp_path).get_or_create(key, write(""))


def test_a_file_written_atomically_replaces_the_old_one_and_leaves_nothing_beside(tmp_path: Path) -> None:
    write_atomically(tmp_path / "new" / "file", b"one")
    write_atomically(tmp_path / "new" / "file", b"two")
    assert [(path.name, path.read_bytes()) for path in (tmp_path / "new").iterdir()] == [("file", b"two")]


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make as if the process had just started."""
    monkeypatch.setattr(data.cache.content_cache, "_VERIFIED", set())
    monkeypatch.setattr(data.cache.content_cache, "_IN_USE", {})


def spoil_half(file: Path) -> None:
    file.write_text(file.read_text()[:2])


def spoil_a_byte(file: Path) -> None:
    file.write_text("F" + file.read_text()[1:])


def spoil_a_byte_unseen(file: Path) -> None:
    state = file.stat()
    spoil_a_byte(file)
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))


def spoil_sums(file: Path) -> None:
    (file.parent / ".sums.json").write_text("{")


@pytest.mark.parametrize("spoil", [spoil_half, spoil_a_byte, spoil_a_byte_unseen, spoil_sums, Path.unlink])
def test_a_spoiled_entry_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], None]
) -> None:
    spoil(ContentCache(tmp_path).get_or_create("key", write("first")) / "file")
    forget(monkeypatch)
    assert (ContentCache(tmp_path).get_or_create("key", write("second")) / "file").read_text() == "second"


def test_an_entry_that_was_copied_with_other_times_is_whole(tmp_path: Path) -> None:
    entry = ContentCache(tmp_path).get_or_create("key", write("first"))
    os.utime(entry / "file", (1, 1))
    assert (ContentCache(tmp_path).get_or_create("key", write("second")) / "file").read_text() == "first"


def test_an_entry_is_got_only_where_it_is_there_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ContentCache(tmp_path)
    assert store.get("key") is None
    store.get_or_create("key", write("content"))
    store.release("key")
    assert store.get("key") == tmp_path / "key"
    assert store.entries()[0].in_use
    store.release("key")
    spoil_a_byte(tmp_path / "key" / "file")
    forget(monkeypatch)
    assert ContentCache(tmp_path).get("key") is None
    assert not ContentCache(tmp_path).entries()[0].in_use


def test_verify_reads_every_entry(tmp_path: Path) -> None:
    store = ContentCache(tmp_path)
    spoil_a_byte_unseen(store.get_or_create("a", write("content")) / "file")
    store.get_or_create("b", write("content"))
    assert store.verify() == ["a"]


def made(store: ContentCache, *keys: str, size: int = 100) -> None:
    """Make entries of ``size`` bytes, each used a second after the one before, by a process that has ended."""
    for at, key in enumerate(keys):
        entry = store.get_or_create(key, write("x" * size))
        store.release(key)
        os.utime(entry / ".sums.json", (1000 + at, 1000 + at))


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    store = ContentCache(tmp_path, limit_bytes=350)
    made(store, "kind/a", "kind/b", "kind/c")
    store.get_or_create("kind/a", write("never"))
    store.release("kind/a")
    store.get_or_create("kind/d", write("x" * 100))
    assert [entry.key for entry in store.entries()] == ["kind/c", "kind/a", "kind/d"]
    assert store.size_bytes() == 300
    assert not store.has("kind/b")
    assert store.has("kind/a")


def test_what_is_in_use_stays_even_above_the_limit(tmp_path: Path) -> None:
    store = ContentCache(tmp_path, limit_bytes=150)
    store.get_or_create("a", write("x" * 100))
    store.get_or_create("b", write("x" * 100))
    assert [(entry.key, entry.in_use) for entry in store.entries()] == [("a", True), ("b", True)]
    store.release("a")
    assert store.evict() == ["a"]


def test_what_another_living_process_uses_stays_until_it_ends(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from data.cache.content_cache import Store\n"
        "Store(Path(sys.argv[1])).get_or_make('key', lambda folder: (folder / 'file').write_text('x'))\n"
        "print('made', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        store = ContentCache(tmp_path, limit_bytes=0)
        assert store.evict() == []
        assert store.clear() == []
        process.kill()
    assert store.evict() == ["key"]


def test_clearing_throws_out_one_kind_or_all(tmp_path: Path) -> None:
    store = ContentCache(tmp_path)
    made(store, "pixels/a", "features/b", "features/c")
    assert store.clear("features") == ["features/b", "features/c"]
    assert store.clear() == ["pixels/a"]
    assert store.entries() == []


def test_what_killed_processes_left_is_swept_away_when_something_is_made(tmp_path: Path) -> None:
    for name in (".x.making", ".y.gone"):
        (tmp_path / "kind" / name).mkdir(parents=True)
    ContentCache(tmp_path).get_or_create("key", write("x"))
    assert not list((tmp_path / "kind").glob("*.making")) + list((tmp_path / "kind").glob(".*.gone"))


def test_an_open_map_outlives_its_entry(tmp_path: Path) -> None:
    store = ContentCache(tmp_path)
    entry = store.get_or_create("key", lambda folder: np.save(folder / "a.npy", np.arange(9)))
    mapped = np.load(entry / "a.npy", mmap_mode="r")
    store.release("key")
    assert store.clear() == ["key"]
    assert mapped.sum() == 36


def test_the_limit_is_the_environment_variable_in_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert size_limit_bytes() == 20_000_000_000
    monkeypatch.setenv("FREEZELINE_CACHE_GB", "1.5")
    assert size_limit_bytes() == 1_500_000_000


@pytest.mark.parametrize("text", ["much", "0", "-1", "nan", "inf"])
def test_a_limit_that_is_no_size_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("FREEZELINE_CACHE_GB", text)
    with pytest.raises(SettingError, match="FREEZELINE_CACHE_GB must be a number above 0, got"):
        ContentCache()
