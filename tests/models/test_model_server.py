"""The champion behind ``mlflow models serve``: request formats and hostile clients."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import pickle
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from tests.conftest import skip_without
from tests.models.conftest import CLASSES, Packaged
from tests.models.model_server import (
    MODEL_URI,
    clean_environment,
    create_tracking_store,
    invoke,
    invoke_json,
    register_champion,
    run_server,
)
from tests.services import free_port

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def tracking_uri(packaged: Packaged, tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = create_tracking_store(tmp_path_factory.mktemp("store"))
    register_champion(uri, packaged.folder)
    return uri


@pytest.fixture(scope="module")
def server(tracking_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of ``mlflow models serve``, started as documented."""
    address = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", MODEL_URI, "--env-manager", "local"]
    command += ["--port", address.rpartition(":")[2]]
    folder = tmp_path_factory.mktemp("served")
    with run_server(command, f"{address}/ping", folder, MLFLOW_TRACKING_URI=tracking_uri, MALLOC_ARENA_MAX="2"):
        yield address


def class_probabilities(body: str) -> np.ndarray:
    """Return the probabilities [n, k] in a response."""
    return np.array([[row[label] for label in CLASSES] for row in json.loads(body)["predictions"]], dtype=float)


def payloads(text: str) -> list[object]:
    """Return requests for two copies of an image, in every JSON format that MLflow accepts."""
    return [
        {"inputs": [text, text]},
        {"instances": [text, text]},
        {"dataframe_split": {"columns": ["image"], "data": [[text], [text]]}},
        {"dataframe_records": [{"image": text}, {"image": text}]},
    ]


def test_the_four_payload_formats_are_accepted(packaged: Packaged, server: str) -> None:
    for payload in payloads(base64.b64encode(packaged.image_file.read_bytes()).decode()):
        status, body = invoke_json(server, payload)
        assert status == 200, body
        assert np.abs(class_probabilities(body) - packaged.expected(2)).max() < 1e-4
        assert [row["error"] for row in json.loads(body)["predictions"]] == [None, None]


def test_an_unreadable_image_in_a_request_does_not_affect_the_others(packaged: Packaged, server: str) -> None:
    image = base64.b64encode(packaged.image_file.read_bytes()).decode()
    status, body = invoke_json(server, {"inputs": [image, "not an image", image]})
    assert status == 200
    rows = json.loads(body)["predictions"]
    assert [row["error"] is None for row in rows] == [True, False, True]
    assert rows[1]["label"] is rows[1]["score"] is None
    assert rows[0] == rows[2]


def test_parameters_are_read_from_the_request(packaged: Packaged, server: str) -> None:
    text = base64.b64encode(packaged.image_file.read_bytes()).decode()
    status, body = invoke_json(server, {"inputs": [text], "params": {"top_k": 2, "batch_size": 1}})
    assert status == 200, body
    (row,) = json.loads(body)["predictions"]
    assert list(row) == ["label", "score", "error", "label_2", "score_2"]
    assert row["score"] >= row["score_2"]


