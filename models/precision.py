"""What networks are computed in while training; the packaged network always computes in fp32."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

ComputePrecision = Literal["fp32", "bf16"]

FAST_BF16_FLAGS = {"avx512_bf16", "amx_bf16"}


def has_fast_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether the processor multiplies matrices of bfloat16; without that, bfloat16 is slower than fp32."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:  # not Linux
        return False
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return bool(FAST_BF16_FLAGS.intersection(flags))
