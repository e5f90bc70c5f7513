"""Changes of the champion: in order on one machine, and consistent between machines that share only the registry."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from data.dataset.dataset import Dataset
from data.errors import TrackingError
from tests.tuning.factories import CLASSES, GATE, candidate, predictions
from tuning.common.promotion_types import Candidate, Champion, Promotion
from tuning.registry import gate
from tuning.registry.champion_change import change_champion, promotion_lock
from tuning.registry.client import ModelRegistry
from tuning.registry.promotion import promote

if TYPE_CHECKING:
    from mlflow import MlflowClient

MODULE = "tuning.registry.champion_change"
ANY_GAIN = GATE.model_copy(update={"min_gain": 0.0, "significance": 1.0})
Decide = Callable[..., Promotion]


class Machine(threading.local):
    """The machine that a thread stands for; each machine has a home folder of its own."""

    home = Path()


MACHINE = Machine()


@pytest.fixture
def registry(client: MlflowClient) -> ModelRegistry:
    model_registry = ModelRegistry(client, "pets")
    model_registry.create_if_missing()
    return model_registry


def few_tags(promotion: Promotion, champion: int | None) -> dict[str, str]:
    """Return the tags that the tests read; all tags would take most of their time."""
    return {"previous_champion": str(champion or ""), "freezeline.gate": promotion.alias}


@pytest.fixture
def decide(client: MlflowClient, pets: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Decide:
    """Return a function that promotes a candidate on a machine. No package is logged or loaded.

    A candidate's score is how many of the 50 images of each class it classifies correctly.
    """
    run_id = client.create_run("0").info.run_id

    def evaluate(model_registry: ModelRegistry, _: Candidate, __: Dataset, version: int) -> Champion:
        score = int(model_registry.tags(version)["score"])
        return Champion(version=version, classes=CLASSES, y_pred=predictions((score, score), 50))

    def decide_on(score: int, machine: str = "a", force: str = "") -> Promotion:
        MACHINE.home = tmp_path / machine
        package = client.create_logged_model("0", name="package")
        packaged = candidate(
            run_id=run_id, model_uri=f"models:/{package.model_id}", num_correct=(score, score), images_per_class=50
        )
        scored = packaged.model_copy(update={"gate": ANY_GAIN, "metrics": {"score": score}})
        return promote(client, scored, pets, force)[1]

    monkeypatch.setattr("tuning.registry.promotion.verify_loads", lambda *_: None)
    monkeypatch.setattr("tuning.registry.promotion._evaluate_champion", evaluate)
    monkeypatch.setattr("tuning.registry.promotion.render_model_card", lambda *_: "a card")
    monkeypatch.setattr(
        "tuning.registry.promotion._candidate_tags", lambda scored: {"score": str(scored.metrics["score"])}
    )
    monkeypatch.setattr("tuning.registry.promotion._decision_tags", few_tags)
    monkeypatch.setattr(f"{MODULE}.state_dir", lambda: MACHINE.home)
    return decide_on


def decide_concurrently(decide: Decide, count: int, machine_of: Callable[[int], str]) -> None:
    """Decide about ``count`` candidates, of different scores in random order, each in its own thread."""
    scores = [int(score) for score in np.random.default_rng(0).permutation(count) + 30]
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(lambda score: decide(score, machine_of(score)), scores))


def scores_and_champions(registry: ModelRegistry, count: int) -> dict[int, tuple[float, int | None, str]]:
    """Return each version's score, the champion that it was compared with, and the decision."""
    decisions = {}
    for version in range(1, count + 1):
        tags = registry.tags(version)
        compared_with = int(tags["previous_champion"]) if tags["previous_champion"] else None
        decisions[version] = (float(tags["score"]), compared_with, tags["freezeline.gate"])
    return decisions


def test_twenty_machines_end_with_the_alias_at_the_last_line_of_the_history(
    registry: ModelRegistry, decide: Decide
) -> None:
    decide_concurrently(decide, 20, lambda score: f"machine-{score}")
    decisions, state = scores_and_champions(registry, 20), registry.state()
    assert state.champion == state.changes[-1].version == max(decisions, key=lambda version: decisions[version][0])
    assert state.claims == frozenset()
    assert [change.number for change in state.changes] == list(range(1, len(state.changes) + 1))
    assert [change.previous for change in state.changes] == [None, *(change.version for change in state.changes[:-1])]
    champions = {change.version: change.previous for change in state.changes}
    for version, (score, compared_with, alias) in decisions.items():
        assert alias == ("champion" if version in champions else "challenger")
        if compared_with is not None:
            assert (alias == "champion") == (score > decisions[compared_with][0])
        if version in champions:
            assert compared_with == champions[version]


