"""The gate: who becomes champion, and the sentence that says why."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from pydantic import ValidationError

from tests.tuning.factories import GATE, candidate, predictions
from tuning.common.promotion_types import Candidate, Champion, Promotion
from tuning.registry.gate import decide

SAME = ("cat", "dog")
# 100 pictures, 50 of each class: what is right of the cats, what is right of the dogs.
GOOD, BETTER, POOR = (40, 40), (49, 49), (26, 26)


def asked(right: tuple[int, int] = GOOD, **changes: object) -> Candidate:
    gate = GATE.model_copy(
        update={name: changes.pop(name) for name in list(changes) if name in type(GATE).model_fields}
    )
    return candidate(num_correct=right, images_per_class=50).model_copy(update={"gate": gate, **changes})


def champion(right: tuple[int, int] | None = GOOD, **changes: object) -> Champion:
    predicted = predictions(right, 50) if right else None
    return Champion.model_validate({"version": 3, "classes": SAME, "predicted": predicted, **changes})


CASES: dict[str, tuple[Candidate, Champion | None, str, str]] = {
    # --- a first version
    "the first, better than the largest class": (
        asked(), None, "champion",
        "there was no champion before, and it is better than the floor: test balanced accuracy 0.8000 against 0.5000 "
        "of always answering the largest class, on 100 pictures",
    ),
    "the first, no better than the largest class": (
        asked(POOR), None, "challenger",
        "there is no champion yet, but a first one must be better than the floor by 0.05: test balanced accuracy "
        "0.5200 against 0.5000 of always answering the largest class, on 100 pictures",
    ),
    "the first, always answering one class": (asked((50, 0)), None, "challenger", "0.5000 against 0.5000 of always"),
    "the first, by accuracy": (
        asked(metric="accuracy"), None, "champion", "test accuracy 0.8000 against 0.5000 of always answering"
    ),
    "the first, with a leak": (
        asked(leaks=2), None, "challenger", "2 test pictures leaked into training, so the test proves nothing"
    ),
    "the first, too large": (
        asked(max_mb=5.0), None, "challenger", "too large: 10.0 MB, the limit is 5 MB"
    ),
    # --- against a champion
    "clearly better": (
        asked(BETTER), champion(), "champion",
        "better: test balanced accuracy 0.9800 against 0.8000 of champion version 3 on the same 100 pictures that "
        "neither has seen (18 won, 0 lost, p = below 0.001)",
    ),
    "equal": (asked(), champion(), "challenger", "not better: test balanced accuracy 0.8000 against 0.8000"),
    "worse": (asked(GOOD), champion(BETTER), "challenger", "not better: test balanced accuracy 0.8000 against 0.9800"),
    "better by luck": (
        asked((42, 41)), champion(), "challenger",
        "better, but that may be luck, for p is above 0.05: test balanced accuracy 0.8300 against 0.8000 of champion "
        "version 3 on the same 100 pictures that neither has seen (3 won, 0 lost, p = 0.125)",
    ),
    "five of five won": (asked((43, 42)), champion(), "champion", "(5 won, 0 lost, p = 0.031)"),
    "four of four won": (asked((42, 42)), champion(), "challenger", "(4 won, 0 lost, p = 0.062)"),
    "luck is enough where no proof is asked": (asked((41, 40), significance=1.0), champion(), "champion", "p = 0.500"),
    "better by less than the minimum": (
        asked((43, 42), min_gain=0.06), champion(), "challenger",
        "better by less than the minimum gain of 0.06: test balanced accuracy 0.8500 against 0.8000",
    ),
    "better by the minimum": (asked((43, 43), min_gain=0.06), champion(), "champion", "better: "),
    "by accuracy": (asked(BETTER, metric="accuracy"), champion(), "champion", "better: test accuracy 0.9800 against"),
    "a class lost too much": (
        asked((50, 34), max_class_loss=0.1), champion((30, 40)), "challenger",
        "worse by more than 0.1 of recall in dog by 0.12",
    ),
    "a class lost no more than it may": (asked((50, 35)), champion((30, 40)), "champion", "better: "),
    "a class lost one picture, and not even that is allowed": (
        asked((50, 39), max_class_loss=0.0), champion((30, 40)), "champion", "better: "
    ),
    "a class lost two pictures, and none is allowed": (
        asked((50, 38), max_class_loss=0.0), champion((30, 40)), "challenger", "in dog by 0.04"
    ),
    # --- what can't be compared
    "other classes": (
        asked(BETTER), champion(classes=("cat", "cow")), "challenger",
        "champion version 3 knows other classes (cat, cow), so the two can't be compared; promote with --force and a "
        "reason if it shall be replaced",
    ),
    "fewer classes": (asked(BETTER), champion(classes=("cat",)), "challenger", "knows other classes (cat)"),
    "many other classes": (
        asked(BETTER), champion(classes=tuple(f"c{n}" for n in range(1000))), "challenger", "c6, c7 and 992 more)"
    ),
    "classes in another order": (asked(BETTER), champion(classes=("dog", "cat")), "champion", "better: "),
    "a champion that can't be asked": (
        asked(BETTER), champion(None), "challenger", "champion version 3 could not be measured on these test pictures"
    ),
    "the champion's test pictures were trained on": (
        asked(BETTER), champion(test_digests=frozenset({"seen0", "seen1", "other"})), "challenger",
        "2 test pictures of champion version 3 lay in its training data, which a content split forbids",
    ),
    "the champion has seen some of the test pictures": (
        asked((50, 50)), champion(seen_digests=frozenset({"test0", "test99"})), "champion", "on the same 98 pictures"
    ),
    "the champion has seen them all": (
        asked(BETTER), champion(seen_digests=frozenset(f"test{n}" for n in range(100))), "challenger",
        "champion version 3 has seen all of these test pictures in training",
    ),
    # --- what no gain makes up for
    "too slow": (
        asked(BETTER, max_latency_ms=5.0, latency_ms=7.25), champion(), "challenger",
        "too slow: 7.2 ms for one picture, the limit is 5 ms",
    ),
    "fast enough": (asked(BETTER, max_latency_ms=5.0, latency_ms=5.0), champion(), "champion", "better: "),
    "latency limited but not measured": (
        asked(BETTER, max_latency_ms=5.0), champion(), "challenger",
        "its latency was not measured, and the limit is 5 ms",
    ),
    "too large": (asked(BETTER, max_mb=9.5), champion(), "challenger", "too large: 10.0 MB, the limit is 9.5 MB"),
    "a leak that the digests show": (
        asked(BETTER, seen_digests=("seen0", "test5")), champion(), "challenger", "1 test picture leaked into training"
    ),
    "all that is wrong is said": (
        asked((43, 40), leaks=1, max_mb=1.0), champion((40, 43)), "challenger", "not better: "
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_gate_decides_and_says_why(case: str) -> None:
    one, rival, alias, sentence = CASES[case]
    promotion = decide(one, rival)
    assert (promotion.alias, promotion.forced) == (alias, False)
    assert sentence in promotion.reason
    assert "  " not in promotion.reason


def test_the_table_holds_the_cases_that_the_gate_is_for() -> None:
    assert len(CASES) >= 25
    assert {alias for _, _, alias, _ in CASES.values()} == {"champion", "challenger"}


def test_all_that_is_wrong_stands_in_one_sentence() -> None:
    reason = decide(*CASES["all that is wrong is said"][:2]).reason
    assert [part.split()[0] for part in reason.split("; ")] == ["not", "1", "too"]


@pytest.mark.parametrize("case", [case for case, (_, _, alias, _) in CASES.items() if alias == "challenger"])
def test_whoever_the_gate_refuses_can_be_forced_with_a_reason_that_is_kept_with_the_gates(case: str) -> None:
    one, rival, _, sentence = CASES[case]
    promotion = decide(one, rival, force="new camera")
    assert (promotion.alias, promotion.forced) == ("champion", True)
    assert promotion.reason.startswith("forced (new camera), where the gate said: ")
    assert sentence in promotion.reason


def test_force_changes_nothing_where_the_gate_agrees() -> None:
    assert decide(asked(BETTER), champion(), force="new camera") == decide(asked(BETTER), champion())


def test_the_numbers_behind_a_decision_are_its_evidence() -> None:
    found: Mapping[str, float] = decide(asked(BETTER), champion()).evidence
    assert found["candidate"] == pytest.approx(0.98)
    assert found["champion"] == pytest.approx(0.8)
    assert found["gain"] == pytest.approx(0.18)
    assert 0.1 < found["low"] < 0.18 < found["high"] < 0.27
    assert (found["wins"], found["losses"], found["pictures"]) == (18, 0, 100)
    assert decide(asked(), None).evidence == {"candidate": pytest.approx(0.8), "floor": 0.5}
    assert decide(asked((50, 34)), champion((30, 40))).evidence["worst_class_loss"] == pytest.approx(0.12)


def test_a_promotion_without_a_reason_cannot_be_made() -> None:
    with pytest.raises(ValidationError, match="reason"):
        Promotion(alias="champion", reason="", evidence={})


def test_a_candidate_survives_its_own_json() -> None:
    assert Candidate.from_json(candidate().to_json(indent=2)) == candidate()
