"""Options of the command line: each error is one message, and all are reported together."""

from __future__ import annotations

from typing import Literal

import pytest
from pydantic import Field

from data.errors import SettingError
from data.frozen_model import FrozenModel
from tuning.cli.parser import format_help, parse
from tuning.recipe.domains import Categorical, FloatRange
from tuning.recipe.options import option_fields
from tuning.recipe.schema import Recipe, TrainingSettings


class Options(FrozenModel):
    """One option of each type."""

    folder: str = Field(min_length=1, description="path of the folder")
    trials: int = Field(16, ge=1, le=100, description="number of trials")
    share: float = Field(0.5, gt=0, description="share to use")
    format: Literal["json", "csv"] = Field("json", description="output format")
    batch_size: int = Field(8, description="images per step")
    verbose: bool = Field(False, description="print more")


def parsed(*arguments: str) -> Options:
    return parse(Options, ("--folder", "here", *arguments))


def problems(*arguments: str) -> tuple[str, ...]:
    with pytest.raises(SettingError, match=r"\S") as raised:
        parsed(*arguments)
    return raised.value.problems


@pytest.mark.parametrize(
    "arguments",
    [("--batch_size", "32"), ("--batch-size", "32"), ("--batch_size=32",), ("--batch-size=32",)],
)
def test_an_option_accepts_dash_or_underscore_and_space_or_equals_sign(arguments: tuple[str, ...]) -> None:
    assert parsed(*arguments).batch_size == 32


@pytest.mark.parametrize("arguments", [(), ("--trials", ""), ("--trials=",)])
def test_an_empty_option_is_omitted(arguments: tuple[str, ...]) -> None:
    assert parsed(*arguments) == Options(folder="here")


@pytest.mark.parametrize("value", ["a=b", "--there", "-1", "with spaces", "tr-ials"])
def test_a_value_is_not_changed(value: str) -> None:
    assert parse(Options, ("--folder", value)).folder == value


def test_an_argument_overrides_a_default() -> None:
    options = parse(Options, ("--trials", "3", "--share", ""), folder="there", trials=5, share=0.25)
    assert (options.folder, options.trials, options.share) == ("there", 3, 0.25)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--trials", "0"), "trials must be at least 1, got '0'."),
        (("--trials", "101"), "trials must be at most 100, got '101'."),
        (("--trials", "abc"), "trials must be a whole number, got 'abc'."),
        (("--trials", "1.5"), "trials must be a whole number, got '1.5'."),
        (("--share", "half"), "share must be a number, got 'half'."),
        (("--share", "0"), "share must be more than 0.0, got '0'."),
        (("--verbose", "maybe"), "verbose must be on or off, got 'maybe'."),
        (("--format", "jsn"), "format must be 'json' or 'csv', got 'jsn'; did you mean json?"),
        (("--format", "{x}"), "format must be 'json' or 'csv', got '{x}'."),
        (("--trails", "5"), "there is no option --trails; did you mean trials?"),
        (("--zebra", "5"), "there is no option --zebra; see --help."),
        (("trials",), "options are written --name value, got 'trials'; see --help."),
        (("--trials",), "--trials needs a value; see --help."),
        (("--trials", "--share", "0.1"), "--trials needs a value; see --help."),
        (("--trials", "--batch-size=4"), "--trials needs a value; see --help."),
        (("--trials", "3", "--trials", "4"), "--trials must be given once, got '3' and '4'."),
        (("--batch-size", "3", "--batch_size", "4"), "--batch_size must be given once, got '3' and '4'."),
    ],
)
def test_an_error_is_one_message_with_the_rule_and_the_value(arguments: tuple[str, ...], message: str) -> None:
    assert problems(*arguments) == (message,)


def test_the_message_of_a_missing_option_has_its_description() -> None:
    with pytest.raises(SettingError, match=r"^--folder must be given: path of the folder\.$"):
        parse(Options, ("--folder", ""))


def test_all_errors_are_reported_together() -> None:
    messages = problems("--trails", "5", "--trials", "0", "--share", "x", "unlabeled", "--batch-size")
    assert [message.split()[0] for message in messages] == ["there", "options", "--batch_size", "trials", "share"]


def test_the_same_value_twice_is_accepted() -> None:
    assert parsed("--trials", "3", "--trials", "3").trials == 3


def test_an_empty_option_does_not_override_a_given_one() -> None:
    assert parsed("--batch_size", "", "--batch-size", "32").batch_size == 32


@pytest.mark.parametrize("arguments", [("--trails",), ("--trails", "--share", "0.1")])
def test_a_misspelled_option_without_a_value_gets_a_suggestion(arguments: tuple[str, ...]) -> None:
    assert problems(*arguments) == ("there is no option --trails; did you mean trials?",)


# --- options of a recipe ---


