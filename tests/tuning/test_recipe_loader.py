"""Recipes: the presets, and recipe files of the user."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from data.errors import SettingError
from models.backbones.factory import create_backbone
from models.backbones.pack_weights import pack_weights
from models.classifier import freeze_depth
from models.freezing.blocks import find_blocks
from tests.conftest import MakeFolder
from tuning.__main__ import main
from tuning.cli.parser import parse_args
from tuning.cli.weights import networks_of
from tuning.common.search_paths import SearchPaths
from tuning.common.trial_record import TrialReport
from tuning.recipe.domains import Categorical, FloatRange
from tuning.recipe.loader import PRESETS_FOLDER, load_recipe, recipe_names
from tuning.recipe.options import option_fields
from tuning.recipe.schema import VARIANT_FIELDS, Recipe
from tuning.search.space import SearchSpace
from tuning.search.trial_worker import TrialTask, train
from tuning.workflows.preflight import SearchInputs, load_data, prepare_inputs

if TYPE_CHECKING:
    from mlflow import MlflowClient

ROOT = Path(__file__).parents[2]
NAMES = ("auto", "cats-vs-dogs", "celebrities", "efficient", "emotions", "faces", "quick")
RESNET34_END = ("layer4.2", "layer4.1", "layer4.0", "layer3.5")


def load(**options: str) -> Recipe:
    return load_recipe(options)


def parts(recipe: Recipe) -> dict[str, Recipe]:
    """Return the recipe of each variant by name, or the recipe itself under an empty name."""
    return {variant.name: recipe.with_variant(variant) for variant in recipe.variants} or {"": recipe}


def problems(*arguments: str) -> Sequence[str]:
    with pytest.raises(SettingError, match=r"\S") as raised:
        load_recipe(*parse_args(Recipe, arguments))
    return raised.value.problems


@functools.cache
def block_names(backbone: str) -> tuple[str, ...]:
    return tuple(block.name for block in find_blocks(create_backbone(backbone, "none", 64).network, 64))


# --- all presets ---


def test_the_option_and_the_docs_name_each_of_the_seven_presets() -> None:
    assert recipe_names() == NAMES
    assert {path.suffix for path in PRESETS_FOLDER.iterdir() if path.is_file()} == {".yaml"}
    description = str(option_fields(Recipe)["recipe"].description)
    docs = (ROOT / "docs" / "recipes.md").read_text()
    assert [name for name in NAMES if name not in description or f"-P recipe={name} " not in docs] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_comment_of_a_preset_has_its_purpose_and_the_command(name: str) -> None:
    lines = (PRESETS_FOLDER / f"{name}.yaml").read_text().splitlines()
    comment = lines[: next(number for number, line in enumerate(lines) if not line.startswith("#"))]
    assert f"#   mlflow run . -e tune --env-manager local -P recipe={name} -P data=FOLDER" in comment
    assert comment[0].startswith("# For ")


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_contains_only_options_of_the_command_line(name: str) -> None:
    content = yaml.safe_load((PRESETS_FOLDER / f"{name}.yaml").read_text())
    recipe = load(recipe=name)
    assert set(content) <= {*option_fields(Recipe), "variants"} - {"recipe", "data", "name"}
    variants = content.get("variants", {})
    assert {option for settings in variants.values() for option in settings} <= set(VARIANT_FIELDS)
    assert [variant.name for variant in recipe.variants] == list(variants)
    assert recipe.model_fields_set == {*content, "recipe", "variants"}


def inputs_of(recipe: Recipe) -> SearchInputs:
    return prepare_inputs(recipe, load_data(recipe, lambda *_: None, lambda: False), on_gpu=False)


def train_each_network(recipe: Recipe, inputs: SearchInputs, root: Path) -> list[list[TrialReport]]:
    """Train one tiny trial for each network of a recipe; return the reports of each."""
    reports = []
    for variant, part in parts(inputs.resolve_auto(recipe)).items():
        assert isinstance(part.backbone, Categorical)
        for backbone in part.backbone.options:
            single = part.model_copy(update={"backbone": Categorical(options=(backbone,))})
            reports.append(train_default(single, inputs, root / variant / str(backbone)))
    return reports


def train_default(recipe: Recipe, inputs: SearchInputs, root: Path) -> list[TrialReport]:
    space, paths = SearchSpace(recipe, inputs.dataset.imbalance), SearchPaths(root)
    paths.write(recipe, inputs.dataset)
    config = space.trial_config(space.default_settings(), inputs.preprocessings)
    reports: list[TrialReport] = []
    train(TrialTask(trial_uid="uid", config=config, search_root=root, threads=1), reports.append)
    return reports


@pytest.mark.parametrize(
    ("name", "networks"),
    list(zip(NAMES, (3, 5, 4, 4, 3, 1, 2), strict=True)),
)
def test_each_network_of_a_preset_trains_with_the_weights_of_a_folder(
    name: str, networks: int, make_folder: MakeFolder, tmp_path: Path
) -> None:
    folder, weights = make_folder(dict.fromkeys("abcdef", 4)), tmp_path / "weights"
    pack_weights(networks_of(name), weights, "none")  # random weights in the format of the command
    truncate = {"truncate": "1"} if name == "cats-vs-dogs" else {}  # VGG's last block has 100 million parameters
    options = {"image_size": "32", "max_epochs": "1", "batch_size": "8", **truncate}
    options["weights"] = "auto" if name in ("auto", "quick") else str(weights)  # these have packages
    recipe = load(recipe=name, data=str(folder), **options)
    trials = train_each_network(recipe, inputs_of(recipe), tmp_path / "trials")
    assert len(trials) == networks
    for reports in trials:
        assert [report.epoch for report in reports] == [1]
        assert {"val_balanced_accuracy", "val_accuracy", "val_top5_accuracy"} <= set(reports[0].metrics)


# --- each preset ---


def test_auto_is_the_default_recipe() -> None:
    assert load() == load(recipe="auto") == Recipe()


def test_quick_takes_five_minutes_and_needs_no_model_hub() -> None:
    recipe = load(recipe="quick")
    assert recipe.budget_s == 300
    assert str(recipe.backbone) == "tf_efficientnet_lite0,tf_efficientnet_lite1"
    assert isinstance(recipe.image_size, Categorical)
    assert max(recipe.image_size.options) < 128


def test_faces_uses_resnet_34_without_class_balancing() -> None:
    recipe = load(recipe="faces")
    assert (str(recipe.backbone), str(recipe.balance)) == ("torchvision/resnet34", "none")


def test_emotions_searches_class_balancing_and_regularization_with_timm_backbones() -> None:
    recipe = load(recipe="emotions")
    assert str(recipe.balance) == "none,weights,sampler,oversample"
    assert str(recipe.mix) == "none,mixup,cutmix"
    assert all(
        isinstance(domain, FloatRange) for domain in (recipe.weight_decay, recipe.dropout, recipe.label_smoothing)
    )
    assert isinstance(recipe.backbone, Categorical)
    assert all("/" not in str(backbone) for backbone in recipe.backbone.options)


@pytest.mark.usefixtures("client")
def test_efficient_compares_the_four_networks_of_its_comment(image_folder: Path) -> None:
    recipe = load(recipe="efficient", data=str(image_folder), weights="none")
    one, two, resnet50, resnet18 = parts(recipe).values()
    assert [str(part.backbone).rpartition("/")[2] for part in (one, two, resnet50, resnet18)] == [
        "mobilenet_v2",
        "mobilenet_v2",
        "resnet50",
        "resnet18",
    ]
    for part in (one, two, resnet50, resnet18):
        assert (str(part.image_size), str(part.augmentation), str(part.truncate)) == ("224", "flip+rotate", "0")
        assert part.patience > 0
    assert (str(one.freeze_fraction), str(one.head)) == ("0.0", "256:norm:relu")
    assert (str(one.optimizer), str(one.lr_scheduler)) == ("adam", "plateau")
    assert (str(two.head), str(two.optimizer)) == ("256:leaky_relu+128:relu", "adamw")
    assert (str(two.lr_scheduler), two.step_epochs) == ("step", 10)
    assert isinstance(one.dropout, FloatRange)
    assert isinstance(two.weight_decay, FloatRange)
    assert min(one.dropout.low, two.weight_decay.low) > 0
    assert recipe.max_epochs > 2 * two.step_epochs
    blocks = block_names("torchvision/mobilenet_v2")
    assert isinstance(two.freeze_fraction, Categorical)
    depth = freeze_depth(float(two.freeze_fraction.options[0]), len(blocks))
    assert blocks[:depth] == tuple(f"features.{number}" for number in range(10))
    for preprocessing in inputs_of(recipe).preprocessings.values():
        assert (preprocessing.mean, preprocessing.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_each_network_of_efficient_has_a_default_trial() -> None:
    defaults = SearchSpace(load(recipe="efficient")).default_trials()
    assert [settings["variant"] for settings in defaults] == ["mobilenetv2-1", "mobilenetv2-2", "resnet50", "resnet18"]


def test_cats_vs_dogs_compares_a_scratch_baseline_with_four_families() -> None:
    recipe = load(recipe="cats-vs-dogs", truncate="0")
    baseline, pretrained = parts(recipe).values()
    assert (str(baseline.backbone), str(baseline.freeze_fraction)) == ("small_cnn", "0.0")
    assert str(pretrained.backbone) == "convnext_nano,mobilenetv3_large_100,resnet34,vgg11_bn"
    space = SearchSpace(recipe)
    assert [settings["variant"] for settings in space.default_trials()] == ["baseline"]
    assert isinstance(pretrained.backbone, Categorical)
    assert {probe["backbone@pretrained"] for probe in space.linear_probes()} == set(pretrained.backbone.options)


def test_celebrities_compares_four_truncations_of_a_frozen_resnet_34() -> None:
    recipe = load(recipe="celebrities")
    blocks = block_names("torchvision/resnet34")
    last_blocks = []
    for part in parts(recipe).values():
        assert (str(part.freeze_fraction), str(part.head), str(part.backbone)) == (
            "1.0",
            "linear",
            "torchvision/resnet34",
        )
        assert isinstance(part.truncate, Categorical)
        last_blocks.append(blocks[len(blocks) - 1 - int(part.truncate.options[0])])
    assert tuple(last_blocks) == RESNET34_END
    assert [probe["variant"] for probe in SearchSpace(recipe).linear_probes()] == [
        variant.name for variant in recipe.variants
    ]


@pytest.mark.parametrize(
    ("name", "networks"),
    [
        ("efficient", "torchvision/mobilenet_v2, torchvision/resnet50, torchvision/resnet18"),
        ("emotions", "timm/mobilenetv3_large_100, timm/efficientnet_b0, timm/convnext_atto"),
    ],
)
def test_weights_that_need_an_unreachable_hub_are_one_message_before_the_search(
    name: str, networks: str, image_folder: Path, client: MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", "--recipe", name, "--data", str(image_folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"tune: weights of {networks} must come from the hub, which can't be reached")
    assert all(hint in line for hint in ("a local file (weights=", "an offline backbone (backbone=", "weights=none"))
    assert client.search_runs(["0"]) == []


# --- recipe files ---

CONTENT = """
# comment
data: photos
lr: 1e-4..1e-2
sweep: off
feature_cache: off
optimizer: [adam, sgd]
patience:
minutes: null
image-size: 64
variants:
  frozen: {freeze_fraction: 1, image_size: 32}
  whole: {freeze_fraction: 0}
