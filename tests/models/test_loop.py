"""The training loop: learning, results, stopping, learning rates, optimizers and determinism."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from models.classifier import Classifier, build_classifier
from models.evaluation.inference import predict, run_epoch
from models.evaluation.metrics import compute_metrics
from models.freezing.blocks import find_blocks
from models.training.best_epoch import EpochScore, best_epoch
from models.training.checkpoint import EpochResult
from models.training.loop import FitHooks, fit
from models.training.train_step import Divergence, TrainStep
from models.trial_config import FitConfig, NetworkConfig
from tests.models import deterministic_fit
from tests.models.conftest import CLASSES, NETWORK, SIZE, MakeBatches, MakeClassifier
from tests.models.test_blocks import EarlyAccess, Untraceable


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("lr_scheduler", ["constant", "step", "cosine", "one_cycle", "plateau"])
def test_every_optimizer_and_lr_scheduler_reduces_the_loss(
    make_classifier: MakeClassifier, make_batches: MakeBatches, optimizer: str, lr_scheduler: str
) -> None:
    config = FitConfig.model_validate(
        {
            "optimizer": optimizer,
            "lr_scheduler": lr_scheduler,
            "lr": 0.05 if optimizer == "sgd" else 0.01,
            "max_epochs": 5,
        }
    )
    history = fit(make_classifier(0.5), make_batches(48, training=True), make_batches(24, seed=1), config)
    assert history[best_epoch([epoch.score for epoch in history]) - 1].val.accuracy > 0.6
    assert history[-1].train_loss < history[0].train_loss


def test_a_linear_probe_learns_with_a_fully_frozen_backbone(
    make_classifier: MakeClassifier, make_batches: MakeBatches
) -> None:
    config = FitConfig(lr=0.05, max_epochs=8)
    classifier = make_classifier(1.0)
    history = fit(classifier, make_batches(48, training=True), make_batches(24, seed=1), config)
    assert set(classifier.trainable_state_dict()) == {"head.1.weight", "head.1.bias"}
    assert history[-1].train_loss < history[0].train_loss


def test_epoch_metrics_have_their_mlflow_names(make_classifier: MakeClassifier, make_batches: MakeBatches) -> None:
    (epoch,) = fit(make_classifier(), make_batches(16, training=True), make_batches(8), FitConfig(max_epochs=1))
    assert set(epoch.metrics()) == {
        *("val_loss", "val_accuracy", "val_balanced_accuracy", "val_macro_f1"),
        *("train_loss", "train_accuracy", "lr", "epoch_s", "images_per_s"),
    }
    assert EpochResult.from_json(epoch.to_json()) == epoch


def test_on_batch_is_called_for_every_batch_of_training_and_validation(
    make_classifier: MakeClassifier, make_batches: MakeBatches
) -> None:
    calls: list[None] = []
    train, val = make_batches(32, training=True), make_batches(24, seed=1)
    fit(make_classifier(), train, val, FitConfig(max_epochs=2), FitHooks(on_batch=lambda: calls.append(None)))
    assert len(calls) == 2 * (len(train) + len(val))


def test_on_epoch_is_called_after_each_epoch_with_whether_it_is_the_best(
    make_classifier: MakeClassifier, make_batches: MakeBatches
) -> None:
    calls: list[tuple[int, bool]] = []
    history = fit(
        make_classifier(),
        make_batches(32, training=True),
        make_batches(24, seed=1),
        FitConfig(lr=0.03, max_epochs=6),
        FitHooks(on_epoch=lambda epoch, is_best: calls.append((epoch.epoch, is_best))),
    )
    scores = [epoch.score for epoch in history]
    assert calls == [(epoch, best_epoch(scores[:epoch]) == epoch) for epoch in range(1, 7)]


@pytest.mark.parametrize(
    ("accuracies", "best"),
    [
        ((0.5,), 1),
        ((0.5, 0.6, 0.7), 3),
        ((0.6, 0.95, 0.6, 0.75, 0.8, 0.85), 6),  # the second epoch was lucky
        ((0.9, 0.9, 0.9), 1),
        ((0.5, 0.8, 0.8, 0.8, 0.6, 0.6), 4),
    ],
)
def test_the_best_epoch_has_the_highest_trailing_mean(accuracies: tuple[float, ...], best: int) -> None:
    assert best_epoch([EpochScore(accuracy, 0.5) for accuracy in accuracies]) == best


def test_of_epochs_with_equal_accuracy_the_one_with_the_lowest_mean_loss_is_the_best() -> None:
    assert best_epoch([EpochScore(0.5, loss) for loss in (0.9, 0.5, 0.4, 0.6)]) == 4
    assert best_epoch([]) == 0


def test_the_weights_saved_in_on_epoch_reproduce_the_metrics_of_the_best_epoch(
    make_classifier: MakeClassifier, make_batches: MakeBatches
) -> None:
    classifier, fresh, val = make_classifier(), make_classifier(), make_batches(24, seed=1)

    def on_epoch(_: EpochResult, is_best: bool) -> None:
        if is_best:
            fresh.load_state_dict(classifier.trainable_state_dict(), strict=False)

    config = FitConfig(lr=0.1, max_epochs=5)
    history = fit(classifier, make_batches(32, training=True), val, config, FitHooks(on_epoch=on_epoch))
    assert (
        compute_metrics(*predict(fresh, val.epoch(0)))
        == history[best_epoch([epoch.score for epoch in history]) - 1].val
    )


def test_the_hooks_are_called_after_each_batch_epoch_and_checkpoint_in_order(
    make_classifier: MakeClassifier, make_batches: MakeBatches
) -> None:
    calls: list[str] = []
    hooks = FitHooks(
        on_batch=lambda: calls.append("batch"),
        on_epoch=lambda *_: calls.append("epoch"),
        on_checkpoint=lambda _: calls.append("checkpoint"),
    )
    train, val = make_batches(24, training=True), make_batches(16, seed=1)
    fit(make_classifier(1.0), train, val, FitConfig(max_epochs=2), hooks, accumulation_steps=2)
    assert calls == [*["batch"] * (3 + 2), "epoch", "checkpoint", *["batch"] * (3 + 2), "epoch"]


def test_an_exception_in_on_epoch_ends_training(make_classifier: MakeClassifier, make_batches: MakeBatches) -> None:
    def stop(epoch: EpochResult, _: bool) -> None:
        if epoch.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(make_classifier(), make_batches(16, training=True), make_batches(8), FitConfig(), FitHooks(on_epoch=stop))


class WorseningHead(nn.Module):
    """A head whose validation loss rises with every pass in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LazyLinear(3)
        self.passes = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layer(x)
        if self.training:
            return logits
        self.passes += 1
        return 0 * logits + torch.tensor([0.0, 0.0, float(self.passes)])


