"""Novelty of images of other data sets: ``python -m benchmarks.novelty FOLDER [FOLDER ...] --minutes 2 --rows FILE``.

A search on each folder packages a model, which predicts the test images of all folders. A row of FILE is a model and a
folder. For another folder: the area under the ROC curve of the novelty of the model's own test images against that of
the folder's. For its own: the share of test images that ``reject=0.99`` and ``reject=0.95`` reject, and the AUROC of an
unknown class (``test_unseen_class_auroc``). Rows that exist are not measured again.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks.jsonl import append_row, read_rows
from benchmarks.searches import search
from data.load_dataset import load_dataset
from models.packaging.inference import predict_files

if TYPE_CHECKING:
    from models.evaluation.metrics import Floats
    from models.packaging.inference import PackagedModel

MAX_IMAGES = 500  # of each test split


def novelties(model: PackagedModel, files: list[Path]) -> Floats:
    """Return the novelty of each readable image."""
    return np.array([each.novelty for each in predict_files(model, files) if each.novelty is not None])


def main() -> None:
    """Search and measure what FILE does not have, and print all rows."""
    import mlflow

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--rows", type=Path, required=True)
    options = parser.parse_args()
    done = {row["model"] for row in read_rows(options.rows)}
    files = {}
    for folder in options.folders:
        dataset = load_dataset(str(folder))
        files[folder.name] = [
            dataset.root / sample.path
            for sample in dataset.split("test")[:: max(1, len(dataset.split("test")) // MAX_IMAGES)]
        ]
    for folder in options.folders:
        if folder.name in done:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            found = search(str(folder), 0, Path(scratch), "--minutes", str(options.minutes))
            mlflow.set_tracking_uri(f"sqlite:///{scratch}/mlflow.db")
            model = mlflow.pyfunc.load_model("models:/search@champion")
            scores = {name: novelties(model, each) for name, each in files.items()}
        own, metrics = scores[folder.name], found.parent.data.metrics
        for name, others in scores.items():
            row = {"model": folder.name, "images": name, "minutes": options.minutes, "count": len(others)}
            if name == folder.name:
                row |= {f"rejected_{share}": round(float((own > share).mean()), 4) for share in (0.99, 0.95)}
                row |= {
                    key: round(metrics[key], 4)
                    for key in ("test_accuracy", "test_unseen_class_auroc")
                    if key in metrics
                }
            else:
                is_other = np.repeat((0, 1), (len(own), len(others)))
                row["auroc"] = round(roc_auc_score(is_other, np.concatenate([own, others])), 4)
                row["rejected_0.99"] = round(float((others > 0.99).mean()), 4)
            append_row(options.rows, row)
    for row in read_rows(options.rows):
        print(row)


if __name__ == "__main__":
    main()