def test_the_documented_curl_command_works(packaged: Packaged, server: str, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        skip_without("curl")
    docs = (Path(__file__).parents[2] / "docs" / "registry.md").read_text()
    (command,) = [line.strip() for line in docs.splitlines() if line.strip().startswith("base64 -w0 cat.jpg |")]
    shutil.copy(packaged.image_file, tmp_path / "cat.jpg")
    command = command.replace("http://127.0.0.1:5001", server)
    process = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert np.abs(class_probabilities(process.stdout) - packaged.expected(1)).max() < 1e-4


def test_mlflow_models_predict_accepts_a_request_file(packaged: Packaged, tracking_uri: str, tmp_path: Path) -> None:
    text = base64.b64encode(packaged.image_file.read_bytes()).decode()
    (tmp_path / "request.json").write_text(json.dumps({"inputs": [text]}))
    command = [sys.executable, "-m", "mlflow", "models", "predict", "-m", MODEL_URI, "--env-manager", "local"]
    command += ["-i", "request.json", "-o", "response.json"]
    environment = clean_environment(MLFLOW_TRACKING_URI=tracking_uri)
    process = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert np.abs(class_probabilities((tmp_path / "response.json").read_text()) - packaged.expected(1)).max() < 1e-4


# --- hostile clients ---


def image_bytes(image_format: str = "PNG", size: tuple[int, int] = (40, 30)) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise(size, 50).convert("RGB").save(buffer, image_format)
    return buffer.getvalue()


def png_with_declared_size(width: int, height: int) -> bytes:
    """Return a PNG of a few hundred bytes whose header declares this size."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


def pixel_bomb(side: int) -> bytes:
    """Return a small PNG that decodes to ``side`` x ``side`` pixels."""
    buffer = io.BytesIO()
    Image.new("1", (side, side)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", content)
    return buffer.getvalue()


MARKER = Path(tempfile.gettempdir()) / "freezeline-was-here"


class MaliciousPickle:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {MARKER}",)


SVG = (
    b'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg xmlns="x"><text>&x;</text></svg>'
)
BYTES: dict[str, bytes] = {
    **{f"random bytes {seed}": np.random.default_rng(seed).bytes(10**seed) for seed in range(1, 6)},
    "truncated PNG": image_bytes()[:200],
    "truncated JPEG": image_bytes("JPEG")[:300],
    "truncated WEBP": image_bytes("WEBP")[:100],
    "truncated GIF": image_bytes("GIF")[:40],
    "truncated TIFF": image_bytes("TIFF")[:60],
    "truncated BMP": image_bytes("BMP")[:60],
    "PNG with a broken checksum": image_bytes()[:40] + b"\0\0\0\0" + image_bytes()[44:],
    "PNG of zero pixels": png_with_declared_size(0, 0),
    "PNG that declares 30,000 x 30,000": png_with_declared_size(30_000, 30_000),
    "PNG that declares 2 billion pixels per side": png_with_declared_size(2**31 - 1, 2**31 - 1),
    "PNG that declares fewer pixels than the limit": png_with_declared_size(9_000, 9_000),
    "bomb of 225 million pixels": pixel_bomb(15_000),
    "BMP that declares 60,000 x 60,000": b"BM"
    + struct.pack("<IHHIIiiHH", 99, 0, 0, 54, 40, 60_000, 60_000, 1, 24)
    + b"\0" * 40,
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file showpage\n",
    "WMF": b"\xd7\xcd\xc6\x9a" + b"\0" * 60,
    "SVG with an entity": SVG,
    "PDF": b"%PDF-1.7\n1 0 obj <</Type/Catalog>> endobj",
    "HTML": b"<html><img src=http://127.0.0.1/x></html>",
    "zip bomb": zipped(b"\0" * 10_000_000),
    "gzip bomb": gzip.compress(b"\0" * 10_000_000),
    "pickle": pickle.dumps(MaliciousPickle()),
    "numpy with a pickle": b"\x93NUMPY\x01\x00" + pickle.dumps(MaliciousPickle()),
    "Python": f"__import__('os').system('touch {MARKER}')".encode(),
    "ELF": b"\x7fELF" + b"\0" * 200,
    "20 MB of random bytes": np.random.default_rng(0).bytes(20_000_000),
}
TEXTS: dict[str, str] = {
    "empty": "",
    "blank": " \n",
    "one character": "a",
    "only padding": "====",
    "not ASCII": "ñandú" * 10,
    "a null character": "\0",
    "only data:": "data:",
    "data: without content": "data:image/png;base64,",
    "data: with invalid base64": "data:image/png;base64,!!!!",
    "a file": "/etc/passwd",
    "a file's URL": "file:///etc/passwd",
    "a parent folder": "../../../../../../etc/passwd",
    "a home folder": "~/.ssh/id_rsa",
    "the environment": "/proc/self/environ",
    "an endless file": "/dev/zero",
    "a network share": "//127.0.0.1/share/x.png",
    "s3": "s3://bucket/x.png",
    "a model": "models:/images@champion",
    "20 MB of base64": "A" * 20_000_000,
    "quotes": "'; DROP TABLE runs; --",
    "a template": "{{7*7}}${7*7}%s%n",
}
DEEP = ('{"inputs":' + "[" * 20_000 + "]" * 20_000 + "}").encode()
REQUESTS: dict[str, tuple[bytes, str]] = {
    "no body": (b"", "application/json"),
    "broken JSON": (b'{"inputs": [', "application/json"),
    "invalid UTF-8": (b'{"inputs": ["\xff\xfe"]}', "application/json"),
    "deep JSON": (DEEP, "application/json"),
    "unknown content type": (b"x", "image/png"),
    "multipart": (b"--x\r\n\r\nx\r\n--x--", "multipart/form-data; boundary=x"),
    "broken CSV": (b'"a', "text/csv"),
    "CSV with two columns": (b"a,b\nx,y\n", "text/csv"),
    **{
        f"JSON {json.dumps(document)}": (json.dumps(document).encode(), "application/json")
        for document in (
            {},
            [],
            "text",
            5,
            None,
            {"inputs": None},
            {"inputs": 5},
            {"inputs": [1, 2]},
            {"inputs": [[["x"]]]},
            {"inputs": {"a": {"b": 1}}},
            {"instances": [{"x": [1]}]},
            {"dataframe_split": {}},
            {"dataframe_split": {"data": [["a", "b"]]}},
            {"dataframe_split": {"data": "x"}},
            {"dataframe_records": [[1]]},
            {"dataframe_records": 7},
            {"inputs": ["x"], "instances": ["x"]},
            {"inputs": ["x"], "params": 5},
            {"inputs": ["x"], "params": {"top_k": 99}},
            {"inputs": ["x"], "params": {"top_k": "x"}},
            {"inputs": ["x"], "params": {"batch_size": 0}},
            {"inputs": ["x"], "params": {"batch_size": 10**9}},
        )
    },
}
# MLflow's server fails with status 500 before it calls the model; harmless.
MLFLOW_INTERNAL_ERRORS = {"deep JSON"}


def server_memory(server: str) -> int:
    """Return the resident memory in bytes of the processes that listen on the server's port."""
    port = int(server.rpartition(":")[2])
    listening = [c.pid for c in psutil.net_connections("tcp") if c.laddr and c.laddr.port == port and c.pid]
    return sum(psutil.Process(pid).memory_info().rss for pid in set(listening))


def assert_hostile_requests_are_rejected(server: str) -> None:
    """Send every hostile request and check that each gets a clear error."""
    texts = {**TEXTS, **{name: base64.b64encode(content).decode() for name, content in BYTES.items()}}
    for name, text in texts.items():
        status, body = invoke_json(server, {"inputs": [text]})
        assert status == 200, (name, body[:300])
        (row,) = json.loads(body)["predictions"]
        assert {key for key, value in row.items() if value is not None} == {"error"}, name
        assert 5 < len(row["error"]) < 300, name
        assert "root:" not in body, name
    for name, (payload, content_type) in REQUESTS.items():
        status, body = invoke(server, payload, content_type)
        if name in MLFLOW_INTERNAL_ERRORS:
            assert status == 500, (name, body[:300])
            continue
        is_rejected = 400 <= status < 500 or (status == 200 and json.loads(body)["predictions"][0]["error"])
        assert is_rejected, (name, status, body[:300])


@pytest.mark.timeout(600)
def test_hostile_requests_get_a_clear_error_and_the_server_survives(
    packaged: Packaged, server: str, tmp_path: Path
) -> None:
    assert len(BYTES) + len(TEXTS) + len(REQUESTS) >= 50
    with socket.create_server(("127.0.0.1", 0)) as honeypot:  # detects requests to a URL in an input
        honeypot.settimeout(0.1)
        url = f"http://127.0.0.1:{honeypot.getsockname()[1]}/x.png"
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)  # opening it for reading blocks forever
        for text in (url, str(pipe), pipe.as_uri(), str(packaged.image_file)):
            assert "a string must be a base64-encoded image" in invoke_json(server, {"inputs": [text]})[1]
        memory = []
        for _ in range(6):  # every round sends about the same amount; the first rounds fill caches
            assert_hostile_requests_are_rejected(server)
            memory.append(server_memory(server))
            if len(memory) > 2 and memory[-1] < memory[-2] + 50_000_000:
                break
        else:
            pytest.fail(f"the server's memory grows: {memory}")
        with pytest.raises(TimeoutError, match="timed out"):
            honeypot.accept()
    assert not MARKER.exists()
    status, body = invoke_json(server, {"inputs": [base64.b64encode(packaged.image_file.read_bytes()).decode()]})
    assert status == 200
    assert np.abs(class_probabilities(body) - packaged.expected(1)).max() < 1e-4
