"""Files of a feature cache entry: layout in memory, precision, and memory mapping."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from models.features import feature_files
from models.features.feature_files import open_features, write_features


@pytest.fixture(autouse=True)
def clear_memory() -> None:
    """Drop the arrays that earlier tests left in memory."""
    feature_files._CACHED_ARRAYS.clear()


LAYOUTS = {
    "row": torch.randn(16, 5),
    "contiguous": torch.randn(16, 3, 4, 4),
    "channels_last": torch.randn(16, 3, 4, 4).contiguous(memory_format=torch.channels_last),
    "single_pixel": torch.randn(16, 3, 1, 1),
    "single_pixel_channels_last": torch.randn(16, 3, 1, 1).to(memory_format=torch.channels_last),
    "tokens": torch.randn(16, 7, 3),
    "transposed_tokens": torch.randn(16, 3, 7).transpose(1, 2),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_features_are_read_with_the_strides_of_the_computed_ones(tmp_path: Path, layout: str) -> None:
    x = LAYOUTS[layout]
    write_features(tmp_path, lambda: iter([x, x[:5] + 1]), 21, is_fp16=False)
    features = open_features(tmp_path).rows(np.arange(16)).unpacked
    assert torch.equal(features, x)
    assert features.stride() == x.stride()
    assert torch.equal(open_features(tmp_path).rows(np.array([20, 3])).unpacked, torch.stack([x[4] + 1, x[3]]))


def test_features_beyond_the_range_of_float16_are_cached_as_float32(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    batches = [torch.full((16, 2), 3.0), torch.full((4, 2), 70_000.0)]
    with caplog.at_level(logging.INFO):
        write_features(tmp_path, lambda: iter(batches), 20, is_fp16=True)
    assert np.load(tmp_path / "features.npy").dtype == np.float32
    assert open_features(tmp_path).rows(np.array([0, 19])).unpacked.tolist() == [[3.0, 3.0], [70_000.0, 70_000.0]]
    assert "cached as float32" in caplog.text


def test_a_large_array_is_memory_mapped_and_read_without_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(feature_files, "MAX_CACHED_BYTES", 10)
    x = torch.randn(16, 3, 4, 4)
    write_features(tmp_path, lambda: iter([x]), 16, is_fp16=True)
    features = open_features(tmp_path).rows(np.array([3, 3, 0])).unpacked
    assert (features.dtype, len(feature_files._CACHED_ARRAYS), len(recwarn)) == (torch.float32, 0, 0)
    assert torch.equal(features, x[[3, 3, 0]].half().float())
    features += 1  # returned features are writable copies
