"""Options from the command line: every mistake is a sentence, and all are said at once."""

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


class Few(FrozenModel):
    """Options of every kind."""

    folder: str = Field(min_length=1, description="where it is")
    trials: int = Field(16, ge=1, le=100, description="how many")
    share: float = Field(0.5, gt=0, description="how much")
    word: Literal["json", "csv"] = Field("json", description="which form")
    batch_size: int = Field(8, description="pictures in a step")
    loud: bool = Field(False, description="whether to shout")


def read(*arguments: str) -> Few:
    return parse(Few, ("--folder", "here", *arguments))


def problems(*arguments: str) -> tuple[str, ...]:
    with pytest.raises(SettingError, match=r"\S") as raised:
        read(*arguments)
    return raised.value.problems


@pytest.mark.parametrize(
    "arguments",
    [("--batch_size", "32"), ("--batch-size", "32"), ("--batch_size=32",), ("--batch-size=32",)],
)
def test_an_option_is_read_with_either_dash_and_either_separator(arguments: tuple[str, ...]) -> None:
    assert read(*arguments).batch_size == 32


@pytest.mark.parametrize("arguments", [(), ("--trials", ""), ("--trials=",)])
def test_an_empty_option_is_left_out(arguments: tuple[str, ...]) -> None:
    assert read(*arguments) == Few(folder="here")


@pytest.mark.parametrize("value", ["a=b", "--there", "-1", "with spaces", "tr-ials"])
def test_a_value_is_taken_as_it_is(value: str) -> None:
    assert parse(Few, ("--folder", value)).folder == value


def test_an_argument_wins_over_what_comes_from_elsewhere() -> None:
    options = parse(Few, ("--trials", "3", "--share", ""), folder="there", trials=5, share=0.25)
    assert (options.folder, options.trials, options.share) == ("there", 3, 0.25)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--trials", "0"), "trials must be at least 1, got '0'."),
        (("--trials", "101"), "trials must be at most 100, got '101'."),
        (("--trials", "abc"), "trials must be a whole number, got 'abc'."),
        (("--trials", "1.5"), "trials must be a whole number, got '1.5'."),
        (("--share", "half"), "share must be a number, got 'half'."),
        (("--share", "0"), "share must be more than 0.0, got '0'."),
        (("--loud", "maybe"), "loud must be on or off, got 'maybe'."),
        (("--word", "jsn"), "word must be 'json' or 'csv', got 'jsn'; did you mean json?"),
        (("--word", "{x}"), "word must be 'json' or 'csv', got '{x}'."),
        (("--trails", "5"), "there is no option --trails; did you mean trials?"),
        (("--zebra", "5"), "there is no option --zebra; see --help."),
        (("trials",), "options are written --name value, got 'trials'; see --help."),
        (("--trials",), "--trials needs a value after it; see --help."),
        (("--trials", "--share", "0.1"), "--trials needs a value after it; see --help."),
        (("--trials", "--batch-size=4"), "--trials needs a value after it; see --help."),
        (("--trials", "3", "--trials", "4"), "--trials must be given once, got '3' and '4'."),
        (("--batch-size", "3", "--batch_size", "4"), "--batch_size must be given once, got '3' and '4'."),
    ],
)
def test_a_mistake_is_one_sentence_with_the_rule_and_the_value(arguments: tuple[str, ...], sentence: str) -> None:
    assert problems(*arguments) == (sentence,)


def test_an_option_that_must_be_given_is_explained() -> None:
    with pytest.raises(SettingError, match=r"^--folder must be given: where it is\.$"):
        parse(Few, ("--folder", ""))


def test_all_mistakes_are_said_at_once() -> None:
    found = problems("--trails", "5", "--trials", "0", "--share", "x", "unlabeled", "--batch-size")
    assert [text.split()[0] for text in found] == ["there", "options", "--batch_size", "trials", "share"]


def test_the_same_value_twice_is_no_mistake() -> None:
    assert read("--trials", "3", "--trials", "3").trials == 3


def test_an_empty_option_beside_a_given_one_is_left_out() -> None:
    assert read("--batch_size", "", "--batch-size", "32").batch_size == 32


@pytest.mark.parametrize("arguments", [("--trails",), ("--trails", "--share", "0.1")])
def test_a_mistyped_option_without_a_value_gets_its_right_name(arguments: tuple[str, ...]) -> None:
    assert problems(*arguments) == ("there is no option --trails; did you mean trials?",)


