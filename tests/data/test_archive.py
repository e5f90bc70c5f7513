"""Archives as data sources: formats, layouts, and protection against hostile archives."""

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


def make_zip(folder: Path, file: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, prefix + path.relative_to(folder).as_posix())
    return file


def make_tar(folder: Path, file: Path) -> Path:
    with tarfile.open(file, "w:gz" if file.name.endswith("gz") else "w") as archive:
        archive.add(folder, "pets")
    return file


def add_member(file: Path, name: str, content: bytes = b"x") -> Path:
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(name, content)
    return file


@pytest.mark.parametrize("name", ["pets v1.zip", "pets v1.tar", "pets v1.tar.gz", "pets v1.tgz", "pets v1.dat"])
def test_an_archive_gives_the_same_data_set_as_its_folder(image_folder: Path, tmp_path: Path, name: str) -> None:
    make = make_zip if name.endswith(("zip", "dat")) else make_tar
    archive = make(image_folder, tmp_path / name)
    dataset, folder = load_dataset(str(archive)), load_dataset(str(image_folder))
    assert dataset.fingerprint == folder.fingerprint
    assert dataset.name == ("pets-v1.dat" if name.endswith("dat") else "pets-v1")
    assert not list(tmp_path.glob("*/pets*"))


def test_splits_inside_wrapper_folders_are_found(make_folder, tmp_path: Path) -> None:  # noqa: ANN001
    root = make_folder({f"{split}/{label}": 4 for split in ("train", "test") for label in ("cat", "dog")})
    source = open_source(str(make_zip(root, tmp_path / "a.zip", prefix="outer/inner/")))
    assert {image.split for image in source.images} == {"train", "test"}


