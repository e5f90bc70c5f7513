"""Class activation maps: the evidence for a class at each position of an image.

HiResCAM (Draelos and Carin 2020, arXiv 2011.08891): the gradient of the class's logit at the last spatial activation,
times that activation, summed over the channels. If the activation is averaged and followed by a linear layer, this is
the class activation map of Zhou et al. (2016, arXiv 1512.04150): it sums to the logit without the bias. For other
networks it is a variant of Grad-CAM that keeps the positions apart.

Two changes keep the sum exact for more networks, and the map meaningful:

* The divisors of layer norm and of ``PerLevelRMSNorm`` count as constants, as do the weights of attention (Ali et al.
  2022, arXiv 2202.07304). Otherwise the parts of a normalized activation always sum to zero.
* The logit is taken relative to the mean of all logits: a constant added to all logits changes no probability.

Shapes: b images of s x s pixels, k classes, f features; a map is [b, h, w].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from data.errors import BackboneError
from models.classifier import Classifier
from models.device import disable_malloc_trim
from models.freezing.blocks import Block, Shape, graph_of
from models.freezing.fx_graph import find_cut_points, pooled_axes, split_at, truncate_at
from models.freezing.truncation import channels_axis
from models.heads.build import PerLevelRMSNorm

# Positions per side: a coarser map shows nothing, so that an earlier activation is used if the network has one.
MIN_SIDE = 4
MAX_EXTRA_TOKENS = 8  # before the tokens of the positions: class, distillation and register tokens

Score = Callable[[Tensor], Tensor]  # output of a network -> the sum of the images' scores, to be differentiated


class ClassActivation:
    """The class activation maps of a trained classifier, which is put into eval mode."""

    def __init__(self, classifier: Classifier, image_size: int) -> None:
        """Choose the activations for images of ``image_size`` pixels.

        Raises:
            BackboneError: the network has no activation whose positions are known.
        """
        network, blocks = classifier.eval().network, classifier.blocks
        self._head, self._device = classifier.head, classifier.device
        pooled = pooled_axes(network)
        with _ConstantDivisors():
            levels = _levels(network, pooled, blocks, image_size) if pooled else []
            cuts = [] if pooled else _last_cut(network, graph_of(network, blocks), blocks, image_size)
        if not (levels or cuts):
            raise BackboneError(
                "class activation maps need an activation whose positions are known, but "
                f"{type(network).__name__} has none at {image_size} px; use a larger image_size or another backbone"
            )
        self._maps = _LevelMaps(network, levels) if levels else cuts[0].maps

    def maps(self, images: Tensor, classes: Tensor) -> Tensor:
        """Return the maps [b, h, w] of normalized images [b, 3, s, s] for classes [b], on the CPU.

        A map is in the unit of the logits, with the sum that the module's docstring describes.
        """
        disable_malloc_trim()
        labels = classes.to(self._device)

        def score(features: Tensor) -> Tensor:
            logits = _logits(self._head, features)
            return logits.gather(1, labels[:, None]).sum() - logits.mean(1).sum()

        with _ConstantDivisors():
            return self._maps(images.to(self._device), score).cpu()


class _Cut(NamedTuple):
    """A network that is cut at an activation with these spatial axes: images -> prefix -> suffix -> output [b, f].

    The activation is the value of ``node`` in the network's graph.
    """

    node: str
    prefix: nn.Module
    suffix: nn.Module
    axes: tuple[int, ...]

    def maps(self, images: Tensor, score: Score) -> Tensor:
        """Return the maps [b, h, w] of each image's part of a score."""
        with torch.no_grad():
            return self.maps_at(self.prefix(images), score)

    def maps_at(self, activation: Tensor, score: Score) -> Tensor:
        """Return the maps of a score, given the activation."""
        products = activation * _gradient(lambda x: score(self.suffix(x)), activation)
        return _arranged(products.sum(_channels_axis(self.axes)))


