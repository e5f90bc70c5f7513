"""A searched setting as a user types it: one value, a choice or a range."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.tuning.factories import recipe
from tuning.recipe.domains import Categorical, Domain, FloatRange, parse_choices, parse_names, parse_numbers
from tuning.recipe.schema import Recipe

RATES = parse_numbers(1e-8, 10.0, log=True)
COUNTS = parse_numbers(1, 4096, integer=True)
OPTIMIZERS = parse_choices("adamw", "adam", "sgd")


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("1e-3", Categorical(options=(1e-3,))),
        (" 0.1 , 0.2 ", Categorical(options=(0.1, 0.2))),
        ("1e-4..1e-2", FloatRange(low=1e-4, high=1e-2, log=True)),
        ("1e-4 .. 1e-2", FloatRange(low=1e-4, high=1e-2, log=True)),
        (1e-3, Categorical(options=(1e-3,))),
        (2, Categorical(options=(2.0,))),
    ],
)
def test_a_number_is_a_value_a_choice_or_a_range(text: object, domain: Domain) -> None:
    assert RATES(text) == domain


def test_whole_numbers_stay_whole() -> None:
    parsed = COUNTS("16,32")
    assert parsed == Categorical(options=(16, 32))
    assert isinstance(parsed, Categorical)
    assert {type(option) for option in parsed.options} == {int}


def test_words_are_chosen_in_the_order_they_were_typed_in() -> None:
    assert OPTIMIZERS("sgd, adam") == Categorical(options=("sgd", "adam"))


def test_names_are_taken_as_they_are() -> None:
    assert parse_names("timm/resnet18.a1_in1k,vgg11") == Categorical(options=("timm/resnet18.a1_in1k", "vgg11"))


@pytest.mark.parametrize("parse", [RATES, COUNTS, OPTIMIZERS, parse_names])
def test_a_domain_that_is_made_already_passes_through(parse: object) -> None:
    assert callable(parse)
    assert parse(FloatRange(low=0, high=1)) == FloatRange(low=0, high=1)


@pytest.mark.parametrize(
    ("parse", "text", "rule"),
    [
        (RATES, "fast", r"must be a number, several as a,b or a range as a\.\.b"),
        (RATES, "1..2..3", r"must be a number, several as a,b or a range as a\.\.b"),
        (RATES, "..", r"must be a number, several as a,b or a range as a\.\.b"),
        (RATES, "nan", "must be a number from 1e-08 to 10"),
        (RATES, "1e-3..inf", "must be a number from 1e-08 to 10"),
        (RATES, "0", "must be a number from 1e-08 to 10"),
        (RATES, "1e-2..1e-3", r"must be a range written low\.\.high with low below high"),
        (RATES, "1e-2..1e-2", r"must be a range written low\.\.high with low below high"),
        (RATES, "1e-3,", "must be a value or different values separated by commas"),
        (RATES, "1e-3,1e-3", "must be a value or different values separated by commas"),
        (parse_numbers(0.0, 1.0, log=True), "0..0.1", "must start above 0 where it is a range"),
        (COUNTS, "16..64", "must be a whole number, or several as a,b"),
        (COUNTS, "16.5", "must be a whole number, or several as a,b"),
        (COUNTS, "0", "must be a whole number from 1 to 4096"),
        (OPTIMIZERS, "adm", "must be of adamw, adam, sgd; did you mean adam or adamw?"),
        (OPTIMIZERS, "adam,lion", "must be of adamw, adam, sgd$"),
        (parse_names, ",", "must be a value or different values separated by commas"),
    ],
)
def test_what_is_wrong_is_said_by_its_rule(parse: object, text: str, rule: str) -> None:
    assert callable(parse)
    with pytest.raises(ValueError, match=rule):
        parse(text)


def test_the_same_number_written_in_two_ways_is_one_mistake_of_the_users() -> None:
    with pytest.raises(ValueError, match=r"^must be a value or different values separated by commas$"):
        RATES("1e-3,0.001")


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0), (float("nan"), 1.0), (0.0, float("inf"))])
def test_a_range_that_is_none_cannot_be_made(low: float, high: float) -> None:
    with pytest.raises(ValidationError, match="low below high"):
        FloatRange(low=low, high=high)


def test_a_logarithmic_range_starts_above_zero() -> None:
    with pytest.raises(ValidationError, match="starts above 0"):
        FloatRange(low=0, high=1, log=True)


@pytest.mark.parametrize("options", [(), ("a", "a")])
def test_a_choice_has_different_options(options: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError, match="at least one option and each only once"):
        Categorical(options=options)


@pytest.mark.parametrize(
    ("options", "setting", "nearest"),
    [
        ((16, 64), 64, 64),
        ((16, 48, 64), 50, 48),
        ((0.1, 0.4), 0.0, 0.1),
        (("medium", "strong"), "light", "medium"),
        (("medium", "light"), "light", "light"),
    ],
)
def test_the_nearest_option_is_the_same_or_the_nearest_number_or_the_first(
    options: tuple[object, ...], setting: object, nearest: object
) -> None:
    assert Categorical.model_validate({"options": options}).clip(setting) == nearest  # type: ignore[arg-type]


def test_a_range_has_no_place_for_a_word() -> None:
    with pytest.raises(TypeError, match="no place for 'light'"):
        FloatRange(low=0, high=1).clip("light")


@given(st.floats(0, 1), st.floats(-10, 10))
def test_the_nearest_number_of_a_range_lies_in_it(high: float, setting: float) -> None:
    domain = FloatRange(low=-0.5, high=high)
    nearest = domain.clip(setting)
    assert isinstance(nearest, float)
    assert domain.low <= nearest <= domain.high
    if domain.low <= setting <= domain.high:
        assert nearest == setting


# --- a recipe as JSON ---

fractions = st.floats(0, 0.9)
choices = st.lists(st.floats(1e-8, 10), min_size=1, max_size=4, unique=True).map(
    lambda values: ",".join(map(repr, values))
)


@given(lr=choices, fraction=fractions.map(repr), sizes=st.sets(st.integers(1, 4096), min_size=1, max_size=4))
def test_a_recipe_of_values_and_choices_survives_its_own_json(lr: str, fraction: str, sizes: set[int]) -> None:
    made = recipe(lr=lr, freeze_fraction=fraction, batch_size=",".join(map(str, sizes)), image_size="auto")
    assert Recipe.from_json(made.to_json()) == made


def test_the_default_recipe_survives_its_own_json() -> None:
    assert Recipe.from_json(recipe().to_json()) == recipe()


@pytest.mark.parametrize("text", ["0.12345678..0.2", "0.12345671..0.12345679"])
def test_a_recipe_with_a_range_survives_its_own_json(text: str) -> None:
    made = recipe(lr=text)
    assert Recipe.from_json(made.to_json()) == made
