"""S3 as a data source: mirroring, resuming and errors, with moto as the server."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

import data.sources.s3
from data.errors import DataError
from data.load_dataset import load_dataset
from data.sources.resolve import open_source

moto = pytest.importorskip("moto.server", reason="moto is not installed")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    bucket = boto3.resource("s3", region_name="us-east-1").create_bucket(Bucket="pets")
    yield bucket
    bucket.objects.all().delete()
    bucket.delete()


def upload(bucket: Any, folder: Path, prefix: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            bucket.upload_file(str(path), f"{prefix}/{path.relative_to(folder).as_posix()}")


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which the key of each downloaded object is appended."""
    keys: list[str] = []
    real = data.sources.s3._Mirror.download

    def download(self: Any, client: Any, bucket: str, obj: Any) -> None:
        keys.append(obj.key)
        real(self, client, bucket, obj)

    monkeypatch.setattr(data.sources.s3._Mirror, "download", download)
    return keys


def test_a_prefix_gives_the_same_data_set_as_its_folder(bucket: Any, image_folder: Path) -> None:
    upload(bucket, image_folder, "sets/pets v1")
    bucket.put_object(Key="sets/pets v1/red/", Body=b"")
    bucket.put_object(Key="sets/pets v10/red/x.png", Body=b"another set")
    dataset = load_dataset("s3://pets/sets/pets v1/")
    assert dataset.fingerprint == load_dataset(str(image_folder)).fingerprint
    assert dataset.name == "pets-v1"
    assert dataset.skipped == ()


def test_the_index_is_written_once(bucket: Any, image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upload(bucket, image_folder, "pets")
    writes: list[Path] = []
    monkeypatch.setattr(data.sources.s3, "write_atomically", lambda path, _: writes.append(path))
    open_source("s3://pets/pets")
    assert [path.name for path in writes] == [".etags.json"]


def test_only_changed_objects_are_downloaded_again(bucket: Any, image_folder: Path, downloads: list[str]) -> None:
    upload(bucket, image_folder, "pets")
    open_source("s3://pets/pets")
    assert len(downloads) == 24
    downloads.clear()
    bucket.upload_file(str(image_folder / "red" / "001.png"), "pets/blue/000.png")
    bucket.Object("pets/blue/001.png").delete()
    source = open_source("s3://pets/pets")
    assert downloads == ["pets/blue/000.png"]
    assert len(source.images) == 23
    assert (source.root / "blue" / "000.png").read_bytes() == (image_folder / "red" / "001.png").read_bytes()


def test_an_interrupted_download_is_resumed(
    bucket: Any, image_folder: Path, downloads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(bucket, image_folder, "pets")
    large = bytes(range(256)) * 4096
    bucket.put_object(Key="pets/red/zz large.bin", Body=large)
    real, offsets = data.sources.s3._Mirror._append, []

    def interrupted(client: Any, bucket: str, obj: Any, part: Path, offset: int) -> None:
        offsets.append(offset)
        if obj.size == len(large) and not offset:
            part.write_bytes(large[:1000])
            raise KeyboardInterrupt("interrupted")
        real(client, bucket, obj, part, offset)

    monkeypatch.setattr(data.sources.s3._Mirror, "_append", staticmethod(interrupted))
    with pytest.raises(KeyboardInterrupt, match="interrupted"):
        open_source("s3://pets/pets")
    downloads.clear()
    source = open_source("s3://pets/pets")
    assert "pets/red/zz large.bin" in downloads
    assert len(downloads) < 25
    assert 1000 in offsets
    assert (source.root / "red" / "zz large.bin").read_bytes() == large
    assert not list(source.root.rglob("*.part"))


def test_an_archive_is_downloaded_and_extracted(bucket: Any, image_folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path in image_folder.rglob("*.png"):
            archive.write(path, path.relative_to(image_folder).as_posix())
    bucket.upload_file(str(tmp_path / "a.zip"), "sets/colors.zip")
    bucket.put_object(Key="sets/other.bin", Body=b"not downloaded")
    source = open_source("s3://pets/sets/colors.zip")
    assert (source.name, source.uri) == ("colors", "s3://pets/sets/colors.zip")
    assert len(source.images) == 24


def test_a_manifest_is_downloaded_with_the_files_in_its_folder(bucket: Any, image_folder: Path) -> None:
    (image_folder / "labels.csv").write_text("path,label\nred/000.png,warm\nblue/000.png,cold\n../../x.png,cold\n")
    upload(bucket, image_folder, "sets/pets")
    for url in ("s3://pets/sets/pets/labels.csv", "s3://pets/sets/pets"):
        source = open_source(url)
        assert source.classes == ("cold", "warm")
        assert [file.reason for file in source.skipped] == ["is outside the data set (row 4)"]


def test_a_key_that_leads_outside_of_the_prefix_is_refused(bucket: Any, image_folder: Path) -> None:
    bucket.put_object(Key="pets/red/a/../../../x.png", Body=b"x")
    with pytest.raises(DataError, match="S3 keys must not lead outside their prefix"):
        open_source("s3://pets/pets")


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("s3://", "must be s3://bucket/prefix"),
        ("s3://key:secret@pets/x", "must be s3://bucket/prefix, got 'pets/x'"),
        ("s3://pets/none", "must contain files, got none below s3://pets/none"),
        ("s3://no-such-bucket/x", "got NoSuchBucket for s3://no-such-bucket/x; check the name of the bucket"),
        ("s3://pets/none.zip", "got 404 .*check the name of the bucket and the key"),
        ("https://example.com/a.zip", r"must be s3://bucket/prefix, got https://\.\.\."),
    ],
)
def test_a_uri_without_data_is_refused_with_the_reason(bucket: Any, url: str, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        open_source(url)


def test_missing_credentials_are_named(bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(DataError, match=r"got NoCredentialsError .*set AWS_ACCESS_KEY_ID"):
        open_source("s3://pets/pets")


def test_an_unreachable_endpoint_is_named(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(data.sources.s3, "ATTEMPTS", 1)
    with pytest.raises(DataError, match=r"got EndpointConnectionError .*check AWS_ENDPOINT_URL"):
        open_source("s3://pets/pets")
