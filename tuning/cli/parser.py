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

Options = TypeVar("Options", bound=BaseModel)


def parse(model: type[Options], arguments: Sequence[str], **given: object) -> Options:
    """Return the ``model`` made of ``--name value`` and ``--name=value`` arguments.

    Args:
        model: the options' names, types, defaults and limits.
        arguments: the command line after the command's name.
        given: values that come from elsewhere; an argument of the same name wins.

    Raises:
        SettingError: with a sentence for each option that is unknown, repeated, without a value or wrong.
    """
    texts, problems = parse_args(model, arguments)
    values = {**given, **texts}
    try:
        options = model.model_validate(values)
    except ValidationError as error:
        problems += [format_error(model, detail) for detail in error.errors()]
    if problems:
        raise SettingError(*problems)
    return options


def format_help(model: type[BaseModel]) -> str:
    """Return a line for each option: name, type, default and what it is."""
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
    """Return an option's type as help shows it."""
    annotation = field.annotation
    if typing.get_origin(annotation) is typing.Literal:
        return "|".join(str(word) for word in typing.get_args(annotation))
    parts = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    known = {str: "text", int: "integer", float: "number", bool: "on|off"}
    names = [known[part] for part in parts if part in known]
    return "|".join(names) or "value(s)"


def default_text(field: FieldInfo) -> str:
    """Return an option's default as help shows it."""
    if field.default is PydanticUndefined:
        return "(required)"
    if isinstance(field.default, bool):
        return "on" if field.default else "off"
    return "-" if field.default in (None, "") else str(field.default)
