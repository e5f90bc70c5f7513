"""A command's options: parsed from the command line into a value, and shown by ``--help``.

Every option takes a value (``mlflow run -P`` can't pass a bare flag), reads ``-`` and ``_`` alike, and is the
same left out as given empty. All that is wrong is said at once.
"""

from __future__ import annotations

import typing
from collections.abc import Sequence

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from data.errors import did_you_mean

# What pydantic calls an error -> how the rule reads; {…} are filled from the error's own context.
ERROR_MESSAGES = {
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "bool_parsing": "must be on or off",
    "string_too_short": "must not be empty",
    "string_pattern_mismatch": "must be up to 100 letters, digits, '-', '_' and '.', a letter or digit first",
    "missing": "must be given",
}


def parse_args(model: type[BaseModel], arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return the options' texts by name, and a sentence for each argument that can't be read."""
    texts: dict[str, str] = {}
    problems: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        word, equals, text = argument.partition("=")
        name = word.removeprefix("--").replace("-", "_")
        if not word.startswith("--"):
            problems.append(f"options are written --name value, got {argument!r}; see --help.")
            continue
        has_value = bool(equals) or (bool(rest) and not _is_option(model, rest[0]))
        if has_value and not equals:
            text = rest.pop(0)
        if name not in option_fields(model):
            near = did_you_mean(name, option_fields(model)) or "; see --help."
            problems.append(f"there is no option --{name}{near}")
        elif not has_value:
            problems.append(f"--{name} needs a value after it; see --help.")
        elif not text:  # the same as left out
            continue
        elif name in texts and texts[name] != text:
            problems.append(f"--{name} must be given once, got {texts[name]!r} and {text!r}.")
        else:
            texts[name] = text
    return texts, problems


def _is_option(model: type[BaseModel], argument: str) -> bool:
    return argument.startswith("--") and argument.removeprefix("--").partition("=")[0].replace(
        "-", "_"
    ) in option_fields(model)


def option_fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the options by the names that the user types; a field marked ``option: False`` is none."""
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    return {name: field for name, field in fields.items() if field.json_schema_extra != {"option": False}}


def format_error(model: type[BaseModel], detail: ErrorDetails) -> str:
    """Return the rule that was broken and the value that broke it, as a sentence."""
    if detail["type"] == "missing":
        missing = str(detail["loc"][0])
        return f"--{missing} must be given: {option_fields(model)[missing].description}."
    name = str(detail["loc"][0]) if detail["loc"] else "the options"
    known = ERROR_MESSAGES.get(detail["type"])
    rule = known.format(**detail.get("ctx", {})) if known else detail["msg"].removeprefix("Value error, ")
    if ", got " in rule:  # whoever checks the setting has said it all
        return rule if rule.endswith("?") else f"{rule}."
    if "; did you mean" in rule:
        rule, _, near = rule.partition("; did you mean")
        return f"{name} {rule}, got {detail['input']!r}; did you mean{near}"
    near = did_you_mean(
        str(detail["input"]), _literal_values(option_fields(model)[name]) if name in option_fields(model) else ()
    )
    return f"{name} {rule}, got {detail['input']!r}{near or '.'}"


def _literal_values(field: FieldInfo) -> tuple[str, ...]:
    return tuple(str(word) for word in typing.get_args(field.annotation) if isinstance(word, str))
