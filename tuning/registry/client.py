"""MLflow's model registry, reduced to what a promotion needs; requests are retried while the database is busy."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, ParamSpec, TypeVar

from data.errors import TrackingError
from tuning.common.names import CHAMPION_CHANGE_TAG, MODEL_ID_TAG
from tuning.common.promotion_types import ChampionChange

if TYPE_CHECKING:
    from mlflow import MlflowClient

ATTEMPTS = 10
FIRST_PAUSE_S = 0.1  # doubled after each attempt, up to 5 s: half a minute in total
# Parts of messages after which the same request may succeed later.
TRANSIENT_ERRORS = (
    "database is locked",
    "QueuePool limit",
    "Giving up after",
    "deadlock detected",
    "could not serialize",
)
MAX_TAG_LENGTH = 4800  # characters; in PostgreSQL a tag of a registered model and a description hold 5,000

P = ParamSpec("P")
R = TypeVar("R")


class Version(NamedTuple):
    """A version's number and tags."""

    number: int
    tags: dict[str, str]


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

    def create_if_missing(self) -> None:
        """Create the registered model if it does not exist."""
        from mlflow.exceptions import MlflowException

        try:
            retry_when_busy(self.client.create_registered_model, self.name)
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
                f"name must be a registered model, got {self.name!r}, which does not exist; mlflow ui lists the models"
            ) from None

    def create_version(
        self, source: str, run_id: str, model_id: str, tags: dict[str, str], idempotency_tag: str
    ) -> int:
        """Register a version together with its tags, in one transaction.

        Args:
            source: location of the package's files.
            run_id: run that packaged the model.
            model_id: the package's id in MLflow.
            tags: tags of the new version.
            idempotency_tag: name of one of the tags, unique to this call. It finds the version if MLflow created it
                but its response was lost.

        Returns:
            The version's number: one more than the highest existing one.
        """

        def create() -> int:
            for version in self.versions():
                if idempotency_tag in version.tags:
                    return version.number
            all_tags = {**tags, MODEL_ID_TAG: model_id}
            created = self.client.create_model_version(self.name, source, run_id, tags=all_tags, model_id=model_id)
            return int(created.version)

        return retry_when_busy(create)

    def versions(self) -> list[Version]:
        """Return all versions, by number."""
        versions = retry_when_busy(self.client.search_model_versions, f"name = '{self.name}'")
        return sorted(Version(int(version.version), dict(version.tags)) for version in versions)

    def version_of_source(self, source: str) -> int | None:
        """Return the first version of a package, or None if the package was never registered."""
        versions = retry_when_busy(self.client.search_model_versions, f"name = '{self.name}'")
        return min((int(version.version) for version in versions if version.source == source), default=None)

    def tags(self, version: int) -> dict[str, str]:
        """Return the tags of a version.

        Raises:
            TrackingError: the version does not exist.
        """
        from mlflow.exceptions import MlflowException

        try:
            return dict(retry_when_busy(self.client.get_model_version, self.name, str(version)).tags)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise TrackingError(
                f"version must be a version of {self.name}, got {version}, which does not exist; mlflow ui lists them"
            ) from None

    def set_tags(self, version: int, tags: dict[str, str]) -> None:
        """Set tags of a version."""
        for name, text in tags.items():
            retry_when_busy(self.client.set_model_version_tag, self.name, str(version), name, text)

    def delete_tag(self, version: int, name: str) -> None:
        """Delete a tag of a version."""
        retry_when_busy(self.client.delete_model_version_tag, self.name, str(version), name)

    def set_description(self, version: int, text: str) -> None:
        """Set the description of a version."""
        retry_when_busy(self.client.update_model_version, self.name, str(version), text)

    def version_of_alias(self, alias: str) -> int | None:
        """Return the version that the alias points to, or None."""
        version = retry_when_busy(self.client.get_registered_model, self.name).aliases.get(alias)
        return None if version is None else int(version)

    def set_alias(self, alias: str, version: int) -> None:
        """Point an alias to a version, then read it back.

        Raises:
            TrackingError: the alias was moved by another process or person at the same time.
        """
        retry_when_busy(self.client.set_registered_model_alias, self.name, alias, str(version))
        actual = self.version_of_alias(alias)
        if actual != version:
            raise TrackingError(
                f"alias {alias} of {self.name} must point to version {version}, but it was moved to {actual} at the "
                "same time by another process or person; run promote again"
            )

    def delete_alias(self, alias: str) -> None:
        """Delete an alias."""
        retry_when_busy(self.client.delete_registered_model_alias, self.name, alias)

    def history(self) -> list[ChampionChange]:
        """Return the changes of the champion, oldest first."""
        tags = retry_when_busy(self.client.get_registered_model, self.name).tags
        changes = [
            ChampionChange.from_json(text) for name, text in tags.items() if name.startswith(CHAMPION_CHANGE_TAG)
        ]
        return sorted(changes, key=lambda change: change.number)

    def append_history(self, change: ChampionChange) -> None:
        """Save a change of the champion; a reason too long for a tag is cut."""
        shortened = change.model_copy(update={"reason": change.reason[: MAX_TAG_LENGTH // 2]})
        name = f"{CHAMPION_CHANGE_TAG}{change.number:06}"
        retry_when_busy(self.client.set_registered_model_tag, self.name, name, shortened.to_json())
