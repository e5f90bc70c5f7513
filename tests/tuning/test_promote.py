"""The decision who is champion."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from tests.tuning.making import candidate
from tuning.promote import Candidate, Champion, Promotion, decide

SAME = ("cat", "dog")


def champion(score: float | None, classes: tuple[str, ...] = SAME) -> Champion:
    return Champion(version=3, classes=classes, score=score)


@pytest.mark.parametrize(
    ("score", "rival", "alias", "reason"),
    [
        (0.0, None, "champion", "there was no champion before"),
        (
            0.81,
            champion(0.80),
            "champion",
            "better: test balanced accuracy 0.8100 against 0.8000 of champion version 3",
        ),
        (0.80, champion(0.80), "challenger", "not better: test balanced accuracy 0.8000 against 0.8000"),
        (0.79, champion(0.80), "challenger", "not better: test balanced accuracy 0.7900 against 0.8000"),
        (0.9, champion(0.1, ("dog", "cat")), "champion", "better"),
        (
            0.9,
            champion(0.1, ("cat", "cow")),
            "challenger",
            "knows other classes (cat, cow), so the two can't be compared",
        ),
        (0.9, champion(0.1, ("cat",)), "challenger", "knows other classes (cat)"),
        (0.9, champion(None), "challenger", "could not be measured on these test pictures"),
    ],
)
def test_the_alias_and_its_reason(score: float, rival: Champion | None, alias: str, reason: str) -> None:
    promotion = decide(candidate(score), rival)
    assert promotion.alias == alias
    assert reason in promotion.reason


def test_the_numbers_behind_a_decision_are_its_evidence() -> None:
    assert decide(candidate(0.8), champion(0.7)).evidence == {"candidate": 0.8, "champion": 0.7}
    assert decide(candidate(0.8), champion(None)).evidence == {"candidate": 0.8}


def test_on_how_many_pictures_is_said() -> None:
    assert "on the same 20 pictures" in decide(candidate(0.8), champion(0.7)).reason


def test_a_promotion_without_a_reason_cannot_be_made() -> None:
    with pytest.raises(ValidationError, match="reason"):
        Promotion(alias="champion", reason="", evidence={})


def test_a_candidate_survives_its_own_json() -> None:
    assert Candidate.from_json(candidate().to_json(indent=2)) == candidate()