class OverflowingHead(WorseningHead):
    """A head whose logits are infinite in eval mode."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = super().forward(x)
        return logits if self.training else logits * math.inf


def with_head(classifier: Classifier, head_type: type[WorseningHead]) -> Classifier:
    head = head_type()
    with torch.no_grad():
        head(classifier.suffix(classifier.prefix(torch.zeros(2, 3, SIZE, SIZE))))
    return Classifier(classifier.network, classifier.blocks, classifier.freeze_depth, head)


@pytest.mark.parametrize(("patience", "epochs"), [(0, 7), (1, 2), (3, 4)])
def test_training_stops_after_patience_epochs_without_a_lower_validation_loss(
    make_classifier: MakeClassifier, make_batches: MakeBatches, patience: int, epochs: int
) -> None:
    config = FitConfig(max_epochs=7, patience=patience)
    history = fit(with_head(make_classifier(), WorseningHead), make_batches(8, training=True), make_batches(8), config)
    assert len(history) == epochs
    assert best_epoch([epoch.score for epoch in history]) == 1


def test_plateau_lowers_the_learning_rate_when_the_validation_loss_stops_falling(
    make_classifier: MakeClassifier, make_batches: MakeBatches
) -> None:
    config = FitConfig(lr_scheduler="plateau", lr=1e-3, max_epochs=7)
    history = fit(with_head(make_classifier(), WorseningHead), make_batches(32, training=True), make_batches(8), config)
    lrs = [epoch.lr for epoch in history]
    assert lrs[1:] == pytest.approx([1e-3, 1e-3, 3e-4, 3e-4, 9e-5, 9e-5])


@pytest.mark.parametrize(
    ("lr_scheduler", "expected"),
    [
        ("constant", [1, 1, 1, 1, 1, 1]),
        ("step", [1, 1, 0.1, 0.1, 0.01, 0.01]),
        ("cosine", [(1 + math.cos(math.pi * (4 * e + 3) / 24)) / 2 for e in range(6)]),
    ],
)
def test_the_learning_rate_follows_its_schedule_after_a_warmup(
    make_classifier: MakeClassifier, lr_scheduler: str, expected: list[float]
) -> None:
    config = FitConfig.model_validate({"lr": 0.01, "lr_scheduler": lr_scheduler, "max_epochs": 6})
    train_step = TrainStep(make_classifier(1.0), config, steps_per_epoch=4)
    lrs = []
    for _ in range(24):
        train_step(torch.zeros(2, 3, requires_grad=True), torch.tensor([0, 1]))
        lrs.append(train_step.lr)
    assert lrs[:4] == sorted(lrs[:4])
    assert lrs[0] == pytest.approx(0.002)
    assert lrs[7::4] == pytest.approx([0.01 * factor for factor in expected[1:]])


def learning_rates(classifier: Classifier, config: FitConfig, steps_per_epoch: int) -> list[float]:
    """Return the learning rate of every step of a training run."""
    train_step = TrainStep(classifier, config, steps_per_epoch)
    lrs = []
    for _ in range(steps_per_epoch * config.max_epochs):
        train_step(torch.zeros(2, 3, requires_grad=True), torch.tensor([0, 1]))
        lrs.append(train_step.lr)
    return lrs


def test_one_cycle_rises_over_30_percent_of_the_steps_and_falls_to_zero(make_classifier: MakeClassifier) -> None:
    config = FitConfig(lr=0.01, lr_scheduler="one_cycle", max_epochs=5)
    lrs = learning_rates(make_classifier(1.0), config, steps_per_epoch=8)
    assert lrs[0] == pytest.approx(0.0004)
    assert lrs[:13] == sorted(lrs[:13])
    assert lrs[12] == max(lrs) == pytest.approx(0.01)
    assert lrs[12:] == sorted(lrs[12:], reverse=True)
    assert lrs[-1] < 0.0001


@pytest.mark.parametrize(
    ("step_epochs", "expected"), [(0, [1, 1, 0.1, 0.1, 0.01, 0.01]), (2, [1, 1, 0.1, 0.1, 0.01, 0.01]), (4, [1] * 4)]
)
def test_the_step_schedule_decays_every_step_epochs(
    make_classifier: MakeClassifier, step_epochs: int, expected: list[float]
) -> None:
    config = FitConfig(lr=0.01, lr_scheduler="step", step_epochs=step_epochs, max_epochs=6)
    lrs = learning_rates(make_classifier(1.0), config, steps_per_epoch=4)[3::4]
    assert lrs[1 : len(expected)] == pytest.approx([0.01 * factor for factor in expected[1:]])
    assert lrs[-1] == pytest.approx(0.001 if step_epochs == 4 else 0.0001)


def lr_factors(classifier: Classifier, config: FitConfig) -> dict[str, float]:
    """Return the learning rate of each trainable parameter, as a share of the head's."""
    train_step = TrainStep(classifier, config, steps_per_epoch=1)
    train_step(classifier(torch.randn(4, 3, SIZE, SIZE)), torch.tensor([0, 1, 2, 0]))
    names = {id(parameter): name for name, parameter in classifier.named_parameters()}
    groups = train_step.optimizer.param_groups
    return {names[id(p)]: group["lr"] / train_step.lr for group in groups for p in group["params"]}