"""


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    """Return a recipe file of the user."""
    path = tmp_path / "own.yaml"
    path.write_text(CONTENT)
    return path


def test_options_in_a_file_are_parsed_as_on_the_command_line(recipe_file: Path) -> None:
    recipe = load(recipe=str(recipe_file))
    assert (recipe.recipe, recipe.data) == (str(recipe_file), "photos")
    assert (recipe.sweep, recipe.feature_cache) == (False, "off")
    assert (recipe.lr, str(recipe.optimizer)) == (FloatRange(low=1e-4, high=1e-2, log=True), "adam,sgd")
    assert (recipe.patience, recipe.minutes) == (0, None)
    assert [str(part.image_size) for part in parts(recipe).values()] == ["32", "64"]


def test_an_option_of_the_command_line_overrides_the_file_and_its_variants(recipe_file: Path) -> None:
    recipe = load(recipe=str(recipe_file), image_size="96", lr="0.01", feature_cache="fp32")
    assert (str(recipe.lr), recipe.feature_cache, recipe.data) == ("0.01", "fp32", "photos")
    assert [str(part.image_size) for part in parts(recipe).values()] == ["96", "96"]
    assert [str(part.freeze_fraction) for part in parts(recipe).values()] == ["1.0", "0.0"]
    recipe = load(recipe=str(recipe_file), image_size="auto")
    assert [part.image_size for part in parts(recipe).values()] == [None, None]


def test_variants_that_become_equal_are_merged() -> None:
    recipe = load(recipe="efficient", backbone="resnet18", weights="none", image_size="64")
    assert [variant.name for variant in recipe.variants] == ["mobilenetv2-1", "mobilenetv2-2", "resnet50"]
    assert {str(part.backbone) for part in parts(recipe).values()} == {"resnet18"}
    assert {str(part.head) for part in parts(recipe).values()} == {"256:norm:relu", "256:leaky_relu+128:relu", "linear"}


def test_a_loaded_recipe_survives_a_json_round_trip(recipe_file: Path) -> None:
    for recipe in (load(recipe="celebrities"), load(recipe=str(recipe_file))):
        assert Recipe.from_json(recipe.to_json()) == recipe


# --- errors ---


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (
            "celebrites",
            f"recipe must be one of {', '.join(NAMES)}, or the path of a .yaml file, got 'celebrites'; "
            "did you mean celebrities?",
        ),
        ("x/y", f"recipe must be one of {', '.join(NAMES)}, or the path of a .yaml file, got 'x/y'; use one of these"),
    ],
)
def test_the_message_for_an_unknown_recipe_lists_all_presets(recipe: str, message: str) -> None:
    assert problems("--recipe", recipe) == (message,)


def test_a_missing_file_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    message = f"recipe must be a file that exists, got 'no.yaml' ({tmp_path / 'no.yaml'}); check the spelling"
    assert problems("--recipe", "no.yaml") == (message,)


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        (
            "lr: [1",
            [
                "own.yaml must be valid YAML, but line 1 is not: expected ',' or ']', but got '<stream end>'; "
                "fix the file"
            ],
        ),
        ("- lr", ["own.yaml: a recipe must be a mapping; write for example 'trials: 20'."]),
        ("only text", ["own.yaml: a recipe must be a mapping; write for example 'trials: 20'."]),
        ("trails: 3", ["own.yaml: there is no option 'trails'; did you mean trials?"]),
        ("lr: 1\nlr: 2", ["own.yaml: lr must be given once, got it twice; remove one."]),
        (
            "lr: {a: 1}",
            [
                "own.yaml: lr must be a value as on the command line, got a mapping; write only the value.",
            ],
        ),
        ("lr: fast", ["own.yaml: lr must be a number, a list (a,b) or a range (a..b), got 'fast'."]),
        ("variants: 3", ["own.yaml: variants must be a mapping; write for example 'trials: 20'."]),
        ("variants: {a: 3}", ["own.yaml: variant a must be a mapping; write for example 'trials: 20'."]),
        ("variants: {a: {hed: '1'}}", ["own.yaml, variant a: there is no option 'hed'; did you mean head?"]),
        (
            "variants: {a: {optimizer: adm}}",
            [
                "own.yaml, variant a: optimizer must be one or more of adamw, adam, sgd, lbfgs, got 'adm'; "
                "did you mean adam or adamw?"
            ],
        ),
        (
            "variants: {a b: {lr: 1}}",
            [
                "own.yaml: variants must be up to 100 letters, digits, '-', '_' or '.', "
                "starting with a letter or digit, got 'a b'."
            ],
        ),
    ],
)
def test_an_error_in_a_file_is_a_message_with_the_file_and_the_option(
    text: str, messages: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    assert list(problems("--recipe", str(path))) == messages


def test_the_message_for_an_unknown_variant_setting_lists_the_available_ones(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("recipe: auto\nvariants: {a: {trials: 3}}")
    in_file, in_variant = problems("--recipe", str(path))
    assert in_file.startswith("own.yaml: there is no option 'recipe'; available: augmentation, backbone, ")
    assert in_variant.startswith("own.yaml, variant a: there is no option 'trials'; available: augmentation, ")


def test_a_binary_file_is_one_message(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    (line,) = problems("--recipe", str(path))
    assert line.startswith(f"a recipe must be UTF-8 text, but {path} cannot be read (")


def test_errors_of_the_command_line_and_the_file_are_reported_together(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("trials: 0\nminutes: 5\nvariants: {a: {lr: fast}, b: {lr: fast, head: x}}")
    messages = problems("--recipe", str(path), "--trails", "3", "--minutes", "0")
    assert [message.split(" must")[0].split("; did")[0] for message in messages] == [
        "there is no option --trails",
        "own.yaml: trials",
        "minutes",
        "own.yaml, variant a: lr",
        "own.yaml, variant b: a head's layer",
        "own.yaml, variant b: lr",
    ]


def test_an_option_of_the_command_line_replaces_an_invalid_one_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("trials: 0\nvariants: {a: {lr: fast}}")
    assert load(recipe=str(path), trials="3", lr="0.1").trials == 3


# --- the docs ---


def test_the_example_in_the_docs_is_a_valid_recipe(tmp_path: Path) -> None:
    path = tmp_path / "pets.yaml"
    path.write_text((ROOT / "docs" / "recipes.md").read_text().split("```yaml\n")[1].split("```")[0])
    recipe = load(recipe=str(path), truncate="0")
    assert (recipe.data, recipe.budget_s, str(recipe.image_size)) == ("photos/pets", 600, "128,160")
    head_only, deep = parts(recipe).values()
    assert (str(head_only.head), str(deep.layer_decay), deep.patience) == ("linear,256:norm:relu", "0.7,0.9", 3)
    space = SearchSpace(recipe)
    enqueued = [*space.default_trials(), *space.linear_probes()]
    assert {settings["variant"] for settings in enqueued} == {"head-only", "deep"}


def test_only_given_and_resolved_settings_are_logged() -> None:
    given = load_recipe({"lr": "1e-3", "trials": "2"})
    in_the_preset = {"backbone", "image_size", "variants"}
    assert set(given.given_params()) - in_the_preset == {"lr", "trials"}
    resolved = given.model_copy(update={"image_size": Categorical(options=(64,))})
    assert resolved.given_params()["image_size"] == "64"
    assert len(given.to_params()) > 40
