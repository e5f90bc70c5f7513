"""A training that goes on from its checkpoint is the training that never stopped, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from models.training.checkpoint import load_checkpoint, save_checkpoint
from models.training.loop import FitResult, fit
from models.training.state import EpochResult, TrainingState
from models.trial_config import FitConfig
from tests.models.conftest import MakeBatches, MakeClassifier

EPOCHS = 5
State = dict[str, torch.Tensor]


class Killed(Exception):
    """Stands for the end of the process."""


def numbers(result: EpochResult) -> dict[str, float]:
    """Return what an epoch measured, without how long it took."""
    return {name: value for name, value in result.metrics().items() if name not in {"epoch_s", "images_per_s"}}


@pytest.fixture
def train(make_classifier: MakeClassifier, make_batches: MakeBatches) -> Callable[..., tuple[FitResult, State]]:
    """Return what trains a new classifier, from a checkpoint or the start, and gives its last weights too.

    It is killed in the epoch after ``dies_after``.
    """

    def make(config: FitConfig, file: Path | None = None, dies_after: int = EPOCHS) -> tuple[FitResult, State]:
        def keep(progress: Callable[[], TrainingState]) -> None:
            if file:
                save_checkpoint(file, progress())

        def on_epoch(result: EpochResult, _: bool) -> None:
            if result.epoch > dies_after:
                raise Killed

        classifier = make_classifier(0.5, dropout=0.3)
        progress = load_checkpoint(file) if file else None
        sets = make_batches(24, training=True), make_batches(12, seed=1)
        return fit(
            classifier, *sets, config, on_epoch, state=progress, on_checkpoint=keep
        ), classifier.trainable_state_dict()

    return make


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("lr_scheduler", ["step", "cosine", "one_cycle", "plateau"])
def test_a_training_that_was_killed_twice_ends_with_the_same_bits(
    train: Callable[..., tuple[FitResult, State]], tmp_path: Path, optimizer: str, lr_scheduler: str
) -> None:
    fields = {"optimizer": optimizer, "lr_scheduler": lr_scheduler, "lr": 0.02, "max_epochs": EPOCHS}
    config, file = FitConfig.model_validate(fields), tmp_path / "checkpoint"
    whole, last = train(config)
    for epoch in (1, 3):
        with pytest.raises(Killed, match=r"^$"):
            train(config, file, dies_after=epoch)
    resumed, state = train(config, file)
    assert [numbers(result) for result in resumed.history] == [numbers(result) for result in whole.history]
    assert resumed.best_epoch == whole.best_epoch
    assert state.keys() == last.keys()
    assert all(torch.equal(tensor, last[name]) for name, tensor in state.items())


def test_a_training_whose_patience_was_spent_does_not_go_on(
    train: Callable[..., tuple[FitResult, State]], tmp_path: Path
) -> None:
    config, file = (
        FitConfig(lr=0.2, optimizer="sgd", lr_scheduler="constant", max_epochs=EPOCHS, patience=1),
        tmp_path / "checkpoint",
    )
    epochs = len(train(config, file)[0].history)
    assert epochs < EPOCHS
    assert len(train(config, file)[0].history) == epochs


def test_a_file_that_is_no_checkpoint_or_half_of_one_is_none(
    train: Callable[..., tuple[FitResult, State]], tmp_path: Path
) -> None:
    file = tmp_path / "checkpoint"
    assert load_checkpoint(file) is None
    with pytest.raises(Killed, match=r"^$"):
        train(FitConfig(max_epochs=3), file, dies_after=1)
    content = file.read_bytes()
    assert load_checkpoint(file) is not None
    for broken in (b"", b"{}", content[: len(content) // 2], b"\0" * 64):
        file.write_bytes(broken)
        assert load_checkpoint(file) is None


def test_a_batch_in_parts_takes_the_steps_of_the_whole_batch(
    make_classifier: MakeClassifier, make_batches: MakeBatches
) -> None:
    """Everything frozen, so that no batch norm sees a part alone."""

    def trained(chunks: int) -> FitResult:
        train = make_batches(24, training=True)
        return fit(
            make_classifier(1.0), train, make_batches(12, seed=1), FitConfig(max_epochs=2), accumulation_steps=chunks
        )

    whole, parts = trained(1), trained(2)
    for name, tensor in whole.best_state.items():
        torch.testing.assert_close(parts.best_state[name], tensor, rtol=1e-5, atol=1e-6)
