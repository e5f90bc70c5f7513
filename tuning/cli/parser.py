"""Command lines: argparse, generated from the fields of a command's ``Options``, splits them into texts.

argparse is part of Python and imported in milliseconds, so that ``--help`` is fast; shtab completes what it defines. It
only collects the texts: pydantic validates them, so that all problems are reported together. ``-`` and ``_`` are
interchangeable in names, ``name=value`` is ``--name value``, and an empty value is the same as an omitted option:
``mlflow run`` passes such values.
"""

from __future__ import annotations

import argparse
import os
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from data.errors import SettingError, did_you_mean
from tuning.recipe.options import format_error, group_of, group_order, option_fields

OutputPath = Annotated[str, AfterValidator(os.path.expanduser)]  # an option: file or folder to write to
# An option that takes several arguments; a single text is not split, because a file name may contain any separator.
Several = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]
OptionsT = TypeVar("OptionsT", bound=BaseModel)
Texts = dict[str, Any]  # values as the user types them (a str, or a tuple of several), by option name

ARGUMENTS = "arguments"  # where argparse puts the positional arguments
NO_VALUE = "\0"  # stands for the value of an option that is given without one
BOOLEANS = {"on", "off", "true", "false", "yes", "no", "1", "0", ""}
ALIASES = {"recipe": "config", "start_from": "from"}
MAX_UNGROUPED = 12  # options of a command that need no headings
EXIT_STATUSES = "exit status: 0 success, 1 failure, 2 invalid input, 130 interrupted"


def parse(model: type[OptionsT], arguments: Sequence[str], positionals: Sequence[str] = ()) -> OptionsT:
    """Return the options of a command line.

    Raises:
        SettingError: with a message for each option that is unknown, invalid or lacks a value.
    """
    texts, problems = parse_args(model, arguments, positionals)
    return validate(model, texts, problems)


def validate(model: type[OptionsT], values: Mapping[str, object], problems: Sequence[str] = ()) -> OptionsT:
    """Return the options of a command from their values by name.

    Raises:
        SettingError: with ``problems``, and a message for each invalid value.
    """
    problems = list(problems)
    try:
        options = model.model_validate(values)
    except ValidationError as error:
        problems += [format_error(model, detail) for detail in error.errors()]
    if problems:
        raise SettingError(*problems)
    return options


def parse_args(
    model: type[BaseModel], arguments: Sequence[str], positionals: Sequence[str] = ()
) -> tuple[Texts, list[str]]:
    """Return the texts by option name, and a message for each argument that cannot be parsed.

    Arguments without a name are the values of ``positionals``, in this order; the last one takes all that remain if it
    is a tuple.
    """
    fields = option_fields(model)
    parser = build_parser("", model)
    named = [_as_option(argument, fields) for argument in arguments]
    namespace, rest = parser.parse_known_intermixed_args(_with_flag_values(named, fields))
    values = vars(namespace)
    extra: list[str] = values.pop(ARGUMENTS, [])
    unknown = [argument for argument in rest if argument.startswith("--")]
    problems = [_unknown_option(argument, fields) for argument in unknown]
    problems += [f"--{name} needs a value; see --help." for name, text in values.items() if text == NO_VALUE]
    texts: Texts = {name: text for name, text in values.items() if text not in {NO_VALUE, ""}}
    for name in positionals:
        if name in texts or not extra:
            continue
        count = len(extra) if _takes_several(fields[name]) else 1
        texts[name] = tuple(extra[:count]) if count > 1 else extra[0]
        extra = extra[count:]
    if extra and not unknown:  # after an unknown option, it may be its value
        rule = f"{_usage(positionals, fields)}, got one more:" if positionals else "given by name, got"
        problems.append(f"arguments must be {rule} {extra[0]!r}; see --help.")
    return texts, problems


def _as_option(argument: str, fields: Mapping[str, FieldInfo]) -> str:
    """Return ``name=value``, as messages and Python write options, as ``--name=value``, unless it is a path."""
    name, equals, _ = argument.partition("=")
    is_option = name in fields or any(name == alias and field in fields for field, alias in ALIASES.items())
    return f"--{argument}" if equals and is_option and not os.path.exists(argument) else argument  # noqa: PTH110


