"""Classifiers: freezing, trained parameters, and reproducible construction."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from models.backbones.factory import create_backbone
from models.classifier import Classifier, freeze_depth
from models.freezing.blocks import find_blocks
from models.trial_config import NetworkConfig
from tests.models.conftest import CLASSES, NETWORK, SIZE, MakeBatches, MakeClassifier


def train_two_epochs(classifier: Classifier, batches: MakeBatches) -> None:
    parameters = [parameter for _, parameter in classifier.trainable_parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=0.1)
    train = batches(24, training=True)
    for epoch in (1, 2):
        classifier.train()
        for x, y in train.epoch(epoch):
            optimizer.zero_grad()
            nn.functional.cross_entropy(classifier(x), y).backward()
            optimizer.step()


@pytest.mark.parametrize("backbone", [NETWORK, "timm/test_resnet", "timm/test_convnext"])
@pytest.mark.parametrize("fraction", [0.5, 1.0])
def test_training_changes_every_trained_tensor_and_no_frozen_one(
    make_classifier: MakeClassifier, make_batches: MakeBatches, backbone: str, fraction: float
) -> None:
    classifier = make_classifier(fraction, backbone)
    before = copy.deepcopy(classifier.state_dict())
    frozen = {id(t) for t in (*classifier.prefix.parameters(), *classifier.prefix.buffers())}
    frozen_names = {name for name, t in classifier.state_dict(keep_vars=True).items() if id(t) in frozen}
    assert len(frozen_names) > 5
    train_two_epochs(classifier, make_batches)
    after = classifier.state_dict()
    assert {name for name in after if torch.equal(after[name], before[name])} == frozen_names


def test_batch_norm_statistics_change_only_after_the_freeze_line(
    make_classifier: MakeClassifier, make_batches: MakeBatches
) -> None:
    classifier = make_classifier(0.5)
    norms = {
        name: copy.deepcopy(module)
        for name, module in classifier.network.named_modules()
        if isinstance(module, nn.BatchNorm2d)
    }
    train_two_epochs(classifier, make_batches)
    has_changed = {
        name: not torch.equal(norm.running_mean, classifier.network.get_submodule(name).running_mean)
        for name, norm in norms.items()
    }
    assert [has_changed[name] for name in ("bn1", "blocks.0.0.bn1", "bn2")] == [False, False, True]
    assert all(norms[name].num_batches_tracked == 0 for name in norms)
    counts = {name: int(classifier.network.get_submodule(name).num_batches_tracked) for name in norms}
    assert {counts[name] for name, changed in has_changed.items() if not changed} == {0}


def test_the_prefix_is_not_part_of_the_autograd_graph(
    make_classifier: MakeClassifier, make_batches: MakeBatches
) -> None:
    classifier = make_classifier(0.5)
    suffix_inputs: list[Tensor] = []
    classifier.suffix.register_forward_pre_hook(lambda _, inputs: suffix_inputs.append(inputs[0]))
    x, _ = next(iter(make_batches(4).epoch(0)))
    classifier(x.requires_grad_())
    assert not suffix_inputs[0].requires_grad


def test_dropout_is_off_before_the_freeze_line_and_on_after_it() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.Dropout(0.5)),
        nn.Sequential(nn.Conv2d(8, 8, 3), nn.Dropout(0.5)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    blocks = find_blocks(network, 16)
    classifier = Classifier(network, blocks, 1, nn.Linear(8, 2)).train()
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(classifier.prefix(x), classifier.prefix(x))
    assert not torch.equal(classifier(x), classifier(x))
    assert torch.equal(classifier.eval()(x), classifier(x))


def test_stochastic_depth_after_the_freeze_line_is_on_in_training_only() -> None:
    network = create_backbone("torchvision/convnext_tiny", "none", SIZE).network
    for module in network.modules():
        if hasattr(module, "layer_scale"):
            nn.init.ones_(module.layer_scale)
    classifier = Classifier(network, find_blocks(network, SIZE), 2, nn.Linear(768, 2))
    x = torch.randn(2, 3, SIZE, SIZE)
    assert not torch.equal(classifier.train()(x), classifier(x))
    assert torch.equal(classifier.eval()(x), classifier(x))


def test_the_state_dict_has_the_names_of_the_library_for_any_freeze_line(make_classifier: MakeClassifier) -> None:
    plain = create_backbone(NETWORK, "none", SIZE).network.state_dict().keys()
    for fraction in (0.0, 0.5, 1.0):
        names = make_classifier(fraction).state_dict().keys()
        assert {name.removeprefix("network.") for name in names if name.startswith("network.")} == plain
        assert {name for name in names if not name.startswith("network.")} == {"head.1.weight", "head.1.bias"}


def test_trained_weights_load_into_the_network_of_the_library(
    make_classifier: MakeClassifier, make_batches: MakeBatches
) -> None:
    classifier = make_classifier(0.5)
    train_two_epochs(classifier, make_batches)
    plain = create_backbone(NETWORK, "none", SIZE).network.eval()
    plain.load_state_dict(
        {n.removeprefix("network."): t for n, t in classifier.state_dict().items() if n.startswith("network.")}
    )
    x, _ = next(iter(make_batches(4).epoch(0)))
    assert torch.equal(classifier.eval().suffix(classifier.prefix(x)), plain(x))


def test_the_trainable_state_restores_a_new_classifier(
    make_classifier: MakeClassifier, make_batches: MakeBatches
) -> None:
    classifier = make_classifier(0.5)
    train_two_epochs(classifier, make_batches)
    state = classifier.trainable_state_dict()
    assert len(state) < len(classifier.state_dict())
    restored = make_classifier(0.5)
    restored.load_state_dict(state, strict=False)
    assert all(torch.equal(value, classifier.state_dict()[name]) for name, value in restored.state_dict().items())
    before = state["head.1.bias"].clone()
    train_two_epochs(classifier, make_batches)
    assert torch.equal(state["head.1.bias"], before)


def test_a_network_with_five_dimensional_parameters_is_supported(make_classifier: MakeClassifier) -> None:
    classifier = make_classifier(0.5, "timm/swin_tiny_patch4_window7_224")
    assert classifier(torch.zeros(2, 3, SIZE, SIZE)).shape == (2, len(CLASSES))


def test_the_trainable_state_is_contiguous_as_required_by_safetensors(make_classifier: MakeClassifier) -> None:
    classifier = make_classifier(0.0)
    assert not all(value.is_contiguous() for value in classifier.state_dict().values())
    assert all(value.is_contiguous() for value in classifier.trainable_state_dict().values())


@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
def test_the_suffix_and_the_head_are_trained(make_classifier: MakeClassifier, fraction: float) -> None:
    classifier = make_classifier(fraction)
    trained = {name for name, _ in classifier.trainable_parameters()}
    suffix = {f"network.{name}" for name, _ in classifier.suffix.named_parameters()}
    assert trained == suffix | {"head.1.weight", "head.1.bias"}
    assert not any(parameter.requires_grad for parameter in classifier.prefix.parameters())


def test_parameters_outside_the_forward_pass_are_not_trained(make_classifier: MakeClassifier) -> None:
    trained = [name for name, _ in make_classifier(0.0, "torchvision/googlenet").trainable_parameters()]
    assert len(trained) > 100
    assert not [name for name in trained if ".aux" in name]


def test_moving_a_classifier_moves_its_halves(make_classifier: MakeClassifier) -> None:
    classifier = make_classifier(0.5, "timm/test_vit_relpos").double()
    dtypes = {t.dtype for half in (classifier.prefix, classifier.suffix) for t in half.state_dict().values()}
    assert dtypes <= {torch.float64, torch.int64}
    assert classifier(torch.zeros(2, 3, SIZE, SIZE, dtype=torch.float64)).dtype == torch.float64


def test_a_copied_classifier_is_independent(make_classifier: MakeClassifier) -> None:
    classifier = make_classifier(0.5)
    copied = copy.deepcopy(classifier)
    x = torch.randn(2, 3, SIZE, SIZE)
    expected = classifier.eval()(x)
    with torch.no_grad():
        for parameter in classifier.parameters():
            parameter.zero_()
    assert torch.equal(copied.eval()(x), expected)


def test_new_weights_depend_on_the_seed_alone(make_classifier: MakeClassifier) -> None:
    first = make_classifier(seed=1).state_dict()
    torch.manual_seed(99)
    make_classifier(backbone="timm/test_vit")
    state = torch.random.get_rng_state()
    repeated = make_classifier(seed=1).state_dict()
    other = make_classifier(seed=2).state_dict()
    assert all(torch.equal(first[name], repeated[name]) for name in first)
    assert not torch.equal(first["head.1.weight"], other["head.1.weight"])
    assert not torch.equal(first["network.conv_stem.weight"], other["network.conv_stem.weight"])
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(("fraction", "depth"), [(0.0, 0), (0.5, 4), (0.49, 3), (1.0, 7)])
def test_the_freeze_fraction_is_rounded_to_blocks(make_classifier: MakeClassifier, fraction: float, depth: int) -> None:
    classifier = make_classifier(fraction)
    names = ["conv_stem", "blocks.0.0", "blocks.1.0", "blocks.2.0", "blocks.3.0", "blocks.4.0", "conv_head"]
    assert [block.name for block in classifier.blocks] == names
    assert classifier.freeze_depth == depth == freeze_depth(fraction, 7)
    assert classifier.freeze_block == (names[depth - 1] if depth else "")


def test_invalid_settings_are_rejected() -> None:
    with pytest.raises(ValueError, match="less than or equal to 1"):
        NetworkConfig(freeze_fraction=1.2)
    with pytest.raises(ValueError, match="less than 1"):
        NetworkConfig(dropout=1)
