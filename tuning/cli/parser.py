"""Parsing of a command's options, and their help text."""

from __future__ import annotations

import types
import typing
from collections.abc import Sequence
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from data.errors import SettingError
from tuning.recipe.options import format_error, option_fields, parse_args

OptionsT = TypeVar("OptionsT", bound=BaseModel)


def parse(model: type[OptionsT], arguments: Sequence[str], **defaults: object) -> OptionsT:
    """Return the options given as ``--name value`` or ``--name=value``.

    Args:
        model: names, types, defaults and limits of the options.
        arguments: the command line after the name of the command.
        defaults: values that replace the model's defaults; an argument of the same name overrides them.

    Raises:
        SettingError: with a message for each option that is unknown, repeated, invalid or lacks a value.
    """
    texts, problems = parse_args(model, arguments)
    values = {**defaults, **texts}
    try:
        options = model.model_validate(values)
    except ValidationError as error:
        problems += [format_error(model, detail) for detail in error.errors()]
    if problems:
        raise SettingError(*problems)
    return options


def format_help(model: type[BaseModel]) -> str:
    """Return a line for each option: name, type, default and description."""
    rows = [
        (f"--{name}", type_text(field), default_text(field), field.description or "")
        for name, field in option_fields(model).items()
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)) + "  " + row[3]
        for row in rows
    )


def type_text(field: FieldInfo) -> str:
    """Return an option's type for its help line."""
    annotation = field.annotation
    if typing.get_origin(annotation) is typing.Literal:
        return "|".join(str(value) for value in typing.get_args(annotation))
    parts = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    type_names = {str: "text", int: "integer", float: "number", bool: "on|off"}
    names = [type_names[part] for part in parts if part in type_names]
    return "|".join(names) or "value(s)"


def default_text(field: FieldInfo) -> str:
    """Return an option's default for its help line."""
    if field.default is PydanticUndefined:
        return "(required)"
    if isinstance(field.default, bool):
        return "on" if field.default else "off"
    return "-" if field.default in (None, "") else str(field.default)
