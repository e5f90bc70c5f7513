"""Parsing of a command's options, and their help text.

Every option takes a value, because ``mlflow run -P`` cannot pass a bare flag. ``-`` and ``_`` are interchangeable, and
an empty value is the same as an omitted option. All errors are reported together.
"""

from __future__ import annotations

import os
import types
import typing
from collections.abc import Sequence
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from data.errors import SettingError, did_you_mean
from tuning.recipe.options import format_error, option_fields

OutputPath = Annotated[str, AfterValidator(os.path.expanduser)]  # an option: file or folder to write to
OptionsT = TypeVar("OptionsT", bound=BaseModel)


def parse(model: type[OptionsT], arguments: Sequence[str], **defaults: object) -> OptionsT:
    """Return the options given as ``--name value`` or ``--name=value``; ``defaults`` replace the model's defaults.

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


def parse_args(model: type[BaseModel], arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return the option values as text by option name, and a message for each argument that cannot be parsed."""
    texts: dict[str, str] = {}
    problems: list[str] = []
    fields = option_fields(model)
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        option, equals, text = argument.partition("=")
        name = option.removeprefix("--").replace("-", "_")
        if not option.startswith("--"):
            problems.append(f"options are written --name value, got {argument!r}; see --help.")
            continue
        has_value = bool(equals) or (bool(rest) and not _is_option(fields, rest[0]))
        if has_value and not equals:
            text = rest.pop(0)
        if name not in fields:
            hint = did_you_mean(name, fields) or "; see --help."
            problems.append(f"there is no option --{name}{hint}")
        elif not has_value:
            problems.append(f"--{name} needs a value; see --help.")
        elif not text:  # the same as omitted
            continue
        elif name in texts and texts[name] != text:
            problems.append(f"--{name} must be given once, got {texts[name]!r} and {text!r}.")
        else:
            texts[name] = text
    return texts, problems


def _is_option(fields: dict[str, FieldInfo], argument: str) -> bool:
    name = argument.removeprefix("--").partition("=")[0].replace("-", "_")
    return argument.startswith("--") and name in fields


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
