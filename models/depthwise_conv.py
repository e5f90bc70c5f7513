"""A fast weight gradient of depthwise convolutions on a CPU, where oneDNN's is slow.

On small activations oneDNN's time grows with the channels and hardly falls with the pixels. Summing shifted products
gives the same gradient up to rounding. CPU time of a whole training step of EfficientNet-Lite0 (32 images, one
thread) with torch's gradient, divided by that with this one, median of pairs (``python -m benchmarks.depthwise``):

    half frozen, cached features    1.33 at 96 px, 1.95 at 64 px
    half frozen                     1.18           1.62
    fully trained                   1.10           1.43

Shapes: n images of c channels, h x w px in and o x p px out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

Pair = tuple[int, int]

MAX_PIXELS = 49  # of the output; oneDNN is as fast above


class FastDepthwiseGrad(TorchFunctionMode):
    """Context manager that gives depthwise convolutions with trained weights on a CPU a fast weight gradient."""

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # noqa: ANN401  # any torch function
        """Call the function, or replace an eligible convolution."""
        del types
        if func is torch.conv2d and not kwargs and len(args) == 7 and _is_eligible(*args):
            x, weight, _, stride, padding, *_ = args
            return _Depthwise.apply(x, weight, stride, padding)
        return func(*args, **(kwargs or {}))


def _is_eligible(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair | str, dilation: Pair, groups: int
) -> bool:
    is_depthwise = groups > 1 and groups == weight.shape[0] == x.shape[1] and bias is None
    is_trained = torch.is_grad_enabled() and weight.requires_grad and x.device.type == "cpu"
    if not (is_depthwise and is_trained and x.dtype == torch.float32 and tuple(dilation) == (1, 1)):
        return False
    if isinstance(padding, str):
        return False
    sizes = zip(x.shape[2:], weight.shape[2:], stride, padding, strict=True)
    return math.prod((size + 2 * pad - kernel) // step + 1 for size, kernel, step, pad in sizes) <= MAX_PIXELS


class _Depthwise(torch.autograd.Function):
    """[n, c, h, w], weight [c, 1, i, j] -> [n, c, o, p]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:  # noqa: ANN401  # torch's
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return functional.conv2d(x, weight, None, stride, padding, 1, x.shape[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, None, None]:  # noqa: ANN401
        x, weight = ctx.saved_tensors
        input_gradient = None
        if ctx.needs_input_grad[0]:
            input_gradient, _, _ = torch.ops.aten.convolution_backward(
                gradient, x, weight, None, ctx.stride, ctx.padding, (1, 1), False, (0, 0), x.shape[1],
                (True, False, False),
            )  # fmt: skip
        return input_gradient, _weight_gradient(x, weight, gradient, ctx.stride, ctx.padding), None, None


def _weight_gradient(x: Tensor, weight: Tensor, gradient: Tensor, stride: Pair, padding: Pair) -> Tensor:
    """Return [c, 1, i, j]: for each position of the kernel, the sum of the inputs under it times the gradient."""
    height, width = gradient.shape[2:]
    padded = functional.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    result = torch.empty_like(weight)
    for i in range(weight.shape[2]):
        for j in range(weight.shape[3]):
            rows = slice(i, i + stride[0] * (height - 1) + 1, stride[0])
            columns = slice(j, j + stride[1] * (width - 1) + 1, stride[1])
            result[:, 0, i, j] = (padded[:, :, rows, columns] * gradient).sum((0, 2, 3))
    return result