def _with_flag_values(arguments: Sequence[str], fields: Mapping[str, FieldInfo]) -> list[str]:
    """Return the arguments with ``--x`` and ``--no-x`` of booleans as ``--x=on`` and ``--x=off``."""
    result: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name = argument.removeprefix("--").replace("-", "_")
        positive = name.removeprefix("no_")
        if not argument.startswith("--") or positive not in fields or fields[positive].annotation is not bool:
            result.append(argument)
        elif name != positive:
            result.append(f"--{positive}=off")
        else:
            has_value = bool(rest) and rest[0].lower() in BOOLEANS
            result.append(f"--{name}={rest.pop(0) if has_value else 'on'}")
    return result


def _unknown_option(argument: str, fields: Mapping[str, FieldInfo]) -> str:
    name = argument.partition("=")[0].removeprefix("--").replace("-", "_")
    return f"there is no option --{name}{did_you_mean(name, fields) or '; see --help.'}"


class Parser(argparse.ArgumentParser):
    """Raises a ``SettingError`` instead of exiting."""

    def error(self, message: str) -> NoReturn:
        """Raise the message as an error of the user."""
        raise SettingError(f"{message}; see --help.")


def build_parser(
    program: str, model: type[BaseModel], positionals: Sequence[str] = (), summary: str = "", example: str = ""
) -> Parser:
    """Return the parser of a command's options, in groups."""
    fields = option_fields(model)
    parser = Parser(
        prog=program,
        usage=" ".join(filter(None, (program, _usage(positionals, fields), "[options]"))),
        description=f"{summary[:1].upper()}{summary[1:]}.",
        epilog=f"example:\n  {example}\n\n{EXIT_STATUSES}",
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    parser.add_argument(ARGUMENTS, nargs="*", help=argparse.SUPPRESS)
    groups: dict[str, argparse._ArgumentGroup] = {}
    for name in sorted(fields, key=group_order) if len(fields) > MAX_UNGROUPED else fields:
        title, field = group_of(name) if len(fields) > MAX_UNGROUPED else "options", fields[name]
        group = groups.setdefault(title, parser.add_argument_group(title))
        metavar = "" if field.annotation is bool else _metavar(name, field)
        group.add_argument(
            *_option_strings(name, field),
            dest=name,
            default=argparse.SUPPRESS,
            nargs="?",
            const=NO_VALUE,
            metavar=f"{metavar} (argument)" if name in positionals else metavar,
            help=_help(field),
        )
    return parser


def _option_strings(name: str, field: FieldInfo) -> list[str]:
    """Return the spellings of an option; those after the first with ``_`` are accepted, but not shown."""
    names = [name, *filter(None, [ALIASES.get(name)]), *([f"no_{name}"] if field.annotation is bool else [])]
    shown = [f"--{each.replace('_', '-')}" for each in names]
    return [*shown, *(f"--{each}" for each in names if "_" in each)]


def _usage(positionals: Sequence[str], fields: Mapping[str, FieldInfo]) -> str:
    """Return the positional arguments as in a usage line: ``MODEL [FILES ...]``."""
    words = [f"{name.upper()}{' ...' if _takes_several(fields[name]) else ''}" for name in positionals]
    return " ".join(
        word if fields[name].is_required() else f"[{word}]" for name, word in zip(positionals, words, strict=True)
    )


def _takes_several(field: FieldInfo) -> bool:
    return typing.get_origin(field.annotation) is tuple


def _metavar(name: str, field: FieldInfo) -> str:
    types_by_name = {"text": name.upper(), "integer": "N", "number": "X", "value(s)": "VALUES"}
    text = type_text(field)
    return types_by_name.get(text, text)


def _help(field: FieldInfo) -> str:
    default = default_text(field)
    note = {"-": "", "(required)": " [required]"}.get(default, f" [default: {default}]")
    return f"{field.description or ''}{note}".replace("%", "%%")


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Wraps to the terminal's width; shows an option as ``--name METAVAR``, without its spelling with ``_``."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        shown = ", ".join(text for text in action.option_strings if "_" not in text)
        metavar = str(action.metavar or "")
        return f"{shown} {metavar}".rstrip()


def type_text(field: FieldInfo) -> str:
    """Return an option's type for the reference and its help."""
    annotation = field.annotation
    if typing.get_origin(annotation) is typing.Literal:
        return "|".join(str(value) for value in typing.get_args(annotation))
    parts = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    type_names = {str: "text", int: "integer", float: "number", bool: "on|off"}
    names = [type_names[part] for part in parts if part in type_names]
    return "|".join(names) or "value(s)"


def default_text(field: FieldInfo) -> str:
    """Return an option's default for the reference and its help."""
    if field.default is PydanticUndefined:
        return "(required)"
    if isinstance(field.default, bool):
        return "on" if field.default else "off"
    return "-" if field.default in (None, "") else str(field.default)
