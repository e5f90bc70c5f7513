"""The champion behind ``mlflow models serve``: every way to ask, and what hostile clients send."""

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

from server.processes import free_port
from tests.models.conftest import CLASSES, Packaged
from tests.models.serving import MODEL, ask, ask_json, clean_environment, local_store, register, running


@pytest.fixture(scope="module")
def store(packaged: Packaged, tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = local_store(tmp_path_factory.mktemp("store"))
    register(uri, packaged.folder)
    return uri


@pytest.fixture(scope="module")
def server(store: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of ``mlflow models serve``, started as the docs say."""
    address = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", MODEL, "--env-manager", "local"]
    command += ["--port", address.rpartition(":")[2]]
    with running(
        command, f"{address}/ping", tmp_path_factory.mktemp("served"), MLFLOW_TRACKING_URI=store, MALLOC_ARENA_MAX="2"
    ):
        yield address


def found(body: str) -> np.ndarray:
    return np.array([[row[label] for label in CLASSES] for row in json.loads(body)["predictions"]], dtype=float)


def payloads(text: str) -> list[object]:
    return [
        {"inputs": [text, text]},
        {"instances": [text, text]},
        {"dataframe_split": {"columns": ["picture"], "data": [[text], [text]]}},
        {"dataframe_records": [{"picture": text}, {"picture": text}]},
    ]


def test_the_four_payload_forms_are_answered(packaged: Packaged, server: str) -> None:
    for payload in payloads(base64.b64encode(packaged.picture.read_bytes()).decode()):
        status, body = ask_json(server, payload)
        assert status == 200, body
        assert np.abs(found(body) - packaged.expected(2)).max() < 1e-4
        assert [row["error"] for row in json.loads(body)["predictions"]] == [None, None]


def test_one_bad_picture_of_a_request_is_an_error_of_its_own(packaged: Packaged, server: str) -> None:
    good = base64.b64encode(packaged.picture.read_bytes()).decode()
    status, body = ask_json(server, {"inputs": [good, "no picture", good]})
    assert status == 200
    rows = json.loads(body)["predictions"]
    assert [row["error"] is None for row in rows] == [True, False, True]
    assert rows[1]["label"] is rows[1]["score"] is None
    assert rows[0] == rows[2]


def test_parameters_come_with_the_request(packaged: Packaged, server: str) -> None:
    text = base64.b64encode(packaged.picture.read_bytes()).decode()
    status, body = ask_json(server, {"inputs": [text], "params": {"top_k": 2, "batch_size": 1}})
    assert status == 200, body
    (row,) = json.loads(body)["predictions"]
    assert list(row) == ["label", "score", "error", "label_2", "score_2"]
    assert row["score"] >= row["score_2"]


def test_the_line_with_curl_in_the_docs_works(packaged: Packaged, server: str, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    docs = (Path(__file__).parents[2] / "docs" / "registry.md").read_text()
    (line,) = [line.strip() for line in docs.splitlines() if line.strip().startswith("base64 -w0 cat.jpg |")]
    shutil.copy(packaged.picture, tmp_path / "cat.jpg")
    line = line.replace("http://127.0.0.1:5001", server)
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert np.abs(found(done.stdout) - packaged.expected(1)).max() < 1e-4


def test_mlflow_models_predict_answers_a_file(packaged: Packaged, store: str, tmp_path: Path) -> None:
    text = base64.b64encode(packaged.picture.read_bytes()).decode()
    (tmp_path / "request.json").write_text(json.dumps({"inputs": [text]}))
    command = [sys.executable, "-m", "mlflow", "models", "predict", "-m", MODEL, "--env-manager", "local"]
    command += ["-i", "request.json", "-o", "answer.json"]
    environment = clean_environment(MLFLOW_TRACKING_URI=store)
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert np.abs(found((tmp_path / "answer.json").read_text()) - packaged.expected(1)).max() < 1e-4


# --- hostile clients ---


def picture(form: str = "PNG", size: tuple[int, int] = (40, 30)) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise(size, 50).convert("RGB").save(buffer, form)
    return buffer.getvalue()


def png_that_claims(width: int, height: int) -> bytes:
    """Return a PNG of a few hundred bytes that says it has that many pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")


def bomb(side: int) -> bytes:
    """Return a small file that really holds ``side`` times ``side`` pixels."""
    buffer = io.BytesIO()
    Image.new("1", (side, side)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", content)
    return buffer.getvalue()


MARK = Path(tempfile.gettempdir()) / "freezeline-was-here"


class Evil:
    """Runs a program when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {MARK}",)


SVG = (
    b'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg xmlns="x"><text>&x;</text></svg>'
)
BYTES: dict[str, bytes] = {
    **{f"random bytes {seed}": np.random.default_rng(seed).bytes(10**seed) for seed in range(1, 6)},
    "cut-off PNG": picture()[:200],
    "cut-off JPEG": picture("JPEG")[:300],
    "cut-off WEBP": picture("WEBP")[:100],
    "cut-off GIF": picture("GIF")[:40],
    "cut-off TIFF": picture("TIFF")[:60],
    "cut-off BMP": picture("BMP")[:60],
    "PNG with a broken checksum": picture()[:40] + b"\0\0\0\0" + picture()[44:],
    "PNG of zero pixels": png_that_claims(0, 0),
    "PNG that claims 30,000 x 30,000": png_that_claims(30_000, 30_000),
    "PNG that claims 2 billion pixels a side": png_that_claims(2**31 - 1, 2**31 - 1),
    "PNG that claims less than the limit": png_that_claims(9_000, 9_000),
    "bomb of 225 million pixels": bomb(15_000),
    "BMP that claims much": b"BM" + struct.pack("<IHHIIiiHH", 99, 0, 0, 54, 40, 60_000, 60_000, 1, 24) + b"\0" * 40,
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file showpage\n",
    "WMF": b"\xd7\xcd\xc6\x9a" + b"\0" * 60,
    "SVG with an entity": SVG,
    "PDF": b"%PDF-1.7\n1 0 obj <</Type/Catalog>> endobj",
    "HTML": b"<html><img src=http://127.0.0.1/x></html>",
    "zip bomb": zipped(b"\0" * 10_000_000),
    "gzip bomb": gzip.compress(b"\0" * 10_000_000),
    "pickle": pickle.dumps(Evil()),
    "numpy with a pickle": b"\x93NUMPY\x01\x00" + pickle.dumps(Evil()),
    "Python": f"__import__('os').system('touch {MARK}')".encode(),
    "ELF": b"\x7fELF" + b"\0" * 200,
    "much that is no picture": np.random.default_rng(0).bytes(20_000_000),
}
TEXTS: dict[str, str] = {
    "nothing": "",
    "blank": " \n",
    "one letter": "a",
    "only padding": "====",
    "not ASCII": "ñandú" * 10,
    "a zero character": "\0",
    "data: alone": "data:",
    "data: without content": "data:image/png;base64,",
    "data: with nonsense": "data:image/png;base64,!!!!",
    "a file": "/etc/passwd",
    "a file's URL": "file:///etc/passwd",
    "a file above": "../../../../../../etc/passwd",
    "a home": "~/.ssh/id_rsa",
    "environment": "/proc/self/environ",
    "endless": "/dev/zero",
    "a host": "//127.0.0.1/share/x.png",
    "s3": "s3://bucket/x.png",
    "a model": "models:/pictures@champion",
    "much base64 of nothing": "A" * 20_000_000,
    "quotes": "'; DROP TABLE runs; --",
    "a template": "{{7*7}}${7*7}%s%n",
}
DEEP = ('{"inputs":' + "[" * 20_000 + "]" * 20_000 + "}").encode()
REQUESTS: dict[str, tuple[bytes, str]] = {
    "no body": (b"", "application/json"),
    "broken JSON": (b'{"inputs": [', "application/json"),
    "no UTF-8": (b'{"inputs": ["\xff\xfe"]}', "application/json"),
    "deep JSON": (DEEP, "application/json"),
    "unknown type": (b"x", "image/png"),
    "multipart": (b"--x\r\n\r\nx\r\n--x--", "multipart/form-data; boundary=x"),
    "broken CSV": (b'"a', "text/csv"),
    "CSV of two columns": (b"a,b\nx,y\n", "text/csv"),
    **{
        f"JSON {json.dumps(given)}": (json.dumps(given).encode(), "application/json")
        for given in (
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
# What MLflow's server itself raises for, before the model is asked: an error without an explanation, and no harm.
CRASHES_MLFLOW = {"deep JSON"}


def server_memory(server: str) -> int:
    """Return the bytes that the process behind the server's port holds, and its children."""
    port = int(server.rpartition(":")[2])
    listening = [c.pid for c in psutil.net_connections("tcp") if c.laddr and c.laddr.port == port and c.pid]
    return sum(psutil.Process(pid).memory_info().rss for pid in set(listening))


def assert_refused(server: str) -> None:
    """Send all that is hostile; each must get its own clear error."""
    texts = {**TEXTS, **{name: base64.b64encode(content).decode() for name, content in BYTES.items()}}
    for name, text in texts.items():
        status, body = ask_json(server, {"inputs": [text]})
        assert status == 200, (name, body[:300])
        (row,) = json.loads(body)["predictions"]
        assert {key for key, value in row.items() if value is not None} == {"error"}, name
        assert 5 < len(row["error"]) < 300, name
        assert "root:" not in body, name
    for name, (payload, kind) in REQUESTS.items():
        status, body = ask(server, payload, kind)
        if name in CRASHES_MLFLOW:
            assert status == 500, (name, body[:300])
            continue
        refused = 400 <= status < 500 or (status == 200 and json.loads(body)["predictions"][0]["error"])
        assert refused, (name, status, body[:300])


@pytest.mark.timeout(600)
def test_hostile_clients_get_a_clear_error_each_and_the_server_lives_on(
    packaged: Packaged, server: str, tmp_path: Path
) -> None:
    assert len(BYTES) + len(TEXTS) + len(REQUESTS) >= 50
    with socket.create_server(("127.0.0.1", 0)) as trap:  # whoever is sent a request gives itself away here
        trap.settimeout(0.1)
        url = f"http://127.0.0.1:{trap.getsockname()[1]}/x.png"
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)  # whoever opens it waits for ever
        for text in (url, str(pipe), pipe.as_uri(), str(packaged.picture)):
            assert "must be a picture in base64" in ask_json(server, {"inputs": [text]})[1]
        held = []
        for _ in range(6):  # each time about as much is sent; the first times warm up what is kept to be used again
            assert_refused(server)
            held.append(server_memory(server))
            if len(held) > 2 and held[-1] < held[-2] + 50_000_000:
                break
        else:
            pytest.fail(f"the server's memory grows: {held}")
        with pytest.raises(TimeoutError, match="timed out"):
            trap.accept()
    assert not MARK.exists()
    status, body = ask_json(server, {"inputs": [base64.b64encode(packaged.picture.read_bytes()).decode()]})
    assert status == 200
    assert np.abs(found(body) - packaged.expected(1)).max() < 1e-4