def test_an_archive_alone_in_a_folder_is_opened(image_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "download" / "inner"
    folder.mkdir(parents=True)
    (tmp_path / "download" / "README.md").touch()
    make_zip(image_folder, folder / "pets.zip")
    dataset = load_dataset(str(tmp_path / "download"))
    assert dataset.fingerprint == load_dataset(str(image_folder)).fingerprint
    assert (dataset.name, dataset.layout[0]) == ("pets", "found in inner/pets.zip")


def test_several_archives_alone_in_a_folder_are_a_question(image_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "download").mkdir()
    for name in ("test.zip", "train.zip"):
        make_zip(image_folder, tmp_path / "download" / name)
    with pytest.raises(
        DataError, match=r"has test\.zip and train\.zip; extract them into one folder, each into a folder"
    ):
        load_dataset(str(tmp_path / "download"))


def test_an_archive_beside_images_is_not_opened(image_folder: Path) -> None:
    expected = load_dataset(str(image_folder)).fingerprint
    make_zip(image_folder, image_folder / "backup.zip")
    assert load_dataset(str(image_folder)).fingerprint == expected


def test_a_manifest_at_the_top_level_is_used(image_folder: Path, tmp_path: Path) -> None:
    (image_folder / "labels.csv").write_text(
        "path,label\nred/000.png,warm\nblue/000.png,cold\n../../escape.png,cold\n/etc/hostname,cold\n"
    )
    source = open_source(str(make_zip(image_folder, tmp_path / "a.zip")))
    assert source.classes == ("cold", "warm")
    assert len(source.images) == 2
    assert {file.reason for file in source.skipped} == {
        "is outside the data set (row 4)",
        "is outside the data set (row 5)",
    }


def test_an_archive_is_extracted_once(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = make_zip(image_folder, tmp_path / "a.zip")
    first = open_source(str(archive))
    monkeypatch.setattr(data.sources.archive, "_extract", lambda *_: pytest.fail("extracted again"))
    assert open_source(str(archive)) == first


@pytest.mark.parametrize("name", ["../x.png", "/etc/x.png", "red/../../x.png", "..\\x.png", "C:/x.png", "C:\\x.png"])
def test_a_member_outside_of_the_archive_is_refused(image_folder: Path, tmp_path: Path, name: str) -> None:
    archive = add_member(make_zip(image_folder, tmp_path / "a.zip"), name)
    with pytest.raises(DataError, match=r"must not have paths that lead outside of it, got .*do not trust"):
        open_source(str(archive))
    assert not (tmp_path / "x.png").exists()


def test_links_and_devices_in_a_tar_are_not_extracted(image_folder: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(image_folder, "pets")
        for kind, name in ((tarfile.SYMTYPE, "link"), (tarfile.LNKTYPE, "hard"), (tarfile.CHRTYPE, "device")):
            info = tarfile.TarInfo(f"pets/red/{name}.png")
            info.type, info.linkname = kind, "/etc/hostname"
            archive.addfile(info)
    source = open_source(str(tmp_path / "a.tar"))
    assert len(source.images) == 24
    assert not [path for path in source.root.rglob("*") if path.is_symlink()]


def test_a_link_in_a_zip_is_not_extracted(image_folder: Path, tmp_path: Path) -> None:
    archive = make_zip(image_folder, tmp_path / "a.zip")
    info = zipfile.ZipInfo("red/link.png")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(info, "/etc/hostname")
    assert len(open_source(str(archive)).images) == 24


def test_a_zip_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data.sources.archive, "SMALL_BYTES", 10_000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("red/a.bmp", bytes(3_000_000))
    with pytest.raises(DataError, match=r"must extract to at most .*, got at least 3,000,000"):
        open_source(str(tmp_path / "a.zip"))


def test_a_tar_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data.sources.archive, "SMALL_BYTES", 10_000)
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as archive:
        info = tarfile.TarInfo("red/a.bmp")
        info.size = 3_000_000
        archive.addfile(info, io.BytesIO(bytes(info.size)))
    with pytest.raises(DataError, match=r"must extract to at most"):
        open_source(str(tmp_path / "a.tgz"))


def test_a_zip_with_a_wrong_member_size_is_refused(image_folder: Path, tmp_path: Path) -> None:
    archive = make_zip(image_folder, tmp_path / "a.zip")
    content = bytearray(archive.read_bytes())
    first = content.index(b"PK\x01\x02", content.index(b"blue/000.png") + 12)
    second = content.index(b"PK\x01\x02", first + 4)
    struct.pack_into("<I", content, second + 24, 5)
    archive.write_bytes(content)
    with pytest.raises(DataError, match="must be complete"):
        open_source(str(archive))


def test_too_many_files_are_refused(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data.sources.archive, "MAX_FILES", 20)
    with pytest.raises(DataError, match="at most 20 files"):
        open_source(str(make_zip(image_folder, tmp_path / "a.zip")))


def test_an_archive_that_exceeds_the_free_disk_space_is_refused(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = make_zip(image_folder, tmp_path / "a.zip")
    real = data.sources.archive.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(data.sources.archive.shutil, "disk_usage", lambda path: real._replace(free=100))
    with pytest.raises(DataError, match=r"must fit on the disk, got .* and 100 bytes free"):
        open_source(str(archive))


def test_a_truncated_archive_is_refused(image_folder: Path, tmp_path: Path) -> None:
    content = make_tar(image_folder, tmp_path / "a.tar.gz").read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="must be complete and not encrypted"):
        open_source(str(tmp_path / "a.tar.gz"))


def test_an_encrypted_archive_is_refused(image_folder: Path, tmp_path: Path) -> None:
    archive = make_zip(image_folder, tmp_path / "a.zip")
    content = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        position = -1
        while (position := content.find(signature, position + 1)) >= 0:
            content[position + offset] |= 1
    archive.write_bytes(content)
    with pytest.raises(DataError, match=r"not encrypted, got .*encrypted"):
        open_source(str(archive))


def test_an_error_names_the_archive_instead_of_the_cache_folder(image_folder: Path, tmp_path: Path) -> None:
    archive = make_zip(image_folder / "red", tmp_path / "red.zip")
    with pytest.raises(DataError, match=r"no folder in .*red\.zip"):
        open_source(str(archive))


def test_a_file_of_another_type_is_refused(image_folder: Path) -> None:
    with pytest.raises(DataError, match=r"got another file: .*000.png; pass the folder"):
        open_source(str(image_folder / "red" / "000.png"))


def test_extraction_reports_progress(image_folder: Path, tmp_path: Path) -> None:
    reports: list[tuple[str, int, int]] = []
    open_source(str(make_zip(image_folder, tmp_path / "a.zip")), progress=lambda *report: reports.append(report))
    assert reports[-1] == ("extracting files", 24, 24)


def test_a_zip_whose_file_name_is_not_valid_text_is_refused(image_folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(next(image_folder.rglob("*.png")), "red/\u00fc.png")
    local_header = archive.read_bytes()
    archive.write_bytes(local_header.replace("\u00fc".encode(), b"\xfa\xfa", 1))
    with pytest.raises(DataError, match="an archive must be complete and not encrypted"):
        open_source(str(archive))


@pytest.mark.parametrize("length", [5, 60, 400])
@pytest.mark.parametrize("ending", ["gz", "bz2", "xz"])
def test_an_incomplete_download_of_a_compressed_tar_is_refused(
    ending: str, length: int, image_folder: Path, tmp_path: Path
) -> None:
    archive = tmp_path / f"a.tar.{ending}"
    with tarfile.open(archive, f"w:{ending}") as tar:
        tar.add(image_folder, "pets")
    archive.write_bytes(archive.read_bytes()[:length])
    with pytest.raises(DataError, match=r"an archive must be complete|data must be"):
        open_source(str(archive))
