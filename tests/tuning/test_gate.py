"""The promotion gate: its decisions and their reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from pydantic import ValidationError

from tests.tuning.factories import GATE, candidate, ensemble, predictions, trial_config
from tuning.common.promotion_types import Candidate, Champion, Promotion
from tuning.registry.gate import decide

CLASSES = ("cat", "dog")
# 100 images, 50 of each class: correct predictions for cats and for dogs.
GOOD, BETTER, POOR = (40, 40), (49, 49), (26, 26)


def make_candidate(num_correct: tuple[int, int] = GOOD, **fields: object) -> Candidate:
    """Return a candidate; ``fields`` are fields of the candidate or of its gate."""
    gate = GATE.model_copy(update={name: fields.pop(name) for name in list(fields) if name in type(GATE).model_fields})
    return candidate(num_correct=num_correct, images_per_class=50).model_copy(update={"gate": gate, **fields})


def make_champion(num_correct: tuple[int, int] | None = GOOD, **fields: object) -> Champion:
    y_pred = predictions(num_correct, 50) if num_correct else None
    return Champion.model_validate({"version": 3, "classes": CLASSES, "y_pred": y_pred, **fields})


CASES: dict[str, tuple[Candidate, Champion | None, str, str]] = {
    # --- first version
    "first version, better than the baseline": (
        make_candidate(), None, "champion",
        "first champion, better than the baseline: test balanced accuracy 0.8000 vs. 0.5000 for always predicting the "
        "largest class, on 100 test images",
    ),
    "first version, not better than the baseline": (
        make_candidate(POOR), None, "challenger",
        "a first champion must exceed the baseline by 0.05: test balanced accuracy 0.5200 vs. 0.5000 for always "
        "predicting the largest class, on 100 test images (search longer or add training images)",
    ),
    "first version, always predicts one class": (
        make_candidate((50, 0)), None, "challenger", "0.5000 vs. 0.5000 for always predicting"
    ),
    "first version, by accuracy": (
        make_candidate(metric="accuracy"), None, "champion", "test accuracy 0.8000 vs. 0.5000 for always predicting"
    ),
    "first version, with a leak": (
        make_candidate(leaks=2), None, "challenger",
        "no test image may be in the training or validation data, but 2 test images leaked "
        "(train again with on_leak=drop)",
    ),
    "first version, too large": (
        make_candidate(max_mb=5.0), None, "challenger", "package size must be at most 5 MB (max_mb), got 10.0 MB"
    ),
    # --- against a champion
    "clearly better": (
        make_candidate(BETTER), make_champion(), "champion",
        "better: test balanced accuracy 0.9800 vs. 0.8000 for champion version 3 on the same 100 unseen images "
        "(18 won, 0 lost, p < 0.001)",
    ),
    "equal": (make_candidate(), make_champion(), "challenger", "not better: test balanced accuracy 0.8000 vs. 0.8000"),
    "worse": (
        make_candidate(), make_champion(BETTER), "challenger", "not better: test balanced accuracy 0.8000 vs. 0.9800"
    ),
    "better, but not significantly": (
        make_candidate((42, 41)), make_champion(), "challenger",
        "better, but not statistically significant (p > 0.05): test balanced accuracy 0.8300 vs. 0.8000 for champion "
        "version 3 on the same 100 unseen images (3 won, 0 lost, p = 0.125) "
        "(confirming a gain of this size takes more test images)",
    ),
    "five of five won": (make_candidate((43, 42)), make_champion(), "champion", "(5 won, 0 lost, p = 0.031)"),
    "four of four won": (make_candidate((42, 42)), make_champion(), "challenger", "(4 won, 0 lost, p = 0.062)"),
    "any gain is enough with significance=1": (
        make_candidate((41, 40), significance=1.0), make_champion(), "champion", "p = 0.500"
    ),
    "better by less than the minimum gain": (
        make_candidate((43, 42), min_gain=0.06), make_champion(), "challenger",
        "better, but by less than min_gain=0.06: test balanced accuracy 0.8500 vs. 0.8000",
    ),
    "better by the minimum gain": (make_candidate((43, 43), min_gain=0.06), make_champion(), "champion", "better: "),
    "better by accuracy": (
        make_candidate(BETTER, metric="accuracy"), make_champion(), "champion", "better: test accuracy 0.9800 vs."
    ),
    "recall of a class drops too much": (
        make_candidate((50, 34), max_class_loss=0.1), make_champion((30, 40)), "challenger",
        "recall must not drop by more than 0.1 per class (max_class_loss), got 0.12 for dog",
    ),
    "recall of a class drops by the allowed amount": (
        make_candidate((50, 35)), make_champion((30, 40)), "champion", "better: "
    ),
    "a class loses one image with max_class_loss=0": (
        make_candidate((50, 39), max_class_loss=0.0), make_champion((30, 40)), "champion", "better: "
    ),
    "a class loses two images with max_class_loss=0": (
        make_candidate((50, 38), max_class_loss=0.0), make_champion((30, 40)), "challenger", "got 0.04 for dog"
    ),
    # --- not comparable
    "other classes": (
        make_candidate(BETTER), make_champion(classes=("cat", "cow")), "challenger",
        "the classes must be those of champion version 3 for a comparison, but dog is new and cow is missing "
        "(promote with --force REASON to replace it)",
    ),
    "fewer classes": (make_candidate(BETTER), make_champion(classes=("cat",)), "challenger", "but dog is new (promote"),
    "many other classes": (
        make_candidate(BETTER), make_champion(classes=tuple(f"c{n}" for n in range(1000))), "challenger",
        "c6, c7 and 992 more are missing",
    ),
    "classes in another order": (make_candidate(BETTER), make_champion(classes=("dog", "cat")), "champion", "better: "),
    "a champion without predictions": (
        make_candidate(BETTER), make_champion(None), "challenger",
        "champion version 3 could not be evaluated on these test images, so the models cannot be compared",
    ),
    "trained on the champion's test images": (
        make_candidate(BETTER), make_champion(test_hashes=frozenset({"seen0", "seen1", "other"})), "challenger",
        "the training and validation data must not overlap with the test split of champion version 3, but 2 images do",
    ),
    "the champion was trained on some of the test images": (
        make_candidate((50, 50)), make_champion(seen_hashes=frozenset({"test0", "test99"})), "champion",
        "on the same 98 unseen images",
    ),
    "the champion was trained on all test images": (
        make_candidate(BETTER), make_champion(seen_hashes=frozenset(f"test{n}" for n in range(100))), "challenger",
        "champion version 3 was trained on all of these test images",
    ),
    # --- limits that hold whatever the gain is
    "too slow": (
        make_candidate(BETTER, max_latency_ms=5.0, latency_ms=7.25), make_champion(), "challenger",
        "latency must be at most 5 ms per image (max_latency_ms), got 7.2 ms",
    ),
    "fast enough": (
        make_candidate(BETTER, max_latency_ms=5.0, latency_ms=5.0), make_champion(), "champion", "better: "
    ),
    "latency limited but not measured": (
        make_candidate(BETTER, max_latency_ms=5.0), make_champion(), "challenger",
        "latency must be at most 5 ms per image (max_latency_ms), but was not measured",
    ),
    "too large": (
        make_candidate(BETTER, max_mb=9.5), make_champion(), "challenger",
        "package size must be at most 9.5 MB (max_mb), got 10.0 MB",
    ),
    "a leak found by content hash": (
        make_candidate(BETTER, seen_hashes=("seen0", "test5")), make_champion(), "challenger", "but 1 test image leaked"
    ),
    "several reasons": (
        make_candidate((43, 40), leaks=1, max_mb=1.0), make_champion((40, 43)), "challenger", "not better: "
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_gate_decides_with_a_reason(case: str) -> None:
    new_candidate, current, alias, reason = CASES[case]
    promotion = decide(new_candidate, current)
    assert (promotion.alias, promotion.forced) == (alias, False)
    assert promotion.champion == (current and current.version)
    assert reason in promotion.reason
    assert "  " not in promotion.reason


def test_the_table_covers_both_decisions() -> None:
    assert len(CASES) >= 25
    assert {alias for _, _, alias, _ in CASES.values()} == {"champion", "challenger"}


def test_a_rejection_lists_all_reasons() -> None:
    reason = decide(*CASES["several reasons"][:2]).reason
    assert [part.split()[0] for part in reason.split("; ")] == ["not", "no", "package"]


@pytest.mark.parametrize("case", [case for case, (_, _, alias, _) in CASES.items() if alias == "challenger"])
def test_a_forced_promotion_records_both_reasons(case: str) -> None:
    new_candidate, current, _, reason = CASES[case]
    promotion = decide(new_candidate, current, force="new camera")
    assert (promotion.alias, promotion.forced) == ("champion", True)
    assert promotion.reason.startswith("forced (new camera) although the gate rejected it: ")
    assert reason in promotion.reason


def test_force_has_no_effect_if_the_gate_accepts() -> None:
    assert decide(make_candidate(BETTER), make_champion(), force="new camera") == decide(
        make_candidate(BETTER), make_champion()
    )


def test_the_evidence_holds_the_numbers_of_the_decision() -> None:
    evidence: Mapping[str, float] = decide(make_candidate(BETTER), make_champion()).evidence
    assert evidence["candidate"] == pytest.approx(0.98)
    assert evidence["champion"] == pytest.approx(0.8)
    assert evidence["gain"] == pytest.approx(0.18)
    assert 0.1 < evidence["low"] < 0.18 < evidence["high"] < 0.27
    assert (evidence["wins"], evidence["losses"], evidence["num_images"]) == (18, 0, 100)
    assert decide(make_candidate(), None).evidence == {"candidate": pytest.approx(0.8), "baseline": 0.5}
    assert decide(make_candidate((50, 34)), make_champion((30, 40))).evidence["worst_class_loss"] == pytest.approx(0.12)


def test_a_decision_names_the_unseen_test_images_that_were_won_and_lost() -> None:
    # Images 0 to 49 are cats, 50 to 99 dogs; the first ones of each class are correct.
    promotion = decide(make_candidate((42, 38)), make_champion((40, 40)))
    assert (promotion.won_images, promotion.lost_images) == ((40, 41), (88, 89))
    promotion = decide(make_candidate((42, 38)), make_champion((40, 40), seen_hashes={"test41", "test88"}))
    assert (promotion.won_images, promotion.lost_images) == ((40,), (89,))
    assert decide(make_candidate(), None).won_images == ()


def test_a_promotion_needs_a_reason() -> None:
    with pytest.raises(ValidationError, match="reason"):
        Promotion(alias="champion", reason="", evidence={})


def test_a_candidate_survives_a_json_round_trip() -> None:
    assert Candidate.from_json(candidate().to_json(indent=2)) == candidate()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((), "members\n.*at least 1 item"),
        ((0.5, 0.4), "weights of the members must sum to 1, got 0.9"),
        ((2.0, -1.0), "greater than 0"),
    ],
)
def test_a_candidate_has_members_whose_weights_sum_to_1(weights: Sequence[float], message: str) -> None:
    members = [{"config": trial_config(), "weight": weight} for weight in weights]
    with pytest.raises(ValidationError, match=message):
        Candidate.model_validate({**candidate().model_dump(), "members": members})


def test_an_ensemble_is_restored_from_json() -> None:
    restored = Candidate.from_json(ensemble().to_json())
    assert restored == ensemble()
    assert [(member.config.preprocessing.image_size, member.weight) for member in restored.members] == [
        (32, 0.75),
        (48, 0.25),
    ]
    assert (restored.is_ensemble, candidate().is_ensemble) == (True, False)


def test_several_members_are_accepted_if_their_weights_sum_to_1() -> None:
    members = [{"config": trial_config(), "weight": 0.1} for _ in range(10)]
    assert len(Candidate.model_validate({**candidate().model_dump(), "members": members}).members) == 10
