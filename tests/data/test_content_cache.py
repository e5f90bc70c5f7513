"""The content cache: creation, corruption, eviction and concurrent processes."""

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


def write(text: str) -> Callable[[Path], None]:
    """Return a function that creates an entry with one file."""

    def create(folder: Path) -> None:
        (folder / "file").write_text(text)

    return create


def test_the_state_folder_is_set_by_an_environment_variable(freezeline_home: Path) -> None:
    assert state_dir() == freezeline_home


def test_the_state_folder_is_in_the_user_cache_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FREEZELINE_HOME")
    assert state_dir() == Path(platformdirs.user_cache_dir("freezeline"))


def test_an_entry_is_created_once(tmp_path: Path) -> None:
    cache = ContentCache(tmp_path)
    assert (cache.get_or_create("kind/key", write("first")) / "file").read_text() == "first"
    assert (cache.get_or_create("kind/key", write("second")) / "file").read_text() == "first"


def test_a_failed_creation_leaves_no_entry(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "partial").write_text("")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        ContentCache(tmp_path).get_or_create("key", fail)
    assert sorted(path.name for path in ContentCache(tmp_path).get_or_create("key", write("complete")).iterdir()) == [
        ".checksums.json",
        "file",
    ]


def test_the_leftovers_of_a_killed_process_are_replaced(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from data.cache.content_cache import ContentCache\n"
        "def create(folder):\n    (folder / 'partial').write_text('x'); os._exit(9)\n"
        "ContentCache(Path(sys.argv[1])).get_or_create('key', create)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=False).returncode == 9
    assert not (tmp_path / "key").exists()
    assert sorted(path.name for path in ContentCache(tmp_path).get_or_create("key", write("complete")).iterdir()) == [
        ".checksums.json",
        "file",
    ]


def test_concurrent_threads_create_an_entry_once(tmp_path: Path) -> None:
    created: list[Path] = []
    barrier = threading.Barrier(4)

    def work() -> None:
        barrier.wait()
        ContentCache(tmp_path).get_or_create("key", created.append)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(created) == 1


def test_a_wait_for_an_entry_of_another_creator_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.cache.content_cache.WAIT_S", 0.01)
    creating, waiting = threading.Event(), threading.Event()

    def create(folder: Path) -> None:
        creating.set()
        assert waiting.wait(timeout=30)
        (folder / "file").write_text("first")

    creator = threading.Thread(target=ContentCache(tmp_path).get_or_create, args=("key", create))
    creator.start()
    assert creating.wait(timeout=30)
    entry = ContentCache(tmp_path).get_or_create("key", write("second"), waiting.set)
    creator.join()
    assert (entry / "file").read_text() == "first"


def test_an_atomic_write_replaces_the_file_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "new" / "file", b"one")
    write_atomically(tmp_path / "new" / "file", b"two")
    assert [(path.name, path.read_bytes()) for path in (tmp_path / "new").iterdir()] == [("file", b"two")]


