"""The weight gradient of depthwise convolutions on a CPU, where oneDNN takes far too long for it.

On small activations its time grows with the channels and hardly falls with the pixels. Summing shifted products is the
same gradient to rounding, and a training step of EfficientNet-Lite0 at 64 px is 1.2 to 1.7 times faster; from 96 px on
little is gained, and with nothing frozen nothing (``python -m benchmarks.depthwise``).

Shapes: n pictures of c channels, h x w px in and o x p px out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

Pair = tuple[int, int]

MAX_PIXELS = 49  # of the output: above, oneDNN is as fast


class FastDepthwiseGrad(TorchFunctionMode):
    """Within: depthwise convolutions whose weights are trained on a CPU have a fast weight gradient."""

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # noqa: ANN401  # whatever the function returns
        """Call the function, or a convolution of ours in its place."""
        del types
        if func is torch.conv2d and not kwargs and len(args) == 7:
            found = ConvGeometry.of(*args)
            if found:
                return _Depthwise.apply(args[0], args[1], found)
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
        """Return the geometry of a convolution that is better done here, else None."""
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
        """Return o and p."""
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
        of_input = None
        if ctx.needs_input_grad[0]:
            of_input, _, _ = torch.ops.aten.convolution_backward(
                gradient, x, weight, None, geometry.stride, geometry.padding, (1, 1), False, (0, 0), x.shape[1],
                (True, False, False),
            )  # fmt: skip
        return of_input, _of_weight(x, weight, gradient, geometry), None


def _of_weight(x: Tensor, weight: Tensor, gradient: Tensor, geometry: ConvGeometry) -> Tensor:
    """Return [c, 1, i, j]: for each place of the kernel, the products of what lay under it and the gradient."""
    (down, right), (top, left) = geometry.stride, geometry.padding
    height, width = gradient.shape[2:]
    padded = functional.pad(x, (left, left, top, top))
    found = torch.empty_like(weight)
    for i in range(weight.shape[2]):
        for j in range(weight.shape[3]):
            under = padded[:, :, i : i + down * (height - 1) + 1 : down, j : j + right * (width - 1) + 1 : right]
            found[:, 0, i, j] = (under * gradient).sum((0, 2, 3))
    return found
