"""The versions of one registered model: MLflow's registry as promotion sees it, asked again where it was only busy."""

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
FIRST_PAUSE_S = 0.1  # doubled after each attempt: half a minute in all
# What a database or server says that will answer the same question later.
TRANSIENT_ERRORS = (
    "database is locked",
    "QueuePool limit",
    "Giving up after",
    "deadlock detected",
    "could not serialize",
)
MAX_TAG_LENGTH = 4800  # characters; PostgreSQL keeps 5,000 of a registered model's tag or a description

P = ParamSpec("P")
R = TypeVar("R")


class Version(NamedTuple):
    """A version's number and tags."""

    number: int
    tags: dict[str, str]


def retry_when_busy(func: Callable[P, R], *arguments: P.args, **options: P.kwargs) -> R:
    """Return what ``ask`` returns; where the store is merely busy, ask again after a random pause."""
    from mlflow.exceptions import MlflowException

    for attempt in range(ATTEMPTS):
        try:
            return func(*arguments, **options)
        except MlflowException as error:
            if attempt == ATTEMPTS - 1 or not any(word in str(error) for word in TRANSIENT_ERRORS):
                raise
            time.sleep(random.uniform(0.5, 1) * min(FIRST_PAUSE_S * 2**attempt, 5))  # noqa: S311  # no secret
    raise AssertionError("the last attempt returns or raises")


class ModelRegistry:
    """One registered model's versions, aliases and history."""

    def __init__(self, client: MlflowClient, name: str) -> None:
        self.client = client
        self.name = name

    def create_if_missing(self) -> None:
        """Make the registered model if there is none."""
        from mlflow.exceptions import MlflowException

        try:
            retry_when_busy(self.client.create_registered_model, self.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def check_exists(self) -> None:
        """See that the registered model is there.

        Raises:
            TrackingError: if it is not.
        """
        from mlflow.exceptions import MlflowException

        try:
            retry_when_busy(self.client.get_registered_model, self.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise TrackingError(
                f"name must be a registered model, got {self.name!r}, which is none; mlflow ui shows them"
            ) from None

    def create_version(
        self, source: str, run_id: str, model_id: str, tags: dict[str, str], idempotency_tag: str
    ) -> int:
        """Make a version with its tags, in one transaction; return its number, one above all others.

        ``mark`` is one of the tags that no other version has: by it a version is known that was made although the
        answer got lost.
        """

        def make() -> int:
            for version in self.versions():
                if idempotency_tag in version.tags:
                    return version.number
            marked = {**tags, MODEL_ID_TAG: model_id}
            made = self.client.create_model_version(self.name, source, run_id, tags=marked, model_id=model_id)
            return int(made.version)

        return retry_when_busy(make)

    def versions(self) -> list[Version]:
        """Return all versions, by number."""
        found = retry_when_busy(self.client.search_model_versions, f"name = '{self.name}'")
        return sorted(Version(int(one.version), dict(one.tags)) for one in found)

    def version_of_source(self, source: str) -> int | None:
        """Return the version of a package, None where it was never registered."""
        found = retry_when_busy(self.client.search_model_versions, f"name = '{self.name}'")
        return min((int(one.version) for one in found if one.source == source), default=None)

    def tags(self, version: int) -> dict[str, str]:
        """Return a version's tags.

        Raises:
            TrackingError: there is no such version.
        """
        from mlflow.exceptions import MlflowException

        try:
            return dict(retry_when_busy(self.client.get_model_version, self.name, str(version)).tags)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise TrackingError(
                f"version must be one of {self.name}, got {version}, which is none; "
                f"python -m tuning champions --name {self.name} shows them."
            ) from None

    def set_tags(self, version: int, tags: dict[str, str]) -> None:
        """Set tags of a version."""
        for name, text in tags.items():
            retry_when_busy(self.client.set_model_version_tag, self.name, str(version), name, text)

    def delete_tag(self, version: int, name: str) -> None:
        """Take a tag off a version."""
        retry_when_busy(self.client.delete_model_version_tag, self.name, str(version), name)

    def set_description(self, version: int, text: str) -> None:
        """Set a version's description."""
        retry_when_busy(self.client.update_model_version, self.name, str(version), text)

    def version_of_alias(self, alias: str) -> int | None:
        """Return the version that has the alias, or None."""
        version = retry_when_busy(self.client.get_registered_model, self.name).aliases.get(alias)
        return None if version is None else int(version)

    def set_alias(self, alias: str, version: int) -> None:
        """Give an alias to a version, and see that it has it.

        Raises:
            TrackingError: someone else moved it at the same time.
        """
        retry_when_busy(self.client.set_registered_model_alias, self.name, alias, str(version))
        holder = self.version_of_alias(alias)
        if holder != version:
            raise TrackingError(
                f"alias {alias} of {self.name} must point to version {version} but was moved to {holder} "
                "at the same time by someone else; run promote again"
            )

    def delete_alias(self, alias: str) -> None:
        """Take an alias away."""
        retry_when_busy(self.client.delete_registered_model_alias, self.name, alias)

    def history(self) -> list[ChampionChange]:
        """Return who became champion, first to last."""
        tags = retry_when_busy(self.client.get_registered_model, self.name).tags
        events = [ChampionChange.from_json(text) for name, text in tags.items() if name.startswith(CHAMPION_CHANGE_TAG)]
        return sorted(events, key=lambda event: event.number)

    def append_history(self, event: ChampionChange) -> None:
        """Keep an event; a reason that is too long for the store is cut."""
        kept = event.model_copy(update={"reason": event.reason[: MAX_TAG_LENGTH // 2]})
        name = f"{CHAMPION_CHANGE_TAG}{event.number:06}"
        retry_when_busy(self.client.set_registered_model_tag, self.name, name, kept.to_json())
