"""Device, precision and memory layout."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from models import device
from models.device import autocast, choose_device, disable_malloc_trim, to_channels_last
from models.precision import has_fast_bf16


def test_without_a_gpu_the_cpu_computes_in_full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device() == torch.device("cpu")
    with autocast(torch.device("cpu"), "fp32"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_bfloat16_is_used_where_the_device_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with autocast(torch.device("cpu"), "bf16"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    for is_supported, kind in ((True, torch.autocast), (False, contextlib.nullcontext)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda answer=is_supported: answer)
        assert isinstance(autocast(torch.device("cuda"), "bf16"), kind)


@pytest.mark.parametrize(
    ("cpuinfo", "is_fast"),
    [
        ("processor : 0\nflags : fpu avx512f avx512_bf16\n", True),
        ("flags\t\t: fpu amx_bf16 amx_tile\n", True),
        ("flags : fpu avx2 avx512f\n", False),
        ("Features : fp asimd\n", False),
    ],
)
def test_bfloat16_is_fast_on_processors_that_multiply_it(cpuinfo: str, is_fast: bool, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    assert has_fast_bf16(tmp_path / "cpuinfo") is is_fast
    assert not has_fast_bf16(tmp_path / "missing")


def test_channels_last_changes_only_the_layout_of_the_parameters() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8, 2))
    network.register_parameter("five", nn.Parameter(torch.ones(1, 2, 3, 4, 5)))
    parameters = list(network.parameters())
    before = [parameter.clone() for parameter in parameters]
    to_channels_last(network)
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert not network[0].weight.is_contiguous()
    assert all(new is old for new, old in zip(network.parameters(), parameters, strict=True))
    assert all(torch.equal(new, old) for new, old in zip(parameters, before, strict=True))


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_malloc_options_are_set_on_linux_only(monkeypatch: pytest.MonkeyPatch, platform: str) -> None:
    calls: list[tuple[int, int]] = []

    class Libc:
        def mallopt(self, option: int, value: int) -> None:
            calls.append((option, value))

    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(device.ctypes, "CDLL", lambda _: Libc())
    disable_malloc_trim.__wrapped__()
    assert len(calls) == (2 if platform == "linux" else 0)


def test_a_libc_without_mallopt_is_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device.ctypes, "CDLL", lambda _: object())
    disable_malloc_trim.__wrapped__()