@pytest.mark.parametrize("truncate", [0, 1])
def test_layer_decay_lowers_the_learning_rate_of_each_block_towards_the_input(truncate: int) -> None:
    network = NetworkConfig(backbone=NETWORK, weights="none", truncate=truncate, freeze_fraction=0.5)
    classifier = build_classifier(network, len(CLASSES), SIZE, seed=0)
    factors = lr_factors(classifier, FitConfig(layer_decay=0.5))
    assert factors.keys() == {name for name, _ in classifier.trainable_parameters()}
    trainable = [block.name for block in classifier.blocks[classifier.freeze_depth :]]
    assert len(trainable) == 3
    expected = {name: 0.5 ** (len(trainable) - index) for index, name in enumerate(trainable)}
    assert factors["head.1.weight"] == factors["head.1.bias"] == 1
    for name, factor in factors.items():
        path = name.removeprefix("network.").replace("bn2", "conv_head")  # timm's norm layer after conv_head
        block = next((block for block in trainable if path.startswith(f"{block}.")), None)
        assert factor == pytest.approx(expected[block] if block else 1), name


def test_without_layer_decay_all_parameters_have_the_same_learning_rate(make_classifier: MakeClassifier) -> None:
    assert set(lr_factors(make_classifier(0.0), FitConfig()).values()) == {1}


