"""Options of the command line: each error is one message, and all are reported together."""

from __future__ import annotations

from typing import Literal

import pytest
from pydantic import Field

from data.errors import SettingError
from data.frozen_model import FrozenModel
from tuning.cli.parser import Several, build_parser, default_text, parse
from tuning.recipe.domains import Categorical, FloatRange
from tuning.recipe.options import GROUPS, LAST_GROUP, group_of, option_fields
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


@pytest.mark.parametrize("value", ["a=b", "-1", "with spaces", "tr-ials"])
def test_a_value_is_not_changed(value: str) -> None:
    assert parse(Options, ("--folder", value)).folder == value
    assert parse(Options, (f"--folder=--{value}",)).folder == f"--{value}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--trials", "0"), "trials must be at least 1, got '0'."),
        (("--trials", "101"), "trials must be at most 100, got '101'."),
        (("--trials", "abc"), "trials must be a whole number, got 'abc'."),
        (("--trials", "1.5"), "trials must be a whole number, got '1.5'."),
        (("--share", "half"), "share must be a number, got 'half'."),
        (("--share", "0"), "share must be more than 0.0, got '0'."),
        (("--verbose=maybe",), "verbose must be on or off, got 'maybe'."),
        (("--format", "jsn"), "format must be 'json' or 'csv', got 'jsn'; did you mean json?"),
        (("--format", "{x}"), "format must be 'json' or 'csv', got '{x}'."),
        (("--trails", "5"), "there is no option --trails; did you mean trials?"),
        (("--zebra", "5"), "there is no option --zebra; see --help."),
        (("trials",), "arguments must be given by name, got 'trials'; see --help."),
        (("--trials",), "--trials needs a value; see --help."),
        (("--trials", "--share", "0.1"), "--trials needs a value; see --help."),
        (("--trials", "--batch-size=4"), "--trials needs a value; see --help."),
    ],
)
def test_an_error_is_one_message_with_the_rule_and_the_value(arguments: tuple[str, ...], message: str) -> None:
    assert problems(*arguments) == (message,)


def test_the_message_of_a_missing_option_has_its_description() -> None:
    with pytest.raises(SettingError, match=r"^--folder must be given: path of the folder\.$"):
        parse(Options, ("--folder", ""))


def test_all_errors_are_reported_together() -> None:
    messages = problems("--trails", "5", "--trials", "0", "--share", "x", "--batch-size")
    assert [message.split()[0] for message in messages] == ["there", "--batch_size", "trials", "share"]


def test_of_a_repeated_option_the_last_value_counts() -> None:
    assert parsed("--trials", "3", "--trials", "4").trials == 4


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        (("--verbose",), True),
        (("--no-verbose",), False),
        (("--verbose", "on"), True),
        (("--verbose", "off"), False),
        (("--verbose", "true"), True),
        (("--verbose=false",), False),
        (("--verbose", "", "--trials", "3"), False),
        (("--verbose", "--trials", "3"), True),
    ],
)
def test_a_boolean_is_a_flag_and_accepts_a_value(arguments: tuple[str, ...], value: bool) -> None:
    assert parsed(*arguments).verbose == value


class Positional(FrozenModel):
    """Options with positional arguments, of which the last takes several."""

    model: str
    files: Several = ()
    verbose: bool = False


@pytest.mark.parametrize(
    ("arguments", "model", "files"),
    [
        (("m", "a b.png", "c.png"), "m", ("a b.png", "c.png")),
        (("--verbose", "m", "a.png"), "m", ("a.png",)),
        (("m", "--verbose", "a.png"), "m", ("a.png",)),
        (("--model", "m", "a.png", "b.png"), "m", ("a.png", "b.png")),
        (("a", "--files", "b.png"), "a", ("b.png",)),
        (("m",), "m", ()),
    ],
)
def test_positional_arguments_fill_the_options_that_are_not_given(
    arguments: tuple[str, ...], model: str, files: tuple[str, ...]
) -> None:
    options = parse(Positional, arguments, ("model", "files"))
    assert (options.model, options.files) == (model, files)


def test_too_many_arguments_are_an_error() -> None:
    with pytest.raises(SettingError, match=r"^arguments must be MODEL, got one more: 'b'; see --help\.$"):
        parse(Positional, ("a", "b"), ("model",))


def test_the_value_of_a_misspelled_option_is_not_reported_as_an_argument_too_many() -> None:
    with pytest.raises(SettingError) as raised:
        parse(Positional, ("a", "--flies", "b"), ("model",))
    assert raised.value.problems == ("there is no option --flies; did you mean files?",)


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
            "optimizer must be one or more of adamw, adam, sgd, lbfgs, got 'adm'; did you mean adam or adamw?",
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
        parse(Recipe, ("--name=-pets",))


def test_a_message_has_the_value_as_typed() -> None:
    with pytest.raises(SettingError, match=r"got '1e-3,0\.001'"):
        parse(Recipe, ("--lr", "1e-3,0.001"))


# --- help ---


def help_of(model: type[FrozenModel], columns: int = 80) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(columns))
        return build_parser("freezeline any", model, (), "do it", "freezeline any x").format_help()


def test_help_has_each_option_with_its_type_default_and_description() -> None:
    words = " ".join(help_of(Options).split())
    for text in (
        "usage: freezeline any [options] Do it.",
        "--folder FOLDER path of the folder [required]",
        "--trials N number of trials [default: 16]",
        "--share X share to use [default: 0.5]",
        "--format json|csv output format [default: json]",
        "--batch-size N images per step [default: 8]",
        "--verbose, --no-verbose print more [default: off]",
        "example: freezeline any x",
        "exit status: 0 success, 1 failure, 2 invalid input, 130 interrupted",
    ):
        assert text in words
    assert "_" not in words


@pytest.mark.parametrize("columns", [80, 120])
def test_help_fits_the_terminal(columns: int) -> None:
    widths = [len(line) for line in help_of(Recipe, columns).splitlines()]
    assert columns - 20 < max(widths) <= columns


def test_the_options_of_a_search_are_grouped_with_the_budget_near_the_top() -> None:
    text = help_of(Recipe)
    positions = [text.index(f"\n{group}:\n") for group in (*GROUPS, LAST_GROUP)]
    assert positions == sorted(positions)
    assert text.index("--minutes") < text.index("--max-epochs") < text.index("--backbone") < text.index("--lr ")
    grouped = [name for names in GROUPS.values() for name in names]
    assert len(set(grouped)) == len(grouped)
    assert {name for name in option_fields(Recipe) if group_of(name) == LAST_GROUP} == {"tracking", "quiet", "events"}


@pytest.mark.parametrize("model", [Recipe, TrainingSettings])
def test_every_option_has_a_description_and_a_default_that_can_be_typed(model: type[TrainingSettings]) -> None:
    fields = option_fields(model)
    assert all(field.description for field in fields.values())
    defaults = {name: default_text(field) for name, field in fields.items()}
    arguments = [word for name, text in defaults.items() if text != "-" for word in (f"--{name}", text)]
    assert len(arguments) >= 16
    assert parse(model, arguments) == model()
