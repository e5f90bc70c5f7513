"""A version's description: what it is, on what data, how well it does, its limits, and how to use it."""

from __future__ import annotations

import numpy as np

from tuning.common.promotion_types import Candidate, Promotion
from tuning.registry.client import MAX_TAG_LENGTH

MAX_CLASSES = 20  # rows of the table by class; of more, those with the lowest recall
SHOWN = ("test_accuracy", "test_balanced_accuracy", "test_macro_f1")
MAX_REASON_LENGTH = 1000  # characters


def render_model_card(candidate: Candidate, version: int, promotion: Promotion, run_link: str) -> str:
    """Return the model card in Markdown; it fits into what a database keeps of a description."""
    shown = [*_what(candidate, promotion), *_scores(candidate), *_by_class(candidate), *_limits(candidate)]
    use = _use(candidate, version, run_link)
    body = "\n".join(shown)
    room = MAX_TAG_LENGTH - len(use)
    return (body if len(body) <= room else f"{body[: room - 4]}\n…\n") + use


def _what(candidate: Candidate, promotion: Promotion) -> list[str]:
    names = ", ".join(candidate.classes[:MAX_CLASSES]) + (", …" if len(candidate.classes) > MAX_CLASSES else "")
    return [
        f"An image classifier of {len(candidate.classes)} classes ({names}), fine-tuned on {candidate.data} "
        f"(fingerprint `{candidate.data_fingerprint}`).",
        "",
        f"**Decision**: {promotion.alias}, {promotion.reason[:MAX_REASON_LENGTH]}.",
        "",
    ]


def _scores(candidate: Candidate) -> list[str]:
    head = f"**How well** (on {candidate.num_test_images} test pictures that it has not seen)"
    rows = [head, "", "| metric | value | 95 % interval |", "| --- | --- | --- |"]
    for name in SHOWN:
        low, high = candidate.intervals[name]
        words = name.removeprefix("test_").replace("_", " ")
        rows.append(f"| {words} | {candidate.metrics[name]:.4f} | {low:.4f} to {high:.4f} |")
    return [*rows, ""]


def _by_class(candidate: Candidate) -> list[str]:
    count = len(candidate.classes)
    truth, predicted = np.array(candidate.y_true), np.array(candidate.y_pred)
    support = np.bincount(truth, minlength=count)
    right = np.bincount(truth[truth == predicted], minlength=count)
    recall = right / np.maximum(support, 1)
    precision = right / np.maximum(np.bincount(predicted, minlength=count), 1)
    chosen = sorted(np.argsort(recall, kind="stable")[:MAX_CLASSES])
    note = f" ({MAX_CLASSES} of {count}, those with the lowest recall)" if count > MAX_CLASSES else ""
    rows = [f"**By class**{note}", "", "| class | recall | precision | pictures |", "| --- | --- | --- | --- |"]
    rows += [f"| {candidate.classes[at]} | {recall[at]:.3f} | {precision[at]:.3f} | {support[at]} |" for at in chosen]
    return [*rows, ""]


def _limits(candidate: Candidate) -> list[str]:
    return [
        "**Limits**",
        "",
        "- It knows these classes only: a picture of anything else gets one of them, with whatever probability.",
        f"- This data set's test pictures were looked at {candidate.test_evaluations} times, this time included; "
        "the more often, the more flattering the best result.",
        f"- Probabilities are calibrated on validation (temperature {candidate.temperature:.3f}); they hold for "
        "pictures like those.",
        f"- The package agrees with torch to {candidate.max_difference:.1e} of a logit on "
        f"{candidate.num_checked_images} test pictures, with the same predictions.",
        "",
    ]


def _use(candidate: Candidate, version: int, run_link: str) -> str:
    return (
        "**How to use**\n\n"
        "```python\n"
        "import mlflow\n"
        f'model = mlflow.pyfunc.load_model("models:/{candidate.name}/{version}")\n'
        'model.predict([open("picture.jpg", "rb").read()])  # label, score, error, and a probability for each class\n'
        "```\n\n"
        f"Made by run {run_link}"
        f"{f', commit `{candidate.commit}`' if candidate.commit else ''}.\n"
    )
