from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

import data.sources.archive
from data.errors import DataError
from data.load_dataset import load_dataset
from data.sources.resolve import open_source


def zipped(folder: Path, file: Path, above: str = "") -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, above + path.relative_to(folder).as_posix())
    return file


def tarred(folder: Path, file: Path) -> Path:
    with tarfile.open(file, "w:gz" if file.name.endswith("gz") else "w") as archive:
        archive.add(folder, "pets")
    return file


def with_entry(file: Path, name: str, content: bytes = b"x") -> Path:
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(name, content)
    return file


@pytest.mark.parametrize("name", ["pets v1.zip", "pets v1.tar", "pets v1.tar.gz", "pets v1.tgz", "pets v1.dat"])
def test_an_archive_is_the_folder_that_was_packed(image_folder: Path, tmp_path: Path, name: str) -> None:
    pack = zipped if name.endswith(("zip", "dat")) else tarred
    packed = pack(image_folder, tmp_path / name)
    dataset, folder = load_dataset(str(packed)), load_dataset(str(image_folder))
    assert dataset.fingerprint == folder.fingerprint
    assert dataset.name == ("pets-v1.dat" if name.endswith("dat") else "pets-v1")
    assert not list(tmp_path.glob("*/pets*"))


def test_an_archive_may_wrap_splits_in_folders(make_folder, tmp_path: Path) -> None:  # noqa: ANN001
    root = make_folder({f"{split}/{label}": 4 for split in ("train", "test") for label in ("cat", "dog")})
    source = open_source(str(zipped(root, tmp_path / "a.zip", above="outer/inner/")))
    assert source.given_splits == ("train", "test")


def test_an_archive_may_hold_a_manifest(image_folder: Path, tmp_path: Path) -> None:
    (image_folder / "labels.csv").write_text(
        "path,label\nred/000.png,warm\nblue/000.png,cold\n../../escape.png,cold\n/etc/hostname,cold\n"
    )
    source = open_source(str(zipped(image_folder, tmp_path / "a.zip")))
    assert source.classes == ("cold", "warm")
    assert len(source.images) == 2
    assert {item.reason for item in source.skipped} == {
        "lies outside the data set (row 4)",
        "lies outside the data set (row 5)",
    }


def test_an_archive_is_unpacked_once(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = zipped(image_folder, tmp_path / "a.zip")
    first = open_source(str(packed))
    monkeypatch.setattr(data.sources.archive, "_unpack", lambda *_: pytest.fail("unpacked again"))
    assert open_source(str(packed)) == first


@pytest.mark.parametrize("name", ["../x.png", "/etc/x.png", "red/../../x.png", "..\\x.png", "C:/x.png", "C:\\x.png"])
def test_an_entry_that_would_lie_outside_is_refused(image_folder: Path, tmp_path: Path, name: str) -> None:
    packed = with_entry(zipped(image_folder, tmp_path / "a.zip"), name)
    with pytest.raises(DataError, match=r"entries must lie inside it, got .*don't trust it"):
        open_source(str(packed))
    assert not (tmp_path / "x.png").exists()


def test_links_and_devices_in_a_tar_are_not_unpacked(image_folder: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(image_folder, "pets")
        for kind, name in ((tarfile.SYMTYPE, "link"), (tarfile.LNKTYPE, "hard"), (tarfile.CHRTYPE, "device")):
            info = tarfile.TarInfo(f"pets/red/{name}.png")
            info.type, info.linkname = kind, "/etc/hostname"
            archive.addfile(info)
    source = open_source(str(tmp_path / "a.tar"))
    assert len(source.images) == 24
    assert not [path for path in source.root.rglob("*") if path.is_symlink()]


def test_a_link_in_a_zip_is_not_unpacked(image_folder: Path, tmp_path: Path) -> None:
    packed = zipped(image_folder, tmp_path / "a.zip")
    info = zipfile.ZipInfo("red/link.png")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr(info, "/etc/hostname")
    assert len(open_source(str(packed)).images) == 24


def test_a_zip_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data.sources.archive, "SMALL_BYTES", 10_000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("red/a.bmp", bytes(3_000_000))
    with pytest.raises(DataError, match=r"must unpack to at most .*, got 3,000,000 or more"):
        open_source(str(tmp_path / "a.zip"))


def test_a_tar_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data.sources.archive, "SMALL_BYTES", 10_000)
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as archive:
        info = tarfile.TarInfo("red/a.bmp")
        info.size = 3_000_000
        archive.addfile(info, io.BytesIO(bytes(info.size)))
    with pytest.raises(DataError, match=r"must unpack to at most"):
        open_source(str(tmp_path / "a.tgz"))


def test_a_zip_that_lies_about_a_size_is_refused(image_folder: Path, tmp_path: Path) -> None:
    packed = zipped(image_folder, tmp_path / "a.zip")
    content = bytearray(packed.read_bytes())
    at = content.index(b"PK\x01\x02", content.index(b"blue/000.png") + 12)
    struct.pack_into("<I", content, content.index(b"PK\x01\x02", at + 4) + 24, 5)
    packed.write_bytes(content)
    with pytest.raises(DataError, match="must be whole"):
        open_source(str(packed))


def test_too_many_files_are_refused(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data.sources.archive, "MAX_FILES", 20)
    with pytest.raises(DataError, match="at most 20 files"):
        open_source(str(zipped(image_folder, tmp_path / "a.zip")))


def test_an_archive_larger_than_the_disk_is_refused(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = zipped(image_folder, tmp_path / "a.zip")
    real = data.sources.archive.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(data.sources.archive.shutil, "disk_usage", lambda path: real._replace(free=100))
    with pytest.raises(DataError, match="must leave room on the disk, got 100 bytes free"):
        open_source(str(packed))


def test_a_broken_archive_is_refused(image_folder: Path, tmp_path: Path) -> None:
    whole = tarred(image_folder, tmp_path / "a.tar.gz").read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="must be whole and not encrypted"):
        open_source(str(tmp_path / "a.tar.gz"))


def test_an_encrypted_archive_is_refused(image_folder: Path, tmp_path: Path) -> None:
    packed = zipped(image_folder, tmp_path / "a.zip")
    content = bytearray(packed.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = -1
        while (at := content.find(mark, at + 1)) >= 0:
            content[at + offset] |= 1
    packed.write_bytes(content)
    with pytest.raises(DataError, match=r"not encrypted, got .*encrypted"):
        open_source(str(packed))


def test_an_archive_without_class_folders_is_named_in_the_error(image_folder: Path, tmp_path: Path) -> None:
    packed = zipped(image_folder / "red", tmp_path / "red.zip")
    with pytest.raises(DataError, match=r"no folder in .*red\.zip"):
        open_source(str(packed))


def test_another_kind_of_file_is_refused(image_folder: Path) -> None:
    with pytest.raises(DataError, match=r"got another file: .*000.png; name the folder"):
        open_source(str(image_folder / "red" / "000.png"))


def test_unpacking_tells_its_progress(image_folder: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    open_source(str(zipped(image_folder, tmp_path / "a.zip")), progress=lambda *step: told.append(step))
    assert told[-1] == ("unpacking files", 24, 24)
