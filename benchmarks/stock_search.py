"""The search that people write without Freezeline: Ray Tune, OptunaSearch, ASHA and timm fine-tunes of ImageFolders.

``python -m benchmarks.stock_search FOLDER --seed 0 --minutes 2`` searches with the folders ``train`` and ``test`` of
FOLDER, and prints the test accuracy of the trial with the best validation accuracy as JSON. A fifth of the training
images are the validation split. A trial keeps its decoded images in memory. The pretrained weights are Freezeline's.
"""

from __future__ import annotations

import argparse
import functools
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from ray import train, tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch
from sklearn.model_selection import train_test_split
from timm.data.config import resolve_data_config
from timm.data.transforms_factory import create_transform
from torch import Tensor, nn
from torchvision.datasets import ImageFolder

from models.backbones.factory import create_backbone

BACKBONE = "tf_efficientnet_lite0"
MAX_EPOCHS, BATCH_SIZE, TEST_BATCH_SIZE = 10, 32, 64
END_S = 20.0  # of the minutes: starting Ray, and evaluating the best trial
SPACE = {
    "lr": tune.loguniform(1e-4, 1e-2),
    "optimizer": tune.choice(["sgd", "adam", "adamw"]),
    "scheduler": tune.choice(["constant", "cosine"]),
    "frozen_blocks": tune.choice([0, 3, 5, 7]),  # of 7; the stem is frozen with the first
    "image_size": tune.choice([128, 224]),
}
OPTIMIZERS: dict[str, Any] = {
    "sgd": functools.partial(torch.optim.SGD, momentum=0.9, nesterov=True),
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


def build_model(num_classes: int, frozen_blocks: int) -> nn.Sequential:
    """Return the pretrained network with a new head and frozen first blocks."""
    backbone = create_backbone(BACKBONE)
    network: Any = backbone.network
    frozen = [network.conv_stem, network.bn1, *network.blocks[:frozen_blocks]] if frozen_blocks else []
    if frozen_blocks == len(network.blocks):
        frozen += [network.conv_head, network.bn2]
    for module in frozen:
        module.requires_grad_(requires_grad=False)
    return nn.Sequential(network, nn.Linear(backbone.num_features, num_classes))


def load_images(folder: Path, image_size: int) -> tuple[Tensor, Tensor]:
    """Return the normalized images [n, 3, s, s] and the labels [n] of a class folder."""
    network = build_model(1, 0)[0]
    config = resolve_data_config({"input_size": (3, image_size, image_size), "crop_pct": 1.0}, model=network)
    images = ImageFolder(str(folder), create_transform(**config))
    pairs = [images[row] for row in range(len(images))]
    return torch.stack([image for image, _ in pairs]), torch.tensor([label for _, label in pairs])


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the accuracy."""
    model.eval()
    predicted = torch.cat([model(batch).argmax(dim=1) for batch in images.split(TEST_BATCH_SIZE)])
    return float((predicted == labels).float().mean())


def trainable(config: dict[str, Any], folder: Path, seed: int) -> None:
    """Fine-tune with one configuration; report the validation accuracy and a checkpoint of each epoch."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    images, labels = load_images(folder / "train", config["image_size"])
    train_rows, val_rows = train_test_split(range(len(labels)), test_size=0.2, stratify=labels, random_state=seed)
    model = build_model(int(labels.max()) + 1, config["frozen_blocks"])
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = OPTIMIZERS[config["optimizer"]](trained, lr=config["lr"])
    is_cosine = config["scheduler"] == "cosine"
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, MAX_EPOCHS) if is_cosine else None
    for _ in range(MAX_EPOCHS):
        model.train()
        for module in model.modules():
            if all(not parameter.requires_grad for parameter in module.parameters()):
                module.eval()  # batch norm of frozen blocks keeps its statistics
        for batch in torch.randperm(len(train_rows)).split(BATCH_SIZE):
            rows = torch.tensor(train_rows)[batch]
            inputs = torch.where(torch.rand(len(rows), 1, 1, 1) < 0.5, images[rows].flip(3), images[rows])
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), labels[rows]).backward()
            optimizer.step()
        if schedule:
            schedule.step()
        with tempfile.TemporaryDirectory() as checkpoint:
            torch.save(model.state_dict(), Path(checkpoint) / "model.pt")
            tune.report(
                {"accuracy": accuracy(model, images[val_rows], labels[val_rows])},
                checkpoint=train.Checkpoint.from_directory(checkpoint),
            )


def search(folder: Path, seed: int, seconds: float, storage: Path) -> dict[str, float]:
    """Search, and return the test accuracy of the best trial, its validation accuracy and the number of trials."""
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(trainable, folder=folder, seed=seed), {"cpu": 1}),
        param_space=SPACE,
        tune_config=tune.TuneConfig(
            metric="accuracy",
            mode="max",
            search_alg=OptunaSearch(seed=seed),
            scheduler=ASHAScheduler(time_attr="training_iteration", max_t=MAX_EPOCHS, grace_period=1),
            num_samples=-1,
            max_concurrent_trials=2,
            time_budget_s=seconds,
        ),
        run_config=tune.RunConfig(
            storage_path=str(storage),
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1, checkpoint_score_attribute="accuracy"),
        ),
    )
    results = tuner.fit()
    best = results.get_best_result(scope="all")
    assert best.checkpoint is not None  # noqa: S101
    assert best.config is not None  # noqa: S101
    images, labels = load_images(folder / "test", best.config["image_size"])
    model = build_model(int(labels.max()) + 1, best.config["frozen_blocks"])
    with best.checkpoint.as_directory() as checkpoint:
        model.load_state_dict(torch.load(Path(checkpoint) / "model.pt", weights_only=True))
    val = max(best.metrics_dataframe["accuracy"])  # type: ignore[index]
    return {"test_accuracy": accuracy(model, images, labels), "val_accuracy": float(val), "trials": len(results)}


def main() -> None:
    """Search, and print the result as JSON."""
    start_s = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as storage:
        seconds = 60 * arguments.minutes - END_S
        result = search(arguments.folder.resolve(), arguments.seed, seconds, Path(storage))
    print(json.dumps({**result, "minutes": (time.monotonic() - start_s) / 60}))


if __name__ == "__main__":
    main()