class _PooledLevel(NamedTuple):
    """An activation, the value of ``node``, whose means over ``axes`` are some of the features of the head."""

    node: str
    axes: tuple[int, ...]
    columns: slice

    def maps(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """Return the maps [b, h, w] of these features' part of a score, given its gradient [b, f] at all features."""
        activation = activation.movedim(_channels_axis(self.axes), -1)
        weights = gradient[:, self.columns].reshape(len(gradient), *[1] * len(self.axes), -1)
        return _arranged((activation * weights).sum(-1) / math.prod(activation.shape[1:-1]))


class _CutLevel(NamedTuple):
    """Some of the features of the head, as the output of a network that is cut at an earlier activation."""

    cut: _Cut
    columns: slice

    @property
    def node(self) -> str:
        """The node of the earlier activation."""
        return self.cut.node

    def maps(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """Return the maps [b, h, w] of these features' part of a score, given its gradient [b, f] at all features."""
        return self.cut.maps_at(activation, lambda output: (output * gradient[:, self.columns]).sum())


_Level = _PooledLevel | _CutLevel


class _LevelMaps:
    """The maps of a network that returns the means of several activations: the sums of each level's maps."""

    def __init__(self, network: nn.Module, levels: Sequence[_Level]) -> None:
        self._network, self._levels = network, levels

    def __call__(self, images: Tensor, score: Score) -> Tensor:
        """Return the maps [b, h, w] of each image's part of a score."""
        recorder = _ActivationRecorder(self._network, {level.node for level in self._levels})
        with torch.no_grad():
            features = recorder.run(images)
        gradient = _gradient(score, features)
        return _sum_enlarged([level.maps(recorder.activations[level.node], gradient) for level in self._levels])


class _ActivationRecorder(fx.Interpreter):
    """Runs a network of ``truncate_at`` and keeps the values of some nodes."""

    def __init__(self, network: nn.Module, nodes: set[str]) -> None:
        super().__init__(network)
        self.activations: dict[str, Tensor] = {}
        self._nodes = nodes

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401  (fx's signature)
        """Run one node; keep a copy of its value, which the next node may change in place."""
        value = super().run_node(n)
        if n.name in self._nodes:
            self.activations[n.name] = value.clone()
        return value


def _gradient(score: Score, x: Tensor) -> Tensor:
    """Return the gradient of a score at ``x``."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(score(leaf.clone()), leaf)  # a copy: the first layer may work in place
    return gradient


def _logits(head: nn.Module, x: Tensor) -> Tensor:
    """Return the logits [b, k] of features [b, f], with the divisors of ``PerLevelRMSNorm`` as constants."""
    for layer in head.children():
        x = x * layer.scales(x).detach() if isinstance(layer, PerLevelRMSNorm) else layer(x)
    return x


class _ConstantDivisors(TorchFunctionMode):
    """Within this mode, gradients treat the divisors of layer norm and the weights of attention as constants."""

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:  # noqa: ANN401  # any torch function
        """Call the function, or the replacement of one with such a divisor."""
        del types
        replacement = REPLACEMENTS.get(func, func)
        return replacement(*args, **(kwargs or {}))


def _layer_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    axes = tuple(range(-len(normalized_shape), 0))
    centered = x - x.mean(axes, keepdim=True)
    output = centered * (centered.square().mean(axes, keepdim=True) + eps).rsqrt().detach()
    output = output if weight is None else output * weight
    return output if bias is None else output + bias


def _attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, scale: float | None = None, **_: object
) -> Tensor:
    scores = query @ key.transpose(-2, -1) * (scale or query.shape[-1] ** -0.5)
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    return scores.softmax(-1).detach() @ value


REPLACEMENTS: dict[Callable[..., Any], Callable[..., Any]] = {
    functional.layer_norm: _layer_norm,
    functional.scaled_dot_product_attention: _attention,
}


# --- the activations ---


def _levels(
    network: nn.Module, pooled: Mapping[str, tuple[int, ...]], blocks: Sequence[Block], image_size: int
) -> list[_Level]:
    """Return the levels of a network of ``truncate_at``, except for those without known positions.

    A level without positions, and the last one if it is small, is cut at an earlier activation.
    """
    shapes, end, levels = {block.node: block.output_shape for block in blocks}, 0, list[_Level]()
    last = list(pooled)[-1]
    for node, axes in pooled.items():
        sizes = [shapes[node][axis - 1] for axis in axes]
        begin, end = end, end + math.prod(shapes[node]) // math.prod(sizes)
        side = 0 if _has_windows(shapes.values()) and len(sizes) == 2 else _side(sizes)
        cut = list[_Cut]()
        if not sizes or (side < MIN_SIDE and node == last):
            part = truncate_at(network, network.graph, {node: axes})  # type: ignore[arg-type]  # a GraphModule
            cut = _last_cut(part, part.graph, blocks[: 1 + list(shapes).index(node)], image_size)
        if cut:
            levels.append(_CutLevel(cut[0], slice(begin, end)))
        elif side > 1:
            levels.append(_PooledLevel(node, axes, slice(begin, end)))
    return levels


def _last_cut(network: nn.Module, graph: fx.Graph | None, blocks: Sequence[Block], image_size: int) -> list[_Cut]:
    """Return the cut at the last activation with ``MIN_SIDE`` positions per side that reach the output; none without.

    In the last layers of a transformer only the class token reaches it. Without an activation of that size, the last of
    the largest ones is used.
    """
    if graph is None:
        return []
    device = next(network.parameters()).device
    probe = torch.rand(1, 3, image_size, image_size, generator=torch.Generator().manual_seed(0)).to(device)
    for cut in _cuts(network, graph, blocks, image_size):
        if cut.maps(probe, lambda output: output.softmax(1).square().sum()).any():
            return [cut]
    return []


def _cuts(network: nn.Module, graph: fx.Graph, blocks: Sequence[Block], image_size: int) -> Iterator[_Cut]:
    """Yield the cuts at a large enough activation, the last one first.

    They are within the last block, for example before its pooling, and at the ends of the blocks before it.
    """
    shapes = [block.output_shape for block in blocks]
    places = {block.node: _place(block.output_shape, shapes) for block in blocks[:-1]}
    largest = max((place.side for place in places.values() if place), default=0)
    min_side = max(2, min(MIN_SIDE, largest))
    for number, block in enumerate(reversed(blocks[:-1])):
        place = places[block.node]
        is_large = place is not None and place.side >= min_side
        if number == 0 or is_large:
            prefix, suffix = split_at(network, graph, [(block.node, block.constants)])
        if number == 0:
            for point in reversed(find_cut_points(suffix, suffix.graph, image_size, block.output_shape)):
                inner = _place(point.shape, shapes)
                if inner and inner.side >= min_side:
                    middle, rest = split_at(suffix, suffix.graph, [(point.node, point.constants)])
                    yield _Cut(point.node, nn.Sequential(prefix, middle).eval(), rest.eval(), inner.axes)
        if place and is_large:
            yield _Cut(block.node, prefix.eval(), suffix.eval(), place.axes)


class _Place(NamedTuple):
    """The spatial axes of an activation, and its positions per side."""

    axes: tuple[int, ...]
    side: int


def _place(shape: Shape, shapes: Sequence[Shape]) -> _Place | None:
    """Return where an activation's positions are; None if it can't be arranged as a map.

    ``shapes`` are those of the activations of all blocks.
    """
    channels = channels_axis(shape, shapes) if len(shape) in (2, 3) else None
    if channels is None or (_has_windows(shapes) and len(shape) == 3 and 1 not in shape):
        return None
    axes = tuple(axis for axis in range(1, len(shape) + 1) if axis != channels)
    side = _side([shape[axis - 1] for axis in axes])
    return _Place(axes, side) if side else None


def _has_windows(shapes: Iterable[Shape]) -> bool:
    """Return whether tokens may be in windows [w, n, c], whose places are not known; [1, n, c] has only one."""
    return any(len(set(shape)) == 3 for shape in shapes)


def _side(sizes: Sequence[int]) -> int:
    """Return the positions per side of an activation with these spatial sizes; 0 if they form no square.

    Tokens are in one axis, after up to ``MAX_EXTRA_TOKENS`` that belong to no position.
    """
    long = [size for size in sizes if size > 1] or [1]
    if len(long) == 2:
        return long[0] if long[0] == long[1] else 0
    side = math.isqrt(long[0])
    return side if long[0] - side**2 <= MAX_EXTRA_TOKENS else 0


def _channels_axis(axes: tuple[int, ...]) -> int:
    """Return the channel axis of an activation with these spatial axes; the batch is axis 0."""
    return next(axis for axis in range(1, len(axes) + 2) if axis not in axes)


def _arranged(values: Tensor) -> Tensor:
    """Return the map [b, h, w] of values [b, *spatial], without those of tokens that belong to no position."""
    side = _side(values.shape[1:])
    return values.flatten(1)[:, -(side**2) :].reshape(-1, side, side)


def _sum_enlarged(maps: Sequence[Tensor]) -> Tensor:
    """Return the sum of maps [b, h, w] at the size of the largest; enlarging keeps the sum of each.

    Bilinear interpolation does so by whole factors.
    """
    side = max(each.shape[-1] for each in maps)
    enlarged = [
        functional.interpolate(each[:, None], size=(side, side), mode="bilinear")[:, 0] * (each.shape[-1] / side) ** 2
        for each in maps
    ]
    return torch.stack(enlarged).sum(0)
