"""Base class of the value types: immutable, validated on construction, with a JSON round trip."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from pydantic import BaseModel, ConfigDict

from data.errors import SettingError


class FrozenModel(BaseModel):
    """Immutable pydantic model that rejects unknown fields and wrong types."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=True, ser_json_inf_nan="constants")

    def to_json(self, indent: int | None = None) -> str:
        """Serialize to JSON; ``from_json`` restores an equal value."""
        return self.model_dump_json(indent=indent)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Restore a value from the output of ``to_json``; raise ``pydantic.ValidationError`` if it is invalid."""
        return cls.model_validate_json(text)


def as_pydantic_validator(check: Callable[[str], object]) -> Callable[[str], str]:
    """Convert ``check``, which raises SettingError for an invalid text, into a pydantic validator."""

    def validate(text: str) -> str:
        try:
            check(text)
        except SettingError as error:
            raise ValueError(str(error)) from error
        return text

    return validate