def test_on_one_machine_each_version_is_compared_with_the_champion_before_it(
    registry: ModelRegistry, decide: Decide
) -> None:
    decide_concurrently(decide, 6, lambda _: "a")
    champion, best = None, 0.0
    for version, (score, compared_with, alias) in scores_and_champions(registry, 6).items():
        assert (compared_with, alias) == (champion, "champion" if score > best else "challenger")
        if score > best:
            champion, best = version, score
    assert registry.state().champion == registry.state().changes[-1].version == champion


def test_a_candidate_is_compared_again_if_another_machine_moved_the_alias_meanwhile(
    registry: ModelRegistry, decide: Decide, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide(30)
    other_scores = iter((36, 40))

    def decide_while_another_machine_promotes(*arguments: Any) -> Promotion:
        if arguments[0].metrics["score"] == 38 and (other_score := next(other_scores, None)):
            decide(other_score, "b")
        return gate.decide(*arguments)

    monkeypatch.setattr("tuning.registry.promotion.decide", decide_while_another_machine_promotes)
    assert "not better: test balanced accuracy 0.7600 vs. 0.8000" in decide(38).reason
    assert [change.version for change in registry.state().changes] == [1, 3, 4]


def test_with_another_claim_the_alias_stays_and_the_own_claim_is_withdrawn(
    registry: ModelRegistry, decide: Decide
) -> None:
    decide(30)
    before = registry.state()
    with registry.claim() as other:
        assert change_champion(registry, before, 2, "promoted", "better") is None
        assert registry.state() == before._replace(claims=frozenset({other}))


def test_the_claim_of_a_process_that_has_ended_is_released(
    registry: ModelRegistry, decide: Decide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{MODULE}.CLAIM_TIMEOUT_S", 0.0)
    monkeypatch.setattr(f"{MODULE}.PAUSE_S", 0.0)
    registry.client.set_registered_model_tag("pets", "freezeline.claim.killed", "another machine")
    assert decide(30).alias == "champion"
    assert registry.state().claims == frozenset()


def test_an_alias_that_is_always_moved_back_by_hand_is_an_error(
    registry: ModelRegistry, decide: Decide, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide(30)
    monkeypatch.setattr(f"{MODULE}.PAUSE_S", 0.0)
    monkeypatch.setattr(f"{MODULE}.MAX_ATTEMPTS", 2)
    set_alias = registry.client.set_registered_model_alias

    def set_and_move_back(name: str, alias: str, version: str) -> None:
        set_alias(name, alias, version)
        set_alias(name, alias, "1")

    monkeypatch.setattr(registry.client, "set_registered_model_alias", set_and_move_back)
    with pytest.raises(TrackingError, match=r"champion of pets must stay the same .* 2 times; run the command again"):
        decide(40)
    assert registry.state().claims == frozenset()


@pytest.mark.parametrize(
    ("uri", "name", "is_same"),
    [
        ("http://ann:secret@mlflow:5000", "pets", True),
        ("http://mlflow:5000", "cows", False),
        ("http://other:5000", "pets", False),
    ],
)
def test_the_lock_depends_on_the_server_and_the_model_but_not_on_credentials(
    monkeypatch: pytest.MonkeyPatch, uri: str, name: str, is_same: bool
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    expected = promotion_lock("pets").lock_file
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert (promotion_lock(name).lock_file == expected) == is_same


def test_a_version_is_not_registered_twice_if_the_response_is_lost(
    registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.exceptions import MlflowException

    create, created = registry.client.create_model_version, []

    def lose_the_response(*args: Any, **kwargs: Any) -> Any:
        created.append(create(*args, **kwargs))
        if len(created) == 1:
            raise MlflowException("database is locked")
        return created[-1]

    monkeypatch.setattr(registry.client, "create_model_version", lose_the_response)
    run_id = registry.client.create_run("0").info.run_id
    assert registry.register("/package", run_id, "m-1", {}) == registry.register("/package", run_id, "m-1", {}) == 1
    assert len(created) == 1


def test_an_alias_that_another_process_sets_for_the_first_time_at_the_same_moment_is_set_again(
    registry: ModelRegistry, decide: Decide, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.exceptions import MlflowException

    decide(40)
    set_alias, calls = registry.client.set_registered_model_alias, []

    def fail_once(*args: Any) -> None:
        calls.append(args)
        if len(calls) == 1:
            raise MlflowException("UNIQUE constraint failed: [SQL: INSERT INTO registered_model_aliases (...)]")
        set_alias(*args)

    monkeypatch.setattr(registry.client, "set_registered_model_alias", fail_once)
    assert decide(30).alias == "challenger"
    assert registry.version_of_alias("challenger") == 2
