"""Domains of searched settings: one value, a choice or a range, as the user types them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
def test_a_number_is_parsed_as_a_value_a_choice_or_a_range(text: object, domain: Domain) -> None:
    assert RATES(text) == domain


def test_whole_numbers_stay_integers() -> None:
    parsed = COUNTS("16,32")
    assert parsed == Categorical(options=(16, 32))
    assert isinstance(parsed, Categorical)
    assert {type(option) for option in parsed.options} == {int}


def test_choices_keep_their_order() -> None:
    assert OPTIMIZERS("sgd, adam") == Categorical(options=("sgd", "adam"))


def test_names_are_not_changed() -> None:
    assert parse_names("timm/resnet18.a1_in1k,vgg11") == Categorical(options=("timm/resnet18.a1_in1k", "vgg11"))


@pytest.mark.parametrize("parse", [RATES, COUNTS, OPTIMIZERS, parse_names])
def test_a_parsed_domain_is_not_changed(parse: object) -> None:
    assert callable(parse)
    assert parse(FloatRange(low=0, high=1)) == FloatRange(low=0, high=1)


@pytest.mark.parametrize(
    ("parse", "text", "rule"),
    [
        (RATES, "fast", r"must be a number, a list \(a,b\) or a range \(a\.\.b\)"),
        (RATES, "1..2..3", r"must be a number, a list \(a,b\) or a range \(a\.\.b\)"),
        (RATES, "..", r"must be a number, a list \(a,b\) or a range \(a\.\.b\)"),
        (RATES, "nan", "must be a number from 1e-08 to 10"),
        (RATES, "1e-3..inf", "must be a number from 1e-08 to 10"),
        (RATES, "0", "must be a number from 1e-08 to 10"),
        (RATES, "1e-2..1e-3", r"must be a range written low\.\.high with low below high"),
        (RATES, "1e-2..1e-2", r"must be a range written low\.\.high with low below high"),
        (RATES, "1e-3,", "must be a value or different values separated by commas"),
        (RATES, "1e-3,1e-3", "must be a value or different values separated by commas"),
        (parse_numbers(0.0, 1.0, log=True), "0..0.1", "must start above 0 if it is a range"),
        (COUNTS, "16..64", r"must be a whole number or a comma-separated list \(a,b\)"),
        (COUNTS, "16.5", r"must be a whole number or a comma-separated list \(a,b\)"),
        (COUNTS, "0", "must be a whole number from 1 to 4096"),
        (OPTIMIZERS, "adm", "must be one or more of adamw, adam, sgd; did you mean adam or adamw?"),
        (OPTIMIZERS, "adam,lion", "must be one or more of adamw, adam, sgd$"),
        (parse_names, ",", "must be a value or different values separated by commas"),
    ],
)
def test_an_invalid_text_is_refused_with_the_rule(parse: object, text: str, rule: str) -> None:
    assert callable(parse)
    with pytest.raises(ValueError, match=rule):
        parse(text)


def test_the_same_number_in_two_notations_is_a_duplicate() -> None:
    with pytest.raises(ValueError, match=r"^must be a value or different values separated by commas$"):
        RATES("1e-3,0.001")


@pytest.mark.parametrize(
    ("options", "setting", "clipped"),
    [
        ((16, 64), 64, 64),
        ((16, 48, 64), 50, 48),
        ((0.1, 0.4), 0.0, 0.1),
        (("medium", "strong"), "light", "medium"),
        (("medium", "light"), "light", "light"),
    ],
)
def test_a_choice_clips_to_the_same_option_or_the_nearest_number_or_the_first(
    options: tuple[object, ...], setting: object, clipped: object
) -> None:
    assert Categorical.model_validate({"options": options}).clip(setting) == clipped  # type: ignore[arg-type]


@given(st.floats(0, 1), st.floats(-10, 10))
def test_a_range_clips_to_its_nearest_number(high: float, setting: float) -> None:
    domain = FloatRange(low=-0.5, high=high)
    clipped = domain.clip(setting)
    assert isinstance(clipped, float)
    assert domain.low <= clipped <= domain.high
    if domain.low <= setting <= domain.high:
        assert clipped == setting


# --- a recipe as JSON ---

fractions = st.floats(0, 0.9)
choices = st.lists(st.floats(1e-8, 10), min_size=1, max_size=4, unique=True).map(
    lambda values: ",".join(map(repr, values))
)


@given(lr=choices, fraction=fractions.map(repr), sizes=st.sets(st.integers(1, 4096), min_size=1, max_size=4))
def test_a_recipe_of_values_and_choices_survives_a_json_round_trip(lr: str, fraction: str, sizes: set[int]) -> None:
    original = recipe(lr=lr, freeze_fraction=fraction, batch_size=",".join(map(str, sizes)), image_size="auto")
    assert Recipe.from_json(original.to_json()) == original


def test_the_default_recipe_survives_a_json_round_trip() -> None:
    assert Recipe.from_json(recipe().to_json()) == recipe()


@pytest.mark.parametrize("text", ["0.12345678..0.2", "0.12345671..0.12345679"])
def test_a_recipe_with_a_range_survives_a_json_round_trip(text: str) -> None:
    original = recipe(lr=text)
    assert Recipe.from_json(original.to_json()) == original