def test_layer_decay_works_for_a_network_that_cannot_be_split() -> None:
    network = Untraceable()
    classifier = Classifier(network, find_blocks(network, SIZE), 1, nn.Linear(5, 3))
    factors = lr_factors(classifier, FitConfig(layer_decay=0.1))
    assert {name.rpartition(".")[0]: factor for name, factor in factors.items()} == pytest.approx(
        {"network.body.0": 0.01, "network.body.1": 0.01, "network.tail.0": 0.1, "network.tail.1": 0.1, "head": 1}
    )


def test_a_parameter_read_before_the_freeze_line_belongs_to_the_block_that_uses_it() -> None:
    network = EarlyAccess()
    classifier = Classifier(network, find_blocks(network, SIZE), 1, nn.Linear(4, 3))
    factors = lr_factors(classifier, FitConfig(layer_decay=0.5))
    assert factors["network.scale"] == factors["network.second.weight"] == pytest.approx(0.5)


def test_weight_decay_is_not_applied_to_norm_layers_and_biases(make_classifier: MakeClassifier) -> None:
    classifier = make_classifier(0.0)
    train_step = TrainStep(classifier, FitConfig(weight_decay=0.5), steps_per_epoch=1)
    decayed, exempt = train_step.optimizer.param_groups
    assert (decayed["weight_decay"], exempt["weight_decay"]) == (0.5, 0.0)
    names = {id(parameter): name for name, parameter in classifier.named_parameters()}
    assert all("bn" not in names[id(p)] and names[id(p)].endswith("weight") for p in decayed["params"])
    assert {p.ndim for p in exempt["params"]} == {1}
    assert len(decayed["params"]) + len(exempt["params"]) == len(names)


def test_the_optimizer_contains_only_trainable_parameters(make_classifier: MakeClassifier) -> None:
    classifier = make_classifier(0.5)
    parameters = [p for group in TrainStep(classifier, FitConfig(), 1).optimizer.param_groups for p in group["params"]]
    assert all(parameter.requires_grad for parameter in parameters)
    assert {id(p) for p in parameters} == {id(p) for _, p in classifier.trainable_parameters()}


@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_the_optimizer_has_state_only_for_trainable_parameters(
    make_classifier: MakeClassifier, make_batches: MakeBatches, optimizer: str, layer_decay: float
) -> None:
    classifier = make_classifier(0.5)
    config = FitConfig.model_validate({"optimizer": optimizer, "layer_decay": layer_decay})
    train_step = TrainStep(classifier, config, steps_per_epoch=1)
    run_epoch(classifier, make_batches(8).epoch(1), train_step)
    trainable = {id(p) for _, p in classifier.trainable_parameters()}
    assert {id(parameter) for parameter in train_step.optimizer.state} == trainable
    assert len(trainable) < len(list(classifier.parameters()))


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_fused_optimizer_steps_equal_unfused_ones_in_channels_last(
    make_classifier: MakeClassifier, make_batches: MakeBatches, optimizer: str
) -> None:
    results = []
    for fused in (True, False):
        classifier = make_classifier(0.0)
        config = FitConfig.model_validate({"optimizer": optimizer, "lr": 0.01, "weight_decay": 0.1})
        train_step = TrainStep(classifier, config, steps_per_epoch=1)
        for group in train_step.optimizer.param_groups:
            assert group["fused"]
            group["fused"], group["foreach"] = fused, False
        run_epoch(classifier, make_batches(8).epoch(1), train_step)  # one step: the gradients are bit-identical
        results.append(classifier.trainable_state_dict())
    for name, value in results[0].items():
        assert torch.allclose(value, results[1][name], rtol=1e-5, atol=1e-7), name