@pytest.mark.parametrize(
    ("option", "text", "value"),
    [
        ("image_size", "auto", None),
        ("image_size", "64", Categorical(options=(64,))),
        ("image_size", "64,96", Categorical(options=(64, 96))),
        ("backbone", "auto", None),
        ("sweep", "off", False),
        ("lr", "1e-4..1e-2", FloatRange(low=1e-4, high=1e-2, log=True)),
        ("weight_decay", "0", Categorical(options=(0.0,))),
        ("optimizer", "sgd,adam", Categorical(options=("sgd", "adam"))),
        ("backbone", "resnet18", Categorical(options=("resnet18",))),
        ("gpus_per_trial", "0.5", 0.5),
        ("name", "my.pets_2-b", "my.pets_2-b"),
    ],
)
def test_an_option_of_a_recipe_is_parsed(option: str, text: str, value: object) -> None:
    assert getattr(parse(Recipe, (f"--{option}", text)), option) == value


@pytest.mark.parametrize(
    ("option", "text", "message"),
    [
        ("image_size", "0", "image_size must be a whole number from 16 to 1024, got '0'."),
        ("image_size", "9999", "image_size must be a whole number from 16 to 1024, got '9999'."),
        ("image_size", "big", "image_size must be a whole number or a comma-separated list (a,b), got 'big'."),
        ("label_smoothing", "1", "label_smoothing must be a number from 0 to 0.9, got '1'."),
        ("minutes", "0", "minutes must be more than 0.0, got '0'."),
        ("trials", "0", "trials must be at least 1, got '0'."),
        ("trials", "abc", "trials must be a whole number, got 'abc'."),
        ("lr", "fast", "lr must be a number, a list (a,b) or a range (a..b), got 'fast'."),
        ("dropout", "0.95", "dropout must be a number from 0 to 0.9, got '0.95'."),
        (
            "optimizer",
            "adm",
            "optimizer must be one or more of adamw, adam, sgd, got 'adm'; did you mean adam or adamw?",
        ),
        ("scheduler", "ash", "scheduler must be 'asha', 'median' or 'none', got 'ash'; did you mean asha?"),
        ("seed", "-1", "seed must be at least 0, got '-1'."),
        (
            "head",
            "128:rel",
            "the modifiers after the size of a head's layer must be relu, leaky_relu or norm, got '128:rel'; "
            "did you mean relu?",
        ),
        (
            "augmentation",
            "flip,zebra",
            "augmentation must be one of none, light, medium, strong, flip, rotate, shift, crop, color, "
            "brightness_contrast, cutout, or several joined by +, got 'zebra'; use one of these.",
        ),
        (
            "name",
            "my pets",
            "name must be up to 100 letters, digits, '-', '_' or '.', starting with a letter or digit, got 'my pets'.",
        ),
    ],
)
def test_an_invalid_option_of_a_recipe_is_one_message(option: str, text: str, message: str) -> None:
    with pytest.raises(SettingError, match=r"\S") as raised:
        parse(Recipe, (f"--{option}", text))
    assert raised.value.problems == (message,)


@pytest.mark.parametrize("option", ["head", "augmentation"])
def test_braces_in_a_value_are_not_formatted(option: str) -> None:
    with pytest.raises(SettingError, match=r"\{x\}"):
        parse(Recipe, (f"--{option}", "{x}"))


def test_norm_layers_need_more_than_one_image_per_batch() -> None:
    with pytest.raises(SettingError, match="batch_size must be 2 or more with a head of norm layers"):
        parse(Recipe, ("--head", "linear,64:norm", "--batch_size", "1,8"))


def test_the_message_for_a_name_with_a_leading_dash_has_the_rule() -> None:
    with pytest.raises(SettingError, match="starting with"):
        parse(Recipe, ("--name", "-pets"))


def test_a_message_has_the_value_as_typed() -> None:
    with pytest.raises(SettingError, match=r"got '1e-3,0\.001'"):
        parse(Recipe, ("--lr", "1e-3,0.001"))


# --- help ---


def test_help_has_a_line_for_each_option_with_type_and_default() -> None:
    lines = [line.split(maxsplit=3) for line in format_help(Options).splitlines()]
    assert lines == [
        ["--folder", "text", "(required)", "path of the folder"],
        ["--trials", "integer", "16", "number of trials"],
        ["--share", "number", "0.5", "share to use"],
        ["--format", "json|csv", "json", "output format"],
        ["--batch_size", "integer", "8", "images per step"],
        ["--verbose", "on|off", "off", "print more"],
    ]


def test_help_lines_are_aligned() -> None:
    lines = format_help(Options).splitlines()[:2]
    starts = {line.index(text) for line, text in zip(lines, ("path", "number"), strict=True)}
    assert len(starts) == 1


@pytest.mark.parametrize("model", [Recipe, TrainingSettings])
def test_every_option_has_a_description_and_a_default_that_can_be_typed(model: type[TrainingSettings]) -> None:
    lines = format_help(model).splitlines()
    assert len(lines) == len(option_fields(model)) >= 16
    assert all(field.description for field in option_fields(model).values())
    arguments: list[str] = []
    for line in lines:
        name, _, default, _ = line.split(maxsplit=3)
        arguments += [name, default] if default != "-" else []
    assert parse(model, arguments) == model()
