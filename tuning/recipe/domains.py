"""Where a searched setting may lie: one value, a choice or a range, each written as a user types it.

0.001               this value, not searched
adam,adamw          one of these
1e-4..1e-2          anything between, both ends included
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

from pydantic import PlainSerializer, model_validator

from data.errors import did_you_mean
from data.frozen_model import FrozenModel
from tuning.common.trial_record import ParamValue

Part = TypeVar("Part", str, int | float)
SERIALIZE_AS_TYPED = PlainSerializer(str, return_type=str)  # a domain goes into JSON as the user writes it


class Categorical(FrozenModel):
    """One of ``options``; a single option is a fixed value."""

    options: tuple[ParamValue, ...]

    @model_validator(mode="after")
    def _has_options(self) -> Categorical:
        if not self.options or len(set(self.options)) < len(self.options):
            raise ValueError("a choice needs at least one option and each only once")
        return self

    def __str__(self) -> str:
        return ",".join(str(option) for option in self.options)

    def clip(self, setting: ParamValue) -> ParamValue:
        """Return ``setting`` where it is an option, else the nearest number or the first option."""
        if setting in self.options:
            return setting
        numbers = [option for option in self.options if not isinstance(option, str)]
        if numbers and not isinstance(setting, str):
            return min(numbers, key=lambda option: abs(option - setting))
        return self.options[0]


class FloatRange(FrozenModel):
    """A number from ``low`` to ``high``, both included; sampled by its logarithm where ``log`` is set."""

    low: float
    high: float
    log: bool = False

    @property
    def options(self) -> tuple[ParamValue, ...]:
        """None: there is no end of the numbers between."""
        return ()

    @model_validator(mode="after")
    def _is_a_range(self) -> FloatRange:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError("a range is written low..high with low below high")
        if self.log and self.low <= 0:
            raise ValueError("a range that is searched by its logarithm starts above 0")
        return self

    def __str__(self) -> str:
        return f"{_short(self.low)}..{_short(self.high)}"

    def clip(self, setting: ParamValue) -> ParamValue:
        """Return the number of the range that is nearest to ``setting``."""
        if isinstance(setting, str):
            raise TypeError(f"a range has no place for {setting!r}")
        return min(max(float(setting), self.low), self.high)


def _short(number: float) -> str:
    """Return the number as briefly as it can be written without becoming another."""
    return f"{number:g}" if float(f"{number:g}") == number else repr(number)


Domain = Categorical | FloatRange


def parse_choices(*known: str) -> Callable[[object], object]:
    """Return a parser of one or several of the ``known`` words, separated by commas."""

    def parse(text: object) -> object:
        if not isinstance(text, str):
            return text
        options = _split(text)
        for option in options:
            if option not in known:
                raise ValueError(f"must be of {', '.join(known)}{did_you_mean(option, known)}")
        return Categorical(options=options)

    return parse


def parse_names(text: object) -> object:
    """Parse names separated by commas, whatever they are: whoever uses them knows which exist."""
    return Categorical(options=_split(text)) if isinstance(text, str) else text


def parse_numbers(low: float, high: float, *, log: bool = False, integer: bool = False) -> Callable[[object], object]:
    """Return a parser of a number, numbers separated by commas, or ``a..b``, all from ``low`` to ``high``."""
    kind = "whole number" if integer else "number"
    rule = "a whole number, or several as a,b" if integer else "a number, several as a,b or a range as a..b"

    def number(part: str) -> int | float:
        try:
            value = int(part) if integer else float(part)
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
        ends = text.split("..")
        if len(ends) == 2 and not integer:
            return _range(number(ends[0]), number(ends[1]), log)
        return Categorical(options=_different(tuple(number(part) for part in _split(text))))

    return parse


def _split(text: str) -> tuple[str, ...]:
    return _different(tuple(part.strip() for part in text.split(",")))


def _different(options: tuple[Part, ...]) -> tuple[Part, ...]:
    if "" in options or len(set(options)) < len(options):
        raise ValueError("must be a value or different values separated by commas")
    return options


def _range(low: float, high: float, log: bool) -> FloatRange:
    if low >= high:
        raise ValueError("must be a range written low..high with low below high")
    if log and low <= 0:
        raise ValueError("must start above 0 where it is a range, for it is searched by its logarithm")
    return FloatRange(low=low, high=high, log=log)
