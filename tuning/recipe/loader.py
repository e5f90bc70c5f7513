"""Recipes: searches that are thought out already, each a .yaml file that says in its head what it is for.

A file holds options as they are typed on the command line, under the same names; an option that is typed wins. It may
hold ``variants`` as well: names, each with settings that take the place of the file's own in a part of the search.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from data.errors import SettingError, did_you_mean
from tuning.recipe.options import format_error, option_fields, parse_args
from tuning.recipe.schema import VARIANT_FIELDS, Recipe

PRESETS_FOLDER = Path(__file__).parent / "presets"
DEFAULT = "auto"
SUFFIXES = (".yaml", ".yml")
VARIANTS = "variants"
OPTIONS = frozenset(option_fields(Recipe)) - {"recipe"}

Texts = dict[str, str]  # settings as they are typed, by option


def recipe_names() -> tuple[str, ...]:
    """Return the names of the recipes that ``recipe=NAME`` finds."""
    return tuple(sorted(path.stem for path in PRESETS_FOLDER.glob("*.yaml")))


def load_recipe(arguments: Sequence[str]) -> Recipe:
    """Return what a command line asks for: its options over those of the recipe's file over the defaults.

    An option of the command line also wins inside variants; variants that then say the same are one, under the name
    of the first.

    Raises:
        SettingError: with a sentence for all that is wrong with the command line and with the file.
    """
    typed, problems = parse_args(Recipe, arguments)
    file = RecipeFile("")
    try:
        file = parse_recipe_file(find_recipe_file(typed.get("recipe", DEFAULT)))
    except SettingError as error:
        problems += error.problems
    problems += _errors({**file.settings, **typed}, dict.fromkeys(file.settings.keys() - typed.keys(), file.name))
    variants = {name: {k: v for k, v in own.items() if k not in typed} for name, own in file.variants.items()}
    for name, own in variants.items():
        problems += _errors(own, dict.fromkeys(own, f"{file.name}, variant {name}"))
    if problems:
        raise SettingError(*dict.fromkeys(problems))
    parts = [{"name": name, "settings": own} for name, own in _deduplicated(variants)]
    return _validated({**file.settings, **typed, VARIANTS: parts}, {VARIANTS: file.name})


def find_recipe_file(recipe: str) -> Path:
    """Return the file of a recipe that is given by its name, or by its path.

    Raises:
        SettingError: there is none.
    """
    if recipe in recipe_names():
        return PRESETS_FOLDER / f"{recipe}.yaml"
    path = Path(recipe).expanduser()
    if path.suffix not in SUFFIXES:
        rule = f"recipe must be one of {', '.join(recipe_names())}, or a .yaml file of your own"
        near = did_you_mean(recipe, recipe_names()) or "; take one of these"
        raise SettingError(f"{rule}, got {recipe!r}{near}")
    if not path.is_file():
        raise SettingError(
            f"recipe must be a file that exists, got {recipe!r} ({path.absolute()}); check how it is written"
        )
    return path


@dataclass
class RecipeFile:
    """What a recipe's file holds, as texts: settings, and those of each variant; ``name`` is shown in sentences."""

    name: str
    settings: Texts = field(default_factory=dict)
    variants: dict[str, Texts] = field(default_factory=dict)


def parse_recipe_file(path: Path) -> RecipeFile:
    """Return what a recipe's file holds; the values themselves are not checked.

    Raises:
        SettingError: it can't be read, or has other keys than a recipe.
    """
    reader = _YamlReader(path.name)
    try:
        # The syntax alone: YAML would read off as false and 1e-3 as a text, and both mean here what they are typed as.
        top = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, ValueError) as error:
        raise SettingError(
            f"a recipe must be a text in UTF-8, but recipe {path} can't be read ({error}); mend it"
        ) from error
    except yaml.YAMLError as error:
        raise SettingError(f"{path.name} must be a recipe in YAML, but {_error_location(error)}; mend it") from error
    file = RecipeFile(path.name)
    for key, node in reader.items(top, "a recipe"):
        if key == VARIANTS:
            file.variants = {name: reader.settings(own, name) for name, own in reader.items(node, VARIANTS)}
        else:
            file.settings |= reader.setting(key, node, OPTIONS, path.name)
    if reader.problems:
        raise SettingError(*reader.problems)
    return file


def _error_location(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1} is none: {error.problem}"
    return str(error).splitlines()[0]


class _YamlReader:
    """Turns YAML's nodes into texts, and collects a sentence for each that is none of a recipe's."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.problems: list[str] = []

    def items(self, node: yaml.Node | None, what: str) -> Iterator[tuple[str, yaml.Node]]:
        """Yield a mapping's keys and nodes; of a file that is empty, nothing."""
        if node is None:
            return
        if not isinstance(node, yaml.MappingNode):
            self.problems.append(f"{self._name}: {what} must be names with values, got none; write 'trials: 20', say.")
            return
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen:
                self.problems.append(f"{self._name}: {name} must be there once, got it twice; leave one out.")
            seen.add(name)
            yield name, value

    def settings(self, node: yaml.Node, variant: str) -> Texts:
        """Return a variant's settings."""
        where = f"{self._name}, variant {variant}"
        found: Texts = {}
        for key, value in self.items(node, f"variant {variant}"):
            found |= self.setting(key, value, VARIANT_FIELDS, where)
        return found

    def setting(self, key: str, node: yaml.Node, known: Sequence[str] | frozenset[str], where: str) -> Texts:
        """Return an option's text by its name; a list is joined by commas, and what is left empty is left out."""
        name = key.replace("-", "_")
        if name not in known:
            near = did_you_mean(name, sorted(known)) or f"; there are {', '.join(sorted(known))}."
            self.problems.append(f"{where}: there is no option {key} here{near}")
            return {}
        parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
        if not all(isinstance(part, yaml.ScalarNode) for part in parts):
            self.problems.append(
                f"{where}: {name} must be a value as on the command line, got names with values; write the value alone."
            )
            return {}
        text = "" if node.tag.endswith(":null") else ",".join(part.value for part in parts)
        return {name: text} if text else {}


def _errors(settings: Mapping[str, str], places: Mapping[str, str]) -> list[str]:
    """Return a sentence for each wrong setting; ``places`` says where those stand that were not typed."""
    try:
        _validated(settings, places)
    except SettingError as error:
        return list(error.problems)
    return []


def _validated(settings: Mapping[str, object], places: Mapping[str, str]) -> Recipe:
    try:
        return Recipe.model_validate(settings)
    except ValidationError as error:
        raise SettingError(*(_with_location(detail, places) for detail in error.errors())) from error


def _with_location(detail: ErrorDetails, places: Mapping[str, str]) -> str:
    place = places.get("".join(map(str, detail["loc"][:1])))
    return f"{place}: {format_error(Recipe, detail)}" if place else format_error(Recipe, detail)


def _deduplicated(variants: Mapping[str, Texts]) -> Iterator[tuple[str, Texts]]:
    """Yield the variants, of those with the same settings the first."""
    seen: list[Texts] = []
    for name, own in variants.items():
        if own not in seen:
            seen.append(own)
            yield name, own
