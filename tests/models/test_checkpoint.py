"""A training resumed from its checkpoint gives the same bits as an uninterrupted one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from models.training.checkpoint import EpochResult, TrainingState, load_checkpoint, save_checkpoint
from models.training.loop import FitHooks, fit
from models.trial_config import FitConfig
from tests.models.conftest import MakeBatches, MakeClassifier

EPOCHS = 5
StateDict = dict[str, torch.Tensor]
Result = tuple[tuple[EpochResult, ...], StateDict]
Train = Callable[..., Result]


class Killed(Exception):
    """Simulates that the process is killed."""


def metrics_without_timing(result: EpochResult) -> dict[str, float]:
    return {name: value for name, value in result.metrics().items() if name not in {"epoch_s", "images_per_s"}}


@pytest.fixture
def train(make_classifier: MakeClassifier, make_batches: MakeBatches) -> Train:
    """Return a function that trains a new classifier and returns all epochs and the last weights.

    With ``file`` it resumes from that checkpoint, if it exists, and updates it. It is killed in the epoch after
    ``dies_after``.
    """

    def train(config: FitConfig, file: Path | None = None, dies_after: int = EPOCHS) -> Result:
        def on_checkpoint(get_state: Callable[[], TrainingState]) -> None:
            if file:
                save_checkpoint(file, get_state())

        def on_epoch(result: EpochResult, _: bool) -> None:
            if result.epoch > dies_after:
                raise Killed

        classifier = make_classifier(0.5, dropout=0.3)
        state = load_checkpoint(file) if file else None
        batches = make_batches(24, training=True), make_batches(12, seed=1)
        hooks = FitHooks(on_epoch=on_epoch, on_checkpoint=on_checkpoint)
        history = fit(classifier, *batches, config, hooks, state=state)
        return history, classifier.trainable_state_dict()

    return train


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("lr_scheduler", ["step", "cosine", "one_cycle", "plateau"])
def test_a_training_that_was_killed_twice_ends_with_the_same_bits(
    train: Train, tmp_path: Path, optimizer: str, lr_scheduler: str
) -> None:
    fields = {"optimizer": optimizer, "lr_scheduler": lr_scheduler, "lr": 0.02, "max_epochs": EPOCHS}
    config, file = FitConfig.model_validate(fields), tmp_path / "checkpoint"
    uninterrupted, expected = train(config)
    for epoch in (1, 3):
        with pytest.raises(Killed, match=r"^$"):
            train(config, file, dies_after=epoch)
    resumed, weights = train(config, file)
    assert list(map(metrics_without_timing, resumed)) == list(map(metrics_without_timing, uninterrupted))
    assert weights.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights.items())


def test_a_training_that_ran_out_of_patience_does_not_resume(train: Train, tmp_path: Path) -> None:
    config, file = (
        FitConfig(lr=0.2, optimizer="sgd", lr_scheduler="constant", max_epochs=EPOCHS, patience=1),
        tmp_path / "checkpoint",
    )
    epochs = len(train(config, file)[0])
    assert epochs < EPOCHS
    assert len(train(config, file)[0]) == epochs


def test_a_missing_or_corrupt_checkpoint_is_none(train: Train, tmp_path: Path) -> None:
    file = tmp_path / "checkpoint"
    assert load_checkpoint(file) is None
    with pytest.raises(Killed, match=r"^$"):
        train(FitConfig(max_epochs=3), file, dies_after=1)
    content = file.read_bytes()
    assert load_checkpoint(file) is not None
    for corrupt in (b"", b"{}", content[: len(content) // 2], b"\0" * 64):
        file.write_bytes(corrupt)
        assert load_checkpoint(file) is None


def test_micro_batches_take_the_same_steps_as_the_whole_batch(
    make_classifier: MakeClassifier, make_batches: MakeBatches
) -> None:
    """Everything is frozen, so that no batch norm statistics depend on the micro-batches."""

    def train(accumulation_steps: int) -> StateDict:
        config = FitConfig(max_epochs=2)
        batches = make_batches(24, training=True), make_batches(12, seed=1)
        classifier = make_classifier(1.0)
        fit(classifier, *batches, config, accumulation_steps=accumulation_steps)
        return classifier.trainable_state_dict()

    whole, accumulated = train(1), train(2)
    for name, tensor in whole.items():
        torch.testing.assert_close(accumulated[name], tensor, rtol=1e-5, atol=1e-6)
