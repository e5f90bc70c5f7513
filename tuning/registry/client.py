"""MLflow's model registry, reduced to what a promotion needs; requests are retried while the database is busy."""

from __future__ import annotations

import random
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, ParamSpec, TypeVar

from data.errors import TrackingError
from tuning.common.names import CHAMPION_CHANGE_TAG, CLAIM_TAG, MODEL_ID_TAG
from tuning.common.promotion_types import ChampionChange
from tuning.tracking.connection import store_text

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, CHALLENGER = "champion", "challenger"

ATTEMPTS = 10
FIRST_PAUSE_S = 0.1  # doubled after each attempt, up to 5 s: half a minute in total
# Parts of messages after which the same request may succeed later.
TRANSIENT_ERRORS = (
    "database is locked",
    "QueuePool limit",
    "Giving up after",
    "deadlock detected",
    "could not serialize",
    "INSERT INTO registered_model_aliases",  # two processes set a new alias at the same time
)
MAX_TAG_LENGTH = 4800  # characters; in PostgreSQL a tag of a registered model and a description hold 5,000

P = ParamSpec("P")
R = TypeVar("R")


class RegistryState(NamedTuple):
    """The state of a registered model, from a single request.

    ``changes`` of the champion are in order, oldest first; ``claims`` are explained in ``champion_change``.
    """

    champion: int | None
    changes: tuple[ChampionChange, ...]
    claims: frozenset[str]


def retry_when_busy(func: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call ``func``; repeat it after a random pause while the database or server is busy.

    Raises:
        MlflowException: another error, or the database is still busy after ``ATTEMPTS`` calls.
    """
    from mlflow.exceptions import MlflowException

    for attempt in range(ATTEMPTS):
        try:
            return func(*args, **kwargs)
        except MlflowException as error:
            if attempt == ATTEMPTS - 1 or not any(part in str(error) for part in TRANSIENT_ERRORS):
                raise
            time.sleep(random.uniform(0.5, 1) * min(FIRST_PAUSE_S * 2**attempt, 5))  # noqa: S311  # not security
    raise AssertionError("the last attempt returns or raises")


class ModelRegistry:
    """The versions, aliases and champion history of one registered model."""

    def __init__(self, client: MlflowClient, name: str) -> None:
        self.client = client
        self.name = name

    def create_if_missing(self, description: str = "") -> None:
        """Create the registered model, with a description in Markdown, if it does not exist."""
        from mlflow.exceptions import MlflowException

        try:
            retry_when_busy(self.client.create_registered_model, self.name, description=description or None)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def check_exists(self) -> None:
        """Check that the registered model exists.

        Raises:
            TrackingError: it does not exist.
        """
        from mlflow.exceptions import MlflowException

        try:
            retry_when_busy(self.client.get_registered_model, self.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise TrackingError(
                f"name must be a registered model, got {self.name!r}, which does not exist in {store_text()}; "
                "mlflow ui lists the models"
            ) from None

    def register(self, source: str, run_id: str, model_id: str, tags: Mapping[str, str]) -> int:
        """Return the version of the package at ``source``, with ``tags``; register it if it has none."""
        tags = {**tags, MODEL_ID_TAG: model_id}

        def find_or_create() -> ModelVersion:  # repeated as a whole: a failed request may have created the version
            versions = self.client.search_model_versions(f"name = '{self.name}'")
            known = [version for version in versions if version.source == source]
            if known:
                return min(known, key=lambda version: int(version.version))
            return self.client.create_model_version(self.name, source, run_id, tags=tags, model_id=model_id)

        version = retry_when_busy(find_or_create)
        number = int(version.version)
        self.set_tags(number, {name: text for name, text in tags.items() if version.tags.get(name) != text})
        return number

    def version_of_model(self, model_id: str) -> int | None:
        """Return the version that holds a package; None if it is not registered."""
        versions = retry_when_busy(self.client.search_model_versions, f"name = '{self.name}'")
        return next((int(found.version) for found in versions if found.tags.get(MODEL_ID_TAG) == model_id), None)

    def version(self, version: int) -> ModelVersion:
        """Return a version with its run and tags.

        Raises:
            TrackingError: the version does not exist.
        """
        from mlflow.exceptions import MlflowException

        try:
            return retry_when_busy(self.client.get_model_version, self.name, str(version))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise TrackingError(
                f"version must be a version of {self.name}, got {version}, which does not exist; mlflow ui lists them"
            ) from None

    def tags(self, version: int) -> dict[str, str]:
        """Return the tags of a version; raise like ``version``."""
        return dict(self.version(version).tags)

    def set_tags(self, version: int, tags: dict[str, str]) -> None:
        """Set tags of a version."""
        for name, text in tags.items():
            retry_when_busy(self.client.set_model_version_tag, self.name, str(version), name, text)

    def set_description(self, version: int, text: str) -> None:
        """Set the description of a version."""
        retry_when_busy(self.client.update_model_version, self.name, str(version), text)

    def state(self) -> RegistryState:
        """Return the champion, its history and the claims."""
        model = retry_when_busy(self.client.get_registered_model, self.name)
        champion = model.aliases.get(CHAMPION)
        changes = [
            ChampionChange.from_json(text) for name, text in model.tags.items() if name.startswith(CHAMPION_CHANGE_TAG)
        ]
        return RegistryState(
            champion=None if champion is None else int(champion),
            changes=tuple(sorted(changes, key=lambda change: change.number)),
            claims=frozenset(name for name in model.tags if name.startswith(CLAIM_TAG)),
        )

    def version_of_alias(self, alias: str) -> int | None:
        """Return the version with an alias; None if there is none."""
        version = retry_when_busy(self.client.get_registered_model, self.name).aliases.get(alias)
        return None if version is None else int(version)

    def set_alias(self, alias: str, version: int) -> None:
        """Point an alias to a version."""
        retry_when_busy(self.client.set_registered_model_alias, self.name, alias, str(version))

    def delete_alias(self, alias: str) -> None:
        """Delete an alias."""
        retry_when_busy(self.client.delete_registered_model_alias, self.name, alias)

    def append_history(self, change: ChampionChange) -> ChampionChange:
        """Save a change of the champion and return it as saved: a reason too long for a tag is cut."""
        saved = change.model_copy(update={"reason": change.reason[: MAX_TAG_LENGTH // 2]})
        name = f"{CHAMPION_CHANGE_TAG}{change.number:06}"
        retry_when_busy(self.client.set_registered_model_tag, self.name, name, saved.to_json())
        return saved

    @contextmanager
    def claim(self) -> Iterator[str]:
        """Set a claim until the context ends; yield its name."""
        name = f"{CLAIM_TAG}{uuid.uuid4().hex}"
        try:
            retry_when_busy(self.client.set_registered_model_tag, self.name, name, socket.gethostname())
            yield name
        finally:
            self.release(name)

    def release(self, claim: str) -> None:
        """Delete a claim, one's own or that of a process that has ended."""
        retry_when_busy(self.client.delete_registered_model_tag, self.name, claim)
