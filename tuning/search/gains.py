"""What a search gained: its choice against its default configuration and its best linear probe, on the same images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from models.evaluation.estimate import Estimate
from tuning.common.trial_record import TrialRecord
from tuning.search.evidence import Evidence, Images, Member, Option
from tuning.search.selection import default_trial


class Gain(NamedTuple):
    """The difference of the balanced accuracy to a baseline, on images that neither was trained on."""

    baseline: str
    difference: Estimate
    num_images: int


def gains(members: Sequence[Member], trials: Sequence[TrialRecord], evidence: Evidence) -> Iterator[Gain]:
    """Yield the gains of the chosen members over the default configuration and the best probe, unless they are it."""
    if not all(evidence.has(member.trial) for member in members):
        return
    baselines = {"the default configuration": default_trial(trials), "the best probe": _best_probe(trials, evidence)}
    chosen = [member.trial.trial_uid for member in members]
    for name, trial in baselines.items():
        if trial is not None and evidence.has(trial) and chosen != [trial.trial_uid]:
            yield _gain(name, members, trial, evidence)


def _gain(name: str, members: Sequence[Member], trial: TrialRecord, evidence: Evidence) -> Gain:
    chosen, images = _option(members, evidence)
    baseline, baseline_images = _option([Member(trial)], evidence)
    if images is not baseline_images:  # one of them has no predictions for the training images
        images = evidence.val
        chosen, baseline = evidence.on_validation(members), evidence.on_validation([Member(trial)])
    difference = chosen.is_correct(images.labels) - baseline.is_correct(images.labels)
    return Gain(name, images.estimate(difference), int((~np.isnan(difference)).sum()))


def _option(members: Sequence[Member], evidence: Evidence) -> tuple[Option, Images]:
    if all(evidence.is_cross_validated(member.trial) for member in members):
        return evidence.on_development(members), evidence.development
    return evidence.on_validation(members), evidence.val


def _best_probe(trials: Sequence[TrialRecord], evidence: Evidence) -> TrialRecord | None:
    """Return the probe with the lowest log loss on the images that it is compared on; None without a probe."""
    probes = [trial for trial in trials if trial.is_probe and trial.is_eligible and evidence.has(trial)]
    losses = []
    for probe in probes:
        option, images = _option([Member(probe)], evidence)
        losses.append(images.estimate(option.losses).mean)
    return probes[int(np.argmin(losses))] if probes else None
