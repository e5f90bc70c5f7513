"""The base of every value that flows: frozen, checked when it is made, with a JSON round trip."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from pydantic import BaseModel, ConfigDict

from data.errors import SettingError


class FrozenModel(BaseModel):
    """A frozen, typed value; an unknown field or a wrong type is refused when it is made."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=True, ser_json_inf_nan="constants")

    def to_json(self, indent: int | None = None) -> str:
        """Return the value as JSON text that ``from_json`` reads back to an equal value."""
        return self.model_dump_json(indent=indent)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Return the value that ``to_json`` wrote; raise ``pydantic.ValidationError`` for anything else."""
        return cls.model_validate_json(text)


def as_pydantic_validator(check: Callable[[str], None]) -> Callable[[str], str]:
    """Return what pydantic validates a text with that ``check`` raises SettingError for where it is wrong."""

    def validate(text: str) -> str:
        try:
            check(text)
        except SettingError as error:
            raise ValueError(str(error)) from error
        return text

    return validate
