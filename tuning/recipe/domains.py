"""Domains of searched settings: one value, a choice or a range, in the form that a user types; parsers validate them.

0.001               a fixed value, not searched
adam,adamw          one of these
1e-4..1e-2          any number between, both ends included
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar

from pydantic import PlainSerializer

from data.errors import did_you_mean
from data.frozen_model import FrozenModel
from tuning.common.option_types import ParamValue

OptionT = TypeVar("OptionT", str, int | float)


class Categorical(FrozenModel):
    """One of ``options``; a single option is a fixed value."""

    options: tuple[ParamValue, ...]

    def __str__(self) -> str:
        return ",".join(str(option) for option in self.options)

    def clip(self, setting: ParamValue) -> ParamValue:
        """Return ``setting`` if it is an option, else the nearest number or the first option."""
        if setting in self.options:
            return setting
        numbers = [option for option in self.options if not isinstance(option, str)]
        if numbers and not isinstance(setting, str):
            return min(numbers, key=lambda option: abs(option - setting))
        return self.options[0]


class FloatRange(FrozenModel):
    """A number from ``low`` to ``high``, both included; sampled on a log scale if ``log`` is set."""

    low: float
    high: float
    log: bool = False

    @property
    def options(self) -> tuple[ParamValue, ...]:
        """Always empty: a range has no finite set of options."""
        return ()

    def __str__(self) -> str:
        return f"{_shortest(self.low)}..{_shortest(self.high)}"

    def clip(self, setting: ParamValue) -> ParamValue:
        """Return the number in the range that is nearest to ``setting``."""
        return min(max(float(setting), self.low), self.high)


def _shortest(number: float) -> str:
    """Return the shortest text that reads back as the same number."""
    return f"{number:g}" if float(f"{number:g}") == number else repr(number)


# JSON holds a domain in the form that the user types.
Domain = Annotated[Categorical | FloatRange, PlainSerializer(str, return_type=str)]


def parse_choices(*known: str) -> Callable[[object], object]:
    """Return a parser of one or more of the ``known`` options, separated by commas."""

    def parse(text: object) -> object:
        if not isinstance(text, str):
            return text
        options = _split(text)
        for option in options:
            if option not in known:
                raise ValueError(f"must be one or more of {', '.join(known)}{did_you_mean(option, known)}")
        return Categorical(options=options)

    return parse


def parse_names(text: object) -> object:
    """Parse names separated by commas; the caller checks that they exist."""
    return Categorical(options=_split(text)) if isinstance(text, str) else text


def parse_numbers(low: float, high: float, *, log: bool = False, integer: bool = False) -> Callable[[object], object]:
    """Return a parser of a number, numbers separated by commas, or ``a..b``, all from ``low`` to ``high``."""
    kind = "whole number" if integer else "number"
    rule = "a whole number or a comma-separated list (a,b)" if integer else "a number, a list (a,b) or a range (a..b)"

    def parse_number(text: str) -> int | float:
        try:
            value = int(text) if integer else float(text)
        except ValueError:
            raise ValueError(f"must be {rule}") from None
        if not low <= value <= high:
            raise ValueError(f"must be a {kind} from {low:g} to {high:g}")
        return value

    def parse(text: object) -> object:
        if isinstance(text, (int, float)) and not isinstance(text, bool):
            text = repr(text)
        if not isinstance(text, str):
            return text
        bounds = text.split("..")
        if len(bounds) == 2 and not integer:
            return _build_range(parse_number(bounds[0]), parse_number(bounds[1]), log)
        return Categorical(options=_check_distinct(tuple(parse_number(option) for option in _split(text))))

    return parse


def _split(text: str) -> tuple[str, ...]:
    return _check_distinct(tuple(option.strip() for option in text.split(",")))


def _check_distinct(options: tuple[OptionT, ...]) -> tuple[OptionT, ...]:
    if "" in options or len(set(options)) < len(options):
        raise ValueError("must be a value or different values separated by commas")
    return options


def _build_range(low: float, high: float, log: bool) -> FloatRange:
    if low >= high:
        raise ValueError("must be a range written low..high with low below high")
    if log and low <= 0:
        raise ValueError("must start above 0 if it is a range, because it is searched on a log scale")
    return FloatRange(low=low, high=high, log=log)
