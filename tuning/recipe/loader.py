"""Recipes: presets and recipe files in YAML.

A file holds options under their command-line names; an option on the command line overrides the file. A file may also
hold ``variants``: named groups of settings that override the file's settings in one part of the search.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from data.errors import SettingError, did_you_mean
from tuning.recipe.options import format_error, option_fields
from tuning.recipe.schema import VARIANT_FIELDS, Recipe

PRESETS_FOLDER = Path(__file__).parent / "presets"
DEFAULT = "auto"
SUFFIXES = (".yaml", ".yml")
VARIANTS = "variants"
OPTIONS = frozenset(option_fields(Recipe)) - {"recipe"}

Texts = dict[str, str]  # option values as the user types them, by option name


def recipe_names() -> tuple[str, ...]:
    """Return the names of the presets."""
    return tuple(sorted(path.stem for path in PRESETS_FOLDER.glob("*.yaml")))


def load_recipe(options: Mapping[str, str], problems: Sequence[str] = ()) -> Recipe:
    """Return the recipe of a command line: its options override those of the recipe file, which override the defaults.

    An option of the command line also overrides the settings of variants. Variants that are equal afterwards are merged
    under the name of the first.

    Args:
        options: the options of the command line as text.
        problems: messages for the parts of the command line that could not be parsed.

    Raises:
        SettingError: with ``problems``, and a message for each error in the options and in the file.
    """
    problems = list(problems)
    file = RecipeFile("")
    try:
        file = parse_recipe_file(find_recipe_file(options.get("recipe", DEFAULT)))
    except SettingError as error:
        problems += error.problems
    problems += _errors({**file.settings, **options}, dict.fromkeys(file.settings.keys() - options.keys(), file.name))
    variants = {
        variant: {name: text for name, text in settings.items() if name not in options}
        for variant, settings in file.variants.items()
    }
    for name, settings in variants.items():
        problems += _errors(settings, dict.fromkeys(settings, f"{file.name}, variant {name}"))
    if problems:
        raise SettingError(*dict.fromkeys(problems))
    distinct = [{"name": name, "settings": settings} for name, settings in _deduplicated(variants)]
    return _validated({**file.settings, **options, VARIANTS: distinct}, {VARIANTS: file.name})


def recipe_text(recipe: Recipe) -> str:
    """Return a recipe as the YAML of a recipe file; a search with it gives the same result."""
    given = {name: value for name, value in recipe.to_params().items() if value not in (None, "")}
    settings = {name: value for name, value in given.items() if name in OPTIONS}
    variants = {variant.name: dict(variant.settings) for variant in recipe.variants}
    settings = {**settings, VARIANTS: variants} if variants else settings
    return str(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=1000)).rstrip()


def find_recipe_file(recipe: str) -> Path:
    """Return the path of a recipe, given as a preset name or as a path.

    Raises:
        SettingError: the recipe does not exist.
    """
    if recipe in recipe_names():
        return PRESETS_FOLDER / f"{recipe}.yaml"
    path = Path(recipe).expanduser()
    if path.suffix not in SUFFIXES:
        rule = f"recipe must be one of {', '.join(recipe_names())}, or the path of a .yaml file"
        hint = did_you_mean(recipe, recipe_names()) or "; use one of these"
        raise SettingError(f"{rule}, got {recipe!r}{hint}")
    if not path.is_file():
        raise SettingError(f"recipe must be a file that exists, got {recipe!r} ({path.absolute()}); check the spelling")
    return path


@dataclass
class RecipeFile:
    """The content of a recipe file as text: its settings, and those of each variant; ``name`` appears in messages."""

    name: str
    settings: Texts = field(default_factory=dict)
    variants: dict[str, Texts] = field(default_factory=dict)


def parse_recipe_file(path: Path) -> RecipeFile:
    """Return the content of a recipe file; the values are not validated.

    Raises:
        SettingError: the file cannot be read, or has keys that are not recipe options.
    """
    reader = _YamlReader(path.name)
    try:
        # Nodes instead of values: YAML reads off as false and 1e-3 as a string, but options are parsed from text.
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, ValueError) as error:
        raise SettingError(f"a recipe must be UTF-8 text, but {path} cannot be read ({error}); fix the file") from error
    except yaml.YAMLError as error:
        raise SettingError(f"{path.name} must be valid YAML, but {_error_location(error)}; fix the file") from error
    file = RecipeFile(path.name)
    for key, node in reader.items(root, "a recipe"):
        if key == VARIANTS:
            file.variants = {name: reader.settings(settings, name) for name, settings in reader.items(node, VARIANTS)}
        else:
            file.settings |= reader.setting(key, node, OPTIONS, path.name)
    if reader.problems:
        raise SettingError(*reader.problems)
    return file


def _error_location(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1} is not: {error.problem}"
    return str(error).splitlines()[0]


class _YamlReader:
    """Converts YAML nodes to option texts, and collects a message for each node that does not belong to a recipe."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.problems: list[str] = []

    def items(self, node: yaml.Node | None, what: str) -> Iterator[tuple[str, yaml.Node]]:
        """Yield the keys and nodes of a mapping; nothing for an empty file."""
        if node is None:
            return
        if not isinstance(node, yaml.MappingNode):
            self.problems.append(f"{self._name}: {what} must be a mapping; write for example 'trials: 20'.")
            return
        names: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in names:
                self.problems.append(f"{self._name}: {name} must be given once, got it twice; remove one.")
            names.add(name)
            yield name, value

    def settings(self, node: yaml.Node, variant: str) -> Texts:
        """Return the settings of a variant."""
        location = f"{self._name}, variant {variant}"
        texts: Texts = {}
        for key, value in self.items(node, f"variant {variant}"):
            texts |= self.setting(key, value, VARIANT_FIELDS, location)
        return texts

    def setting(self, key: str, node: yaml.Node, known: Sequence[str] | frozenset[str], location: str) -> Texts:
        """Return an option's text by its name: a list is joined by commas, an empty value is omitted."""
        name = key.replace("-", "_")
        if name not in known:
            hint = did_you_mean(name, sorted(known)) or f"; available: {', '.join(sorted(known))}."
            self.problems.append(f"{location}: there is no option '{key}'{hint}")
            return {}
        values = node.value if isinstance(node, yaml.SequenceNode) else [node]
        if not all(isinstance(value, yaml.ScalarNode) for value in values):
            self.problems.append(
                f"{location}: {name} must be a value as on the command line, got a mapping; write only the value."
            )
            return {}
        text = "" if node.tag.endswith(":null") else ",".join(value.value for value in values)
        return {name: text} if text else {}


def _errors(settings: Mapping[str, str], locations: Mapping[str, str]) -> list[str]:
    """Return a message for each invalid setting; ``locations`` names the origin of those not from the command line."""
    try:
        _validated(settings, locations)
    except SettingError as error:
        return list(error.problems)
    return []


def _validated(settings: Mapping[str, object], locations: Mapping[str, str]) -> Recipe:
    try:
        return Recipe.model_validate(settings)
    except ValidationError as error:
        raise SettingError(*(_with_location(detail, locations) for detail in error.errors())) from error


def _with_location(detail: ErrorDetails, locations: Mapping[str, str]) -> str:
    location = locations.get("".join(map(str, detail["loc"][:1])))
    return f"{location}: {format_error(Recipe, detail)}" if location else format_error(Recipe, detail)


def _deduplicated(variants: Mapping[str, Texts]) -> Iterator[tuple[str, Texts]]:
    """Yield the variants without those whose settings equal an earlier one's."""
    previous: list[Texts] = []
    for name, settings in variants.items():
        if settings not in previous:
            previous.append(settings)
            yield name, settings
