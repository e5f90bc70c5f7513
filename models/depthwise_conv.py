"""A fast weight gradient of depthwise convolutions on a CPU, where oneDNN's is slow.

On small activations oneDNN's time grows with the channels and hardly falls with the pixels. Summing shifted products
gives the same gradient up to rounding, and makes a training step of EfficientNet-Lite0 at 64 px 1.2 to 1.7 times
faster; from 96 px on it gains little, and with nothing frozen nothing (``python -m benchmarks.depthwise``).

Shapes: n images of c channels, h x w px in and o x p px out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

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
        if func is torch.conv2d and not kwargs and len(args) == 7:
            geometry = ConvGeometry.of(*args)
            if geometry:
                return _Depthwise.apply(args[0], args[1], geometry)
        return func(*args, **(kwargs or {}))


class ConvGeometry(NamedTuple):
    """Stride and padding of a convolution, by height and width."""

    stride: tuple[int, int]
    padding: tuple[int, int]

    @classmethod
    def of(
        cls,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: Pair,
        padding: Pair | str,
        dilation: Pair,
        groups: int,
    ) -> ConvGeometry | None:
        """Return the geometry of an eligible convolution, else None."""
        is_depthwise = groups > 1 and groups == weight.shape[0] == x.shape[1] and bias is None
        is_trained = torch.is_grad_enabled() and weight.requires_grad and x.device.type == "cpu"
        if not (is_depthwise and is_trained and x.dtype == torch.float32 and isinstance(padding, tuple)):
            return None
        if tuple(dilation) != (1, 1):
            return None
        geometry = cls(stride, padding)
        height, width = geometry.output(x, weight)
        return geometry if height * width <= MAX_PIXELS else None

    def output(self, x: Tensor, weight: Tensor) -> tuple[int, int]:
        """Return the output size (o, p)."""
        sizes = zip(x.shape[2:], weight.shape[2:], self.stride, self.padding, strict=True)
        height, width = ((size + 2 * pad - kernel) // step + 1 for size, kernel, step, pad in sizes)
        return height, width


class _Depthwise(torch.autograd.Function):
    """[n, c, h, w], weight [c, 1, i, j] -> [n, c, o, p]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, geometry: ConvGeometry) -> Tensor:  # noqa: ANN401  # torch's
        ctx.save_for_backward(x, weight)
        ctx.geometry = geometry
        return functional.conv2d(x, weight, None, geometry.stride, geometry.padding, 1, x.shape[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, None]:  # noqa: ANN401
        x, weight = ctx.saved_tensors
        geometry: ConvGeometry = ctx.geometry
        input_gradient = None
        if ctx.needs_input_grad[0]:
            input_gradient, _, _ = torch.ops.aten.convolution_backward(
                gradient, x, weight, None, geometry.stride, geometry.padding, (1, 1), False, (0, 0), x.shape[1],
                (True, False, False),
            )  # fmt: skip
        return input_gradient, _weight_gradient(x, weight, gradient, geometry), None


def _weight_gradient(x: Tensor, weight: Tensor, gradient: Tensor, geometry: ConvGeometry) -> Tensor:
    """Return [c, 1, i, j]: for each position of the kernel, the sum of the inputs under it times the gradient."""
    (stride_y, stride_x), (pad_y, pad_x) = geometry.stride, geometry.padding
    height, width = gradient.shape[2:]
    padded = functional.pad(x, (pad_x, pad_x, pad_y, pad_y))
    result = torch.empty_like(weight)
    for i in range(weight.shape[2]):
        for j in range(weight.shape[3]):
            rows = slice(i, i + stride_y * (height - 1) + 1, stride_y)
            columns = slice(j, j + stride_x * (width - 1) + 1, stride_x)
            result[:, 0, i, j] = (padded[:, :, rows, columns] * gradient).sum((0, 2, 3))
    return result
