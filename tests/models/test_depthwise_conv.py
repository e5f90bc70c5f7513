"""The fast weight gradient of depthwise convolutions equals torch's up to rounding, and is used only when eligible."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from models.depthwise_conv import FastDepthwiseGrad

NAME = "_DepthwiseBackward"  # name of the fast gradient in the autograd graph


def gradients(x: torch.Tensor, weight: torch.Tensor, stride: int, fast: bool) -> tuple[torch.Tensor, ...]:
    channels, kernel = len(weight), weight.shape[-1]
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    if fast:
        with FastDepthwiseGrad():
            y = functional.conv2d(x, weight, None, (stride, stride), (kernel // 2, kernel // 2), (1, 1), channels)
        assert y.grad_fn is not None
        assert y.grad_fn.name() == NAME
    else:
        y = functional.conv2d(x, weight, None, stride, kernel // 2, 1, channels)
    gradient = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(memory_format=torch.channels_last)
    return y, *torch.autograd.grad(y, (x, weight), gradient)


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [2, 5, 7])
def test_gradients_and_their_layout_equal_those_of_torch(kernel: int, stride: int, size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 6, size, size, generator=generator).to(memory_format=torch.channels_last)
    weight = torch.randn(6, 1, kernel, kernel, generator=generator)
    fast, reference = gradients(x, weight, stride, fast=True), gradients(x, weight, stride, fast=False)
    for actual, expected in zip(fast, reference, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    assert fast[1].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("channels", "groups", "size", "trained", "bias"),
    [
        (6, 1, 5, True, False),
        (6, 3, 5, True, False),
        (6, 6, 8, True, False),
        (6, 6, 5, False, False),
        (6, 6, 5, True, True),
    ],
)
def test_other_convolutions_use_the_gradient_of_torch(
    channels: int, groups: int, size: int, trained: bool, bias: bool
) -> None:
    layer = torch.nn.Conv2d(channels, channels, 3, padding=1, groups=groups, bias=bias).requires_grad_(trained)
    with FastDepthwiseGrad():
        y = layer(torch.randn(2, channels, size, size, requires_grad=True))
    assert y.grad_fn is not None
    assert y.grad_fn.name() != NAME


def test_a_conv2d_module_uses_the_fast_gradient() -> None:
    layer = torch.nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False)
    with FastDepthwiseGrad():
        assert layer(torch.randn(2, 6, 4, 4)).grad_fn.name() == NAME
        with torch.no_grad():
            assert layer(torch.randn(2, 6, 4, 4)).grad_fn is None