def test_a_nan_training_loss_ends_training_before_the_weights_change(
    make_classifier: MakeClassifier, make_batches: MakeBatches
) -> None:
    classifier = make_classifier()
    with torch.no_grad():
        classifier.head[1].bias[0] = math.nan
    before = {name: value.clone() for name, value in classifier.state_dict().items() if "weight" in name}
    with pytest.raises(Divergence, match=r"the training loss became nan in epoch 1 \(lr "):
        fit(classifier, make_batches(16, training=True), make_batches(8), FitConfig())
    assert all(torch.equal(classifier.state_dict()[name], value) for name, value in before.items())


def test_a_far_too_high_learning_rate_raises_divergence(
    make_classifier: MakeClassifier, make_batches: MakeBatches
) -> None:
    with pytest.raises(Divergence, match=r"loss became (nan|inf) in epoch \d"):
        fit(
            make_classifier(0.0),
            make_batches(24, training=True),
            make_batches(8),
            FitConfig(optimizer="sgd", lr=1e18, max_epochs=3),
        )


def test_a_nan_validation_loss_raises_divergence(make_classifier: MakeClassifier, make_batches: MakeBatches) -> None:
    with pytest.raises(Divergence, match=r"the validation loss became nan in epoch 1 \(lr "):
        fit(with_head(make_classifier(), OverflowingHead), make_batches(8, training=True), make_batches(8), FitConfig())


def test_label_smoothing_affects_only_the_training_loss(
    make_classifier: MakeClassifier, make_batches: MakeBatches
) -> None:
    results = [
        fit(
            make_classifier(1.0),
            make_batches(16, training=True),
            make_batches(8),
            FitConfig(lr=1e-12, max_epochs=1, label_smoothing=smoothing),
        )[0]
        for smoothing in (0.0, 0.3)
    ]
    assert results[0].val.loss == pytest.approx(results[1].val.loss, abs=1e-6)
    assert abs(results[0].train_loss - results[1].train_loss) > 1e-4


def test_invalid_settings_are_rejected() -> None:
    for field, value in (
        ("lr", 0),
        ("layer_decay", 0),
        ("layer_decay", 1.1),
        ("step_epochs", -1),
        ("max_epochs", 0),
        ("patience", -1),
        ("label_smoothing", 1),
        ("optimizer", "lion"),
    ):
        with pytest.raises(ValueError, match=field):
            FitConfig.model_validate({field: value})


def test_the_same_seed_gives_the_same_bits_in_a_new_process_and_in_a_reused_one() -> None:
    first, other_seed, second = deterministic_fit.train(7), deterministic_fit.train(8), deterministic_fit.train(7)
    assert first == second != other_seed
    command = [sys.executable, "-m", "tests.models.deterministic_fit", "7"]
    process = subprocess.run(command, check=True, capture_output=True, cwd=Path(__file__).parents[2])
    assert json.loads(process.stdout) == first


def test_a_training_loss_far_above_that_of_random_guessing_raises_divergence(
    make_classifier: MakeClassifier, make_batches: MakeBatches
) -> None:
    epochs: list[int] = []
    with pytest.raises(Divergence, match=r"^the training loss is .* after epoch 2, more than 3 times the loss of"):
        fit(
            make_classifier(1.0),
            make_batches(32, training=True),
            make_batches(8),
            FitConfig(optimizer="sgd", lr=1e4, lr_scheduler="constant", max_epochs=6),
            FitHooks(on_epoch=lambda result, _: epochs.append(result.epoch)),
        )
    assert epochs == [1]
