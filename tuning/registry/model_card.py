"""A version's description: what it is, on what data, how well it does, its limits, and how to use it."""

from __future__ import annotations

import numpy as np

from tuning.common.promotion_types import Candidate, Promotion
from tuning.registry.client import LONGEST_TAG

MOST_CLASSES = 20  # rows of the table by class; of more, those with the lowest recall
SHOWN = ("test_accuracy", "test_balanced_accuracy", "test_macro_f1")
MOST_REASON = 1000  # characters


def card(candidate: Candidate, version: int, promotion: Promotion, run_link: str) -> str:
    """Return the model card in Markdown; it fits into what a database keeps of a description."""
    shown = [*_what(candidate, promotion), *_scores(candidate), *_by_class(candidate), *_limits(candidate)]
    use = _use(candidate, version, run_link)
    body = "\n".join(shown)
    room = LONGEST_TAG - len(use)
    return (body if len(body) <= room else f"{body[: room - 4]}\n…\n") + use


def _what(candidate: Candidate, promotion: Promotion) -> list[str]:
    names = ", ".join(candidate.classes[:MOST_CLASSES]) + (", …" if len(candidate.classes) > MOST_CLASSES else "")
    return [
        f"An image classifier of {len(candidate.classes)} classes ({names}), fine-tuned on {candidate.data} "
        f"(fingerprint `{candidate.data_fingerprint}`).",
        "",
        f"**Decision**: {promotion.alias}, {promotion.reason[:MOST_REASON]}.",
        "",
    ]


def _scores(candidate: Candidate) -> list[str]:
    head = f"**How well** (on {candidate.test_pictures} test pictures that it has not seen)"
    rows = [head, "", "| metric | value | 95 % interval |", "| --- | --- | --- |"]
    for name in SHOWN:
        low, high = candidate.intervals[name]
        words = name.removeprefix("test_").replace("_", " ")
        rows.append(f"| {words} | {candidate.metrics[name]:.4f} | {low:.4f} to {high:.4f} |")
    return [*rows, ""]


def _by_class(candidate: Candidate) -> list[str]:
    count = len(candidate.classes)
    truth, predicted = np.array(candidate.truth), np.array(candidate.predicted)
    support = np.bincount(truth, minlength=count)
    right = np.bincount(truth[truth == predicted], minlength=count)
    recall = right / np.maximum(support, 1)
    precision = right / np.maximum(np.bincount(predicted, minlength=count), 1)
    chosen = sorted(np.argsort(recall, kind="stable")[:MOST_CLASSES])
    note = f" ({MOST_CLASSES} of {count}, those with the lowest recall)" if count > MOST_CLASSES else ""
    rows = [f"**By class**{note}", "", "| class | recall | precision | pictures |", "| --- | --- | --- | --- |"]
    rows += [f"| {candidate.classes[at]} | {recall[at]:.3f} | {precision[at]:.3f} | {support[at]} |" for at in chosen]
    return [*rows, ""]


def _limits(candidate: Candidate) -> list[str]:
    return [
        "**Limits**",
        "",
        "- It knows these classes only: a picture of anything else gets one of them, with whatever probability.",
        f"- This data set's test pictures were looked at {candidate.test_looks} times, this time included; "
        "the more often, the more flattering the best result.",
        f"- Probabilities are calibrated on validation (temperature {candidate.temperature:.3f}); they hold for "
        "pictures like those.",
        f"- The package agrees with torch to {candidate.max_difference:.1e} of a logit on "
        f"{candidate.checked_pictures} test pictures, with the same predictions.",
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