def simulate_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reset the state that the module keeps per process."""
    monkeypatch.setattr(data.cache.content_cache, "_VERIFIED", set())
    monkeypatch.setattr(data.cache.content_cache, "_IN_USE", {})


def truncate_file(file: Path) -> None:
    file.write_text(file.read_text()[:2])


def change_byte(file: Path) -> None:
    file.write_text("F" + file.read_text()[1:])


def change_byte_but_not_mtime(file: Path) -> None:
    stat = file.stat()
    change_byte(file)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def corrupt_checksums(file: Path) -> None:
    (file.parent / ".checksums.json").write_text("{")


@pytest.mark.parametrize(
    "corrupt", [truncate_file, change_byte, change_byte_but_not_mtime, corrupt_checksums, Path.unlink]
)
def test_a_corrupt_entry_is_recreated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, corrupt: Callable[[Path], None]
) -> None:
    corrupt(ContentCache(tmp_path).get_or_create("key", write("first")) / "file")
    simulate_new_process(monkeypatch)
    assert (ContentCache(tmp_path).get_or_create("key", write("second")) / "file").read_text() == "second"


def test_an_entry_with_changed_mtimes_but_the_same_content_is_intact(tmp_path: Path) -> None:
    entry = ContentCache(tmp_path).get_or_create("key", write("first"))
    os.utime(entry / "file", (1, 1))
    assert (ContentCache(tmp_path).get_or_create("key", write("second")) / "file").read_text() == "first"


def test_get_returns_only_intact_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ContentCache(tmp_path)
    assert cache.get("key") is None
    cache.get_or_create("key", write("content"))
    cache.release("key")
    assert cache.get("key") == tmp_path / "key"
    assert cache.entries()[0].in_use
    cache.release("key")
    change_byte(tmp_path / "key" / "file")
    simulate_new_process(monkeypatch)
    assert ContentCache(tmp_path).get("key") is None
    assert not ContentCache(tmp_path).entries()[0].in_use


def create_entries(cache: ContentCache, *keys: str, size: int = 100) -> None:
    """Create entries of ``size`` bytes that are not in use, each last used one second after the previous one."""
    for position, key in enumerate(keys):
        entry = cache.get_or_create(key, write("x" * size))
        cache.release(key)
        os.utime(entry / ".checksums.json", (1000 + position, 1000 + position))


def test_the_least_recently_used_entry_is_evicted_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FREEZELINE_CACHE_GB", "350e-9")
    cache = ContentCache(tmp_path)
    create_entries(cache, "kind/a", "kind/b", "kind/c")
    cache.get_or_create("kind/a", write("never"))
    cache.release("kind/a")
    cache.get_or_create("kind/d", write("x" * 100))
    assert [entry.key for entry in cache.entries()] == ["kind/c", "kind/a", "kind/d"]


def test_entries_in_use_are_not_evicted_above_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FREEZELINE_CACHE_GB", "150e-9")
    cache = ContentCache(tmp_path)
    cache.get_or_create("a", write("x" * 100))
    cache.get_or_create("b", write("x" * 100))
    assert [(entry.key, entry.in_use) for entry in cache.entries()] == [("a", True), ("b", True)]
    cache.release("a")
    cache.evict()
    assert [entry.key for entry in cache.entries()] == ["b"]


def test_an_entry_used_by_another_process_is_kept_until_that_process_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FREEZELINE_CACHE_GB", "1e-10")  # no bytes
    code = (
        "import sys; from pathlib import Path; from data.cache.content_cache import ContentCache\n"
        "ContentCache(Path(sys.argv[1])).get_or_create('key', lambda folder: (folder / 'file').write_text('x'))\n"
        "print('created', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        cache = ContentCache(tmp_path)
        cache.evict()
        assert cache.clear() == []
        assert [entry.key for entry in cache.entries()] == ["key"]
        process.kill()
    cache.evict()
    assert cache.entries() == []


def test_clear_deletes_one_kind_or_all_entries(tmp_path: Path) -> None:
    cache = ContentCache(tmp_path)
    create_entries(cache, "pixels/a", "features/b", "features/c")
    assert cache.clear("features") == ["features/b", "features/c"]
    assert cache.clear() == ["pixels/a"]
    assert cache.entries() == []


def test_leftovers_of_killed_processes_are_deleted_when_an_entry_is_created(tmp_path: Path) -> None:
    for name in (".x.partial", ".y.deleted"):
        (tmp_path / "kind" / name).mkdir(parents=True)
    ContentCache(tmp_path).get_or_create("key", write("x"))
    assert [path for path in (tmp_path / "kind").iterdir() if path.is_dir()] == []


def test_an_open_memory_map_survives_the_deletion_of_its_entry(tmp_path: Path) -> None:
    cache = ContentCache(tmp_path)
    entry = cache.get_or_create("key", lambda folder: np.save(folder / "a.npy", np.arange(9)))
    mapped = np.load(entry / "a.npy", mmap_mode="r")
    cache.release("key")
    assert cache.clear() == ["key"]
    assert mapped.sum() == 36


def test_the_size_limit_is_set_by_an_environment_variable_in_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert size_limit_bytes() == 20_000_000_000
    monkeypatch.setenv("FREEZELINE_CACHE_GB", "1.5")
    assert size_limit_bytes() == 1_500_000_000


@pytest.mark.parametrize("text", ["much", "0", "-1", "nan", "inf"])
def test_an_invalid_size_limit_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("FREEZELINE_CACHE_GB", text)
    with pytest.raises(SettingError, match="FREEZELINE_CACHE_GB must be a number above 0, got"):
        ContentCache()