# --- the recipe's own options ---


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
def test_a_recipe_is_read_as_typed(option: str, text: str, value: object) -> None:
    assert getattr(parse(Recipe, (f"--{option}", text)), option) == value


@pytest.mark.parametrize(
    ("option", "text", "sentence"),
    [
        ("image_size", "0", "image_size must be a whole number from 16 to 1024, got '0'."),
        ("image_size", "9999", "image_size must be a whole number from 16 to 1024, got '9999'."),
        ("image_size", "big", "image_size must be a whole number, or several as a,b, got 'big'."),
        ("label_smoothing", "1", "label_smoothing must be a number from 0 to 0.9, got '1'."),
        ("minutes", "0", "minutes must be more than 0.0, got '0'."),
        ("trials", "0", "trials must be at least 1, got '0'."),
        ("trials", "abc", "trials must be a whole number, got 'abc'."),
        ("lr", "fast", "lr must be a number, several as a,b or a range as a..b, got 'fast'."),
        ("dropout", "0.95", "dropout must be a number from 0 to 0.9, got '0.95'."),
        ("optimizer", "adm", "optimizer must be of adamw, adam, sgd, got 'adm'; did you mean adam or adamw?"),
        ("scheduler", "ash", "scheduler must be 'asha', 'median' or 'none', got 'ash'; did you mean asha?"),
        ("seed", "-1", "seed must be at least 0, got '-1'."),
        (
            "head",
            "128:rel",
            "what follows a layer's size in a head must be relu, leaky_relu or norm, got '128:rel'; did you mean relu?",
        ),
        (
            "augmentation",
            "flip,zebra",
            "augmentation must be one of none, light, medium, strong, flip, rotate, shift, crop, color, brightness_contrast, "
            "cutout, or several with + between, got 'zebra'; take some of these.",
        ),
        (
            "name",
            "my pets",
            "name must be up to 100 letters, digits, '-', '_' and '.', a letter or digit first, got 'my pets'.",
        ),
    ],
)
def test_a_recipes_mistake_is_one_sentence(option: str, text: str, sentence: str) -> None:
    with pytest.raises(SettingError, match=r"\S") as raised:
        parse(Recipe, (f"--{option}", text))
    assert raised.value.problems == (sentence,)


@pytest.mark.parametrize("option", ["head", "augmentation"])
def test_braces_in_a_value_are_no_format(option: str) -> None:
    with pytest.raises(SettingError, match=r"\{x\}"):
        parse(Recipe, (f"--{option}", "{x}"))


def test_norm_layers_need_more_than_one_picture() -> None:
    with pytest.raises(SettingError, match="batch_size must be 2 or more with a head of norm layers"):
        parse(Recipe, ("--head", "linear,64:norm", "--batch_size", "1,8"))


def test_a_name_that_starts_with_a_dash_is_told_why_it_is_wrong() -> None:
    with pytest.raises(SettingError, match=r"(start|begin|first)"):
        parse(Recipe, ("--name", "-pets"))


def test_the_value_in_a_sentence_is_what_was_typed() -> None:
    with pytest.raises(SettingError, match=r"got '1e-3,0\.001'"):
        parse(Recipe, ("--lr", "1e-3,0.001"))


# --- help ---


def test_help_has_a_line_for_each_option_with_type_and_default() -> None:
    lines = [line.split(maxsplit=3) for line in format_help(Few).splitlines()]
    assert lines == [
        ["--folder", "text", "(required)", "where it is"],
        ["--trials", "integer", "16", "how many"],
        ["--share", "number", "0.5", "how much"],
        ["--word", "json|csv", "json", "which form"],
        ["--batch_size", "integer", "8", "pictures in a step"],
        ["--loud", "on|off", "off", "whether to shout"],
    ]


def test_help_lines_are_columns() -> None:
    assert (
        len({line.index(word) for line, word in zip(format_help(Few).splitlines(), ("where", "how"), strict=False)})
        == 1
    )


@pytest.mark.parametrize("model", [Recipe, TrainingSettings])
def test_every_option_is_described_and_its_default_can_be_typed(model: type[TrainingSettings]) -> None:
    lines = format_help(model).splitlines()
    assert len(lines) == len(option_fields(model)) >= 16
    assert all(field.description for field in option_fields(model).values())
    typed = {name: default for _, name, default in (split_line(line) for line in lines) if default != "-"}
    assert parse(model, [part for name, default in typed.items() for part in (name, default)]) == model()


def split_line(line: str) -> tuple[str, str, str]:
    name, kind, default, _ = line.split(maxsplit=3)
    return kind, name, default
