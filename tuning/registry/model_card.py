"""Model card: the description of a version, with its data, scores, limits and usage."""

from __future__ import annotations

import numpy as np

from tuning.common.formatting import pluralize
from tuning.common.promotion_types import Candidate, Promotion
from tuning.registry.client import MAX_TAG_LENGTH

MAX_CLASSES = 20  # rows of the class table; the classes with the lowest recall if there are more
SUMMARY_METRICS = ("test_accuracy", "test_balanced_accuracy", "test_macro_f1")
MAX_REASON_LENGTH = 1000  # characters


def render_model_card(candidate: Candidate, version: int, promotion: Promotion, run_link: str) -> str:
    """Return the model card in Markdown, cut to the length that the database holds."""
    sections = [*_overview(candidate, promotion), *_scores(candidate), *_class_scores(candidate), *_limits(candidate)]
    usage = _usage(candidate, version, run_link)
    body = "\n".join(sections)
    max_length = MAX_TAG_LENGTH - len(usage)
    return (body if len(body) <= max_length else f"{body[: max_length - 4]}\n…\n") + usage


def _overview(candidate: Candidate, promotion: Promotion) -> list[str]:
    names = ", ".join(candidate.classes[:MAX_CLASSES]) + (", …" if len(candidate.classes) > MAX_CLASSES else "")
    return [
        f"An image classifier of {len(candidate.classes)} classes ({names}), fine-tuned on {candidate.data} "
        f"(fingerprint `{candidate.data_fingerprint}`).",
        "",
        f"**Decision**: {promotion.alias}, {promotion.reason[:MAX_REASON_LENGTH]}.",
        "",
    ]


def _scores(candidate: Candidate) -> list[str]:
    heading = f"**Scores** (on {candidate.num_test_images} test images, not used for training or selection)"
    rows = [heading, "", "| metric | value | 95 % interval |", "| --- | --- | --- |"]
    for name in SUMMARY_METRICS:
        low, high = candidate.intervals[name]
        label = name.removeprefix("test_").replace("_", " ")
        rows.append(f"| {label} | {candidate.metrics[name]:.4f} | {low:.4f} to {high:.4f} |")
    return [*rows, ""]


def _class_scores(candidate: Candidate) -> list[str]:
    from sklearn.metrics import precision_recall_fscore_support

    count = len(candidate.classes)
    precision, recall, _, support = precision_recall_fscore_support(
        candidate.y_true, candidate.y_pred, labels=range(count), zero_division=0
    )
    listed = sorted(np.argsort(recall, kind="stable")[:MAX_CLASSES])
    note = f" ({MAX_CLASSES} of {count}, lowest recall)" if count > MAX_CLASSES else ""
    rows = [f"**Scores by class**{note}", "", "| class | recall | precision | images |", "| --- | --- | --- | --- |"]
    rows += [
        f"| {candidate.classes[label]} | {recall[label]:.3f} | {precision[label]:.3f} | {support[label]} |"
        for label in listed
    ]
    return [*rows, ""]


def _limits(candidate: Candidate) -> list[str]:
    return [
        "**Limits**",
        "",
        "- Every image is assigned one of these classes, even if it shows something else, possibly with a high "
        "probability.",
        f"- The test split of this data set has been evaluated {pluralize(candidate.test_evaluations, 'time')}, "
        "including this model. The best of many evaluations is optimistic.",
        f"- Probabilities are calibrated on the validation split (temperature {candidate.temperature:.3f}, 1: not "
        "changed); on other kinds of images they may be off.",
        f"- The package was compared with PyTorch on {candidate.num_checked_images} test images: same predictions, "
        f"logits differ by at most {candidate.max_difference:.1e}.",
        "",
    ]


def _usage(candidate: Candidate, version: int, run_link: str) -> str:
    return (
        "**Usage**\n\n"
        "```python\n"
        "import mlflow\n"
        f'model = mlflow.pyfunc.load_model("models:/{candidate.name}/{version}")\n'
        'model.predict([open("image.jpg", "rb").read()])  # label, score, error, and a probability for each class\n'
        "```\n\n"
        f"`python -m tuning train --model models:/{candidate.name}/{version}` trains it again.\n\n"
        f"Created by run {run_link}"
        f"{f', commit `{candidate.commit}`' if candidate.commit else ''}.\n"
    )
