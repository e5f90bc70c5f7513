"""The options of a model by name, and messages for invalid values."""

from __future__ import annotations

import typing

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from data.errors import did_you_mean

# pydantic's error type -> the rule in a message; {…} is filled from the error's context.
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
    "string_pattern_mismatch": "must be up to 100 letters, digits, '-', '_' or '.', starting with a letter or digit",
    "missing": "must be given",
}


# Headings of the help; options that are in none of them belong to the last.
GROUPS = {
    "data": (
        "data", "layout", "label_column", "label_from", "images", "near_duplicates", "name", "on_leak",
        "on_label_issue", "validation", "split",
    ),
    "budget": (
        "minutes", "trials", "recipe", "start_from", "dry_run", "max_epochs", "images_per_epoch", "patience", "sweep",
        "rerun_top_k", "rerun_seeds", "max_concurrent", "cpus_per_trial", "gpus_per_trial", "seed",
    ),
    "model": (
        "model", "run", "backbone", "weights", "image_size", "prefer", "ensemble", "refit", "max_latency_ms", "max_mb",
        "novelty",
    ),
    "search space": (
        "freeze_fraction", "truncate", "head", "head_features", "optimizer", "lr", "lr_scheduler", "step_epochs",
        "layer_decay", "weight_decay", "batch_size", "dropout", "label_smoothing", "augmentation", "mix", "balance",
        "sampler", "scheduler", "precision", "feature_cache", "cached_augmentations",
    ),
    "promotion gate": ("gate_metric", "min_gain", "significance", "max_class_loss"),
}  # fmt: skip
LAST_GROUP = "output"


def group_of(option: str) -> str:
    """Return the heading under which the help lists an option."""
    return next((group for group, options in GROUPS.items() if option in options), LAST_GROUP)


def group_order(option: str) -> int:
    """Return the position of an option in the help; options of the last group keep their order."""
    ordered = [name for options in GROUPS.values() for name in options]
    return ordered.index(option) if option in ordered else len(ordered)


def option_fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the fields that are options, by option name; a field marked ``option: False`` is not an option."""
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    return {name: field for name, field in fields.items() if field.json_schema_extra != {"option": False}}


def format_error(model: type[BaseModel], detail: ErrorDetails) -> str:
    """Return a message with the violated rule and the wrong value."""
    fields = option_fields(model)
    if detail["type"] == "missing":
        missing = str(detail["loc"][0])
        return f"--{missing} must be given: {fields[missing].description}."
    name = str(detail["loc"][0]) if detail["loc"] else "the options"
    template = ERROR_MESSAGES.get(detail["type"])
    rule = template.format(**detail.get("ctx", {})) if template else detail["msg"].removeprefix("Value error, ")
    if ", got " in rule:  # the validator's message is already complete
        return rule if rule.endswith("?") else f"{rule}."
    if "; did you mean" in rule:
        rule, _, suggestions = rule.partition("; did you mean")
        return f"{name} {rule}, got {detail['input']!r}; did you mean{suggestions}"
    hint = did_you_mean(str(detail["input"]), _literal_values(fields[name]) if name in fields else ())
    return f"{name} {rule}, got {detail['input']!r}{hint or '.'}"


def _literal_values(field: FieldInfo) -> tuple[str, ...]:
    return tuple(value for value in typing.get_args(field.annotation) if isinstance(value, str))
