"""Texts of the registry: the description of a registered model, and the model card, the description of a version."""

from __future__ import annotations

import json

import numpy as np

from data.text import pluralize
from models.backbones.weight_packages import weights_license
from models.trial_config import TrialConfig
from tuning.common.formatting import member_text
from tuning.common.promotion_types import Candidate, CandidateMember, Promotion
from tuning.registry.client import MAX_TAG_LENGTH

MAX_CLASSES = 20  # rows of the class table; the classes with the lowest recall if there are more
MAX_NAMES_LENGTH = 400  # characters of the listed class names
SUMMARY_METRICS = ("test_accuracy", "test_balanced_accuracy", "test_macro_f1")
MAX_REASON_LENGTH = 800  # characters
LISTED_SEPARATELY = {"backbone", "image_size", "weights"}  # settings that have lines of their own in the model card
CUT = "\n\n…\n"


def render_description(candidate: Candidate) -> str:
    """Return the description of a registered model in Markdown: what it is, how to load it, where the evidence is."""
    return (
        f"An image classifier: {_classes(candidate)}. Each version was made by a Freezeline search or training.\n\n"
        f"{_usage(f'models:/{candidate.name}@champion')}\n"
        "- The alias `champion` moves only if a version passes the promotion gate; other versions are `challenger`.\n"
        "- The description of a version is its model card; its tags `reason` and `freezeline.evidence` have the gate's "
        "decision and numbers.\n"
        "- The source run of a version has the report (`report.html`), the test scores and every trial.\n"
        f"- `freezeline champions {candidate.name}` prints the history of champions.\n"
    )


def render_model_card(candidate: Candidate, version: int, promotion: Promotion, run_link: str) -> str:
    """Return the model card in Markdown; the class table, its end, is cut to the length that the database holds."""
    uri = f"models:/{candidate.name}/{version}"
    commit = f", commit `{candidate.commit}`" if candidate.commit else ""
    sections = [
        f"An image classifier: {_classes(candidate)}.",
        f"**Decision**: {promotion.alias}, {promotion.reason[:MAX_REASON_LENGTH]}.",
        "**Usage**",
        _usage(uri).rstrip(),
        "**Intended use**: to classify images of the same kind as the training data into exactly these classes.",
        f"**Scores** on {pluralize(candidate.num_test_images, 'test image')}, not used for training or selection",
        _scores(candidate),
        "**Training**",
        _training(candidate),
        "**Limits**",
        _limits(candidate),
        f"Created by run {run_link}{commit}. {_train_again(candidate, uri)}",
        _class_scores(candidate),
    ]
    card = "\n\n".join(sections) + "\n"
    if len(card) <= MAX_TAG_LENGTH:
        return card
    return card[: card.rindex("\n", 0, MAX_TAG_LENGTH - len(CUT))] + CUT


def _classes(candidate: Candidate) -> str:
    names = ", ".join(candidate.classes[:MAX_CLASSES])
    is_cut = len(candidate.classes) > MAX_CLASSES or len(names) > MAX_NAMES_LENGTH
    return f"{pluralize(len(candidate.classes), 'class')} ({names[:MAX_NAMES_LENGTH]}{', …' if is_cut else ''})"


def _usage(uri: str) -> str:
    return (
        "```python\n"
        "import mlflow\n\n"
        f'model = mlflow.pyfunc.load_model("{uri}")\n'
        'model.predict([open("image.jpg", "rb").read()])  # label, score, error, and a probability for each class\n'
        "```\n"
    )


def _scores(candidate: Candidate) -> str:
    rows = ["| metric | value | 95 % interval |", "| --- | --- | --- |"]
    for name in SUMMARY_METRICS:
        low, high = candidate.intervals[name]
        label = name.removeprefix("test_").replace("_", " ")
        rows.append(f"| {label} | {candidate.metrics[name]:.4f} | {low:.4f} to {high:.4f} |")
    return "\n".join(rows)


def _training(candidate: Candidate) -> str:
    seen = pluralize(len(candidate.seen_hashes), "different image")
    lines = [
        f"- Data: {candidate.data} (fingerprint `{candidate.data_fingerprint}`), {seen} for training and validation"
    ]
    if candidate.is_ensemble:
        lines.append(f"- {len(candidate.members)} networks; the probabilities are the weighted mean of theirs")
    return "\n".join([*lines, *(line for member in candidate.members for line in _member(member))])


def _member(member: CandidateMember) -> list[str]:
    config = member.config
    network = config.network
    settings = {name: value for name, value in _settings(config).items() if name not in LISTED_SEPARATELY}
    listed = ", ".join(f"{name} {json.dumps(value).strip(chr(34))}" for name, value in settings.items())
    return [
        f"- Network: {member_text(member)}",
        f"- Configuration: {listed}",
        f"- Pretrained weights: {_weights(network.backbone, network.weights)}",
    ]


def _train_again(candidate: Candidate, uri: str) -> str:
    if candidate.is_ensemble:
        return "`freezeline train --run ID` trains one of its networks again, with the ID of that trial's run."
    return f"`freezeline train --model {uri}` trains it again."


def _settings(config: TrialConfig) -> dict[str, object]:
    """Return every setting that has an effect by its name; no two parts of a configuration have a name in common."""
    settings: dict[str, object] = {"seed": config.seed}
    for part in config.settings().values():
        settings |= part
    return settings


def _weights(backbone: str, weights: str) -> str:
    if weights == "none":
        return "none"
    if weights not in {"auto", "package", "hub"}:
        return "from a local file"
    return f"ImageNet, license {weights_license(backbone) or 'unknown: see the publisher of the weights'}"


def _class_scores(candidate: Candidate) -> str:
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
    return "\n".join(rows)


def _novelty(candidate: Candidate) -> str:
    """Return how well images of no class are noticed; empty if the package has no novelty."""
    rejected = candidate.metrics.get("test_rejected")
    if rejected is None:
        return ""
    auroc = candidate.metrics.get("test_unseen_class_auroc")
    noticed = "" if auroc is None else f"; a class that it does not know would be noticed with an AUROC of {auroc:.2f}"
    return f" `predict(..., params={{'reject': 0.99}})` rejects {rejected:.1%} of the test images{noticed}."


def _limits(candidate: Candidate) -> str:
    return "\n".join(
        [
            "- Every image is assigned one of these classes, even if it shows something else, possibly with a high "
            f"probability.{_novelty(candidate)}",
            f"- The test split of this data set has been evaluated {pluralize(candidate.test_evaluations, 'time')}, "
            "including this model. The best of many evaluations is optimistic.",
            f"- Probabilities are calibrated on images that were not used for training (temperature "
            f"{candidate.temperature:.3f}, 1: not changed); on other kinds of images they may be off.",
            f"- The package was compared with PyTorch on {candidate.num_checked_images} test images: same predictions, "
            f"logits differ by at most {candidate.max_difference:.1e}.",
        ]
    )
