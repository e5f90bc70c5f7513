"""Errors that are found before the first trial, and the values of ``auto``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from data.dataset.dataset import Dataset
from data.errors import UserError
from data.load_dataset import load_dataset
from data.preprocessing import Preprocessing
from data.sources.base import SplitName
from tests.conftest import MakeFolder
from tests.tuning.command_line import Capture, assert_untouched, error_lines
from tests.tuning.factories import BACKBONE, recipe
from tuning.__main__ import main
from tuning.recipe.auto import auto_backbones, auto_image_sizes
from tuning.recipe.domains import Categorical
from tuning.recipe.schema import Recipe
from tuning.search.space import SearchSpace
from tuning.workflows.preflight import SearchInputs, load_data, prepare_inputs, trains_on_gpu

if TYPE_CHECKING:
    from mlflow import MlflowClient

OFFLINE = ("tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2")


# --- the data set ---


@pytest.mark.parametrize("command", ["tune", "train"])
@pytest.mark.parametrize(
    ("counts", "data", "message"),
    [
        ({}, "missing", "data must be an existing folder, got "),
        ({}, "", "images per class, got an empty folder"),
        ({"cat": 3}, "", "data must have at least 2 classes, got 1 (cat)"),
        ({"cat": 4, "dog": 2}, "", "every class must have at least 3 distinct "),
        ({"cat": 3}, "cat/000.png", "got another file: "),
    ],
)
def test_an_unusable_data_set_is_one_message(
    command: str,
    counts: dict[str, int],
    data: str,
    message: str,
    make_folder: MakeFolder,
    client: MlflowClient,
    tmp_path: Path,
    capsys: Capture,
) -> None:
    folder = make_folder(counts=counts) if counts else tmp_path / "images"
    folder.mkdir(exist_ok=True)
    (line,) = error_lines(capsys, command, "--data", str(folder / data), "--weights", "none")
    assert line.startswith(f"{command}: ")
    assert message in line
    assert_untouched(client)


def test_the_audit_lists_images_that_cannot_be_read(make_folder: MakeFolder, tmp_path: Path, capsys: Capture) -> None:
    folder, report = make_folder(counts={"cat": 4, "dog": 4}), tmp_path / "audit.json"
    for name in ("cat/bad.png", "dog/worse.png"):
        (folder / name).write_text("not an image")
    assert main(["audit", "--data", str(folder), "--json", str(report)]) == 0
    output = capsys.readouterr().out
    assert "8 images" in output
    for name in ("cat/bad.png", "dog/worse.png"):
        assert name in output
        assert name in report.read_text()


def test_an_audit_of_data_that_cannot_be_split_is_one_message(make_folder: MakeFolder, capsys: Capture) -> None:
    folder = make_folder(counts={"cat": 4, "dog": 1})
    (folder / "cat" / "bad.png").write_text("not an image")
    (line,) = error_lines(capsys, "audit", "--data", str(folder))
    assert line.startswith("audit: every class must have at least 3 distinct ")
    assert "dog (1)" in line


# --- networks and weights ---


def test_the_message_for_an_unknown_backbone_has_similar_names(
    image_folder: Path, client: MlflowClient, capsys: Capture
) -> None:
    (line,) = error_lines(capsys, "tune", "--data", str(image_folder), "--backbone", "resnet3", "--weights", "none")
    assert "backbone must be " in line
    assert "got 'resnet3'; did you mean resnet34" in line
    assert_untouched(client)


def test_weights_of_another_architecture_are_one_message(
    image_folder: Path, client: MlflowClient, tmp_path: Path, capsys: Capture
) -> None:
    import torch
    from safetensors.torch import save_file

    file = tmp_path / "other.safetensors"
    save_file({"layer.weight": torch.zeros(2, 3)}, str(file))
    (line,) = error_lines(capsys, "tune", "--data", str(image_folder), "--weights", str(file))
    assert "weights must match the backbone" in line
    assert_untouched(client)


def test_the_message_for_an_unreachable_hub_has_the_offline_alternatives(
    image_folder: Path, client: MlflowClient, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (line,) = error_lines(capsys, "tune", "--data", str(image_folder), "--backbone", "resnet34")
    assert "hub, which can" in line
    assert "weights=none" in line
    assert_untouched(client)


def test_errors_of_weights_data_and_server_are_reported_together(
    closed_port: int, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed_port}")
    lines = error_lines(capsys, "tune", "--data", "missing", "--weights", "missing.pth")
    assert [line.split()[1] for line in lines] == ["data", "weights", "the"]


def test_errors_of_truncations_and_of_the_server_are_reported_together(
    image_folder: Path, closed_port: int, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed_port}")
    options = ("--data", str(image_folder), "--backbone", "small_cnn", "--truncate", "40", "--weights", "none")
    lines = error_lines(capsys, "train", *options)
    assert [line.split()[1] for line in lines] == ["truncate", "the"]


@pytest.mark.parametrize(("data", "num_starts"), [("", 1), ("missing", 0)])
def test_ray_starts_once_the_data_are_valid_and_before_networks_are_validated(
    data: str, num_starts: int, image_folder: Path, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr("tuning.search.ray_runtime.RayRuntime.start_async", lambda _: calls.append("ray"))
    monkeypatch.setattr("models.backbones.validation.validate_backbones", lambda _: calls.append("networks"))
    monkeypatch.setattr("tuning.tracking.connection._check_server", lambda _: calls.append("server"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed_port}")
    options = ("--backbone", "small_cnn", "--image-size", "32", "--weights", "none", "--truncate", "40")
    assert main(("tune", "--data", str(image_folder / data), *options)) == 2
    assert list(dict.fromkeys(calls)) == ["ray"] * num_starts + ["networks", "server"]


def test_a_truncation_is_limited_by_the_blocks_of_each_network(
    image_folder: Path, client: MlflowClient, capsys: Capture
) -> None:
    options = ("--data", str(image_folder), "--backbone", "small_cnn,tf_efficientnet_lite0", "--image-size", "32")
    first, second = error_lines(capsys, "tune", *options, "--truncate", "0,40", "--weights", "none")
    assert first == "tune: truncate must be 0..3 for small_cnn, got 40; freezeline blocks lists its blocks."
    assert "truncate must be 0..17 for tf_efficientnet_lite0, got 40" in second
    assert_untouched(client)


# --- auto ---


def inputs_of(recipe: Recipe, num_gpus: float = 0) -> SearchInputs:
    on_gpu = trains_on_gpu(recipe, lambda: num_gpus)
    return prepare_inputs(recipe, load_data(recipe, lambda *_: None, lambda: on_gpu), on_gpu)


def test_auto_is_the_offline_backbones_at_sizes_near_the_median(image_folder: Path) -> None:
    recipe = Recipe(data=str(image_folder), weights="none")
    inputs = inputs_of(recipe)
    resolved = inputs.resolve_auto(recipe)
    assert resolved.backbone == Categorical(options=OFFLINE)
    assert resolved.image_size == Categorical(options=(48, 64, 96))
    assert resolved.truncate == Categorical(options=(0, 3))
    sizes = {pair: preprocessing.image_size for pair, preprocessing in inputs.preprocessings.items()}
    assert sizes == {(name, size): size for name in OFFLINE for size in (48, 64, 96)}


def test_the_sizes_of_auto_contain_that_of_the_champion(image_folder: Path) -> None:
    settings = {"backbone": BACKBONE, "image_size": 128}
    recipe = Recipe.model_validate({"data": str(image_folder), "weights": "none", "start_settings": [settings]})
    inputs = inputs_of(recipe)
    assert str(inputs.resolve_auto(recipe).image_size) == "48,64,96,128"
    assert (BACKBONE, 128) in inputs.preprocessings


@pytest.mark.parametrize(
    ("weights", "is_reachable", "has_hub_backbones"),
    [
        ("auto", True, True),
        ("auto", False, False),
        ("hub", True, True),
        ("none", True, False),
        ("package", True, False),
    ],
)
def test_auto_includes_hub_backbones_if_the_hub_is_reachable_and_allowed(
    weights: str, is_reachable: bool, has_hub_backbones: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.backbones.weights.hub_reachable", lambda: is_reachable)
    hub_backbones = ("mobilenetv3_large_100", "convnext_femto") if has_hub_backbones else ()
    assert auto_backbones(weights, on_gpu=False) == OFFLINE + hub_backbones
    larger = ("tf_efficientnetv2_s.in21k_ft_in1k", "convnext_small.in12k_ft_in1k") if has_hub_backbones else ()
    assert auto_backbones(weights, on_gpu=True) == OFFLINE + hub_backbones + larger


@pytest.mark.parametrize("on_gpu", [False, True])
def test_auto_is_the_default_network_with_a_weights_file(on_gpu: bool) -> None:
    assert auto_backbones("lite0.pth", on_gpu) == OFFLINE[:1]


@pytest.mark.parametrize(
    ("gpus_per_trial", "num_gpus", "on_gpu"),
    [("auto", 0, False), ("auto", 1, True), ("0", 2, False), ("0.5", 0, True)],
)
def test_auto_is_larger_where_the_trials_run_on_a_gpu(
    gpus_per_trial: str, num_gpus: int, on_gpu: bool, make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.backbones.weights.hub_reachable", lambda: True)
    monkeypatch.setattr("models.backbones.validation.hub_errors", lambda names: [])
    folder = make_folder(counts={"cat": 4, "dog": 4}, size=(300, 230))
    recipe = Recipe.model_validate({"data": str(folder), "gpus_per_trial": gpus_per_trial})
    inputs = inputs_of(recipe, num_gpus)
    resolved = inputs.resolve_auto(recipe)
    assert resolved.backbone == Categorical(options=auto_backbones("auto", on_gpu))
    assert resolved.image_size == Categorical(options=(160, 224, 288) if on_gpu else (128, 160, 224))
    assert resolved.truncate == Categorical(options=(0, 3))
    pairs = [(name, size) for name in resolved.backbone.options for size in resolved.image_size.options]
    assert list(inputs.preprocessings) == pairs
    again = prepare_inputs(Recipe.from_json(resolved.to_json()), inputs.dataset, resolved.uses_gpu)
    assert list(again.preprocessings) == pairs, "a resumed search has the same space"
    assert again.on_gpu == on_gpu


def test_gpus_are_counted_only_for_auto_and_valid_data(tmp_path: Path) -> None:
    def fail() -> float:
        raise AssertionError

    assert not trains_on_gpu(recipe(gpus_per_trial=0), fail)
    with pytest.raises(UserError, match="data must be an existing folder"):
        load_data(Recipe(data=str(tmp_path / "missing")), lambda *_: None, lambda: trains_on_gpu(recipe(), fail))


@pytest.mark.parametrize(
    ("options", "has_fast_bf16", "expected"),
    [
        ({}, False, "fp32"),
        ({}, True, "bf16-frozen"),
        ({"gpus_per_trial": 0.5}, False, "bf16"),
        ({"precision": "fp32", "gpus_per_trial": 1}, True, "fp32"),
        ({"precision": "bf16"}, False, "bf16"),
    ],
)
def test_auto_precision_is_what_is_fast_here_for_all_nodes_and_sessions(
    options: dict[str, object], has_fast_bf16: bool, expected: str, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.precision.has_fast_bf16", lambda: has_fast_bf16)
    recipe = Recipe.model_validate({"data": str(image_folder), "weights": "none", **options})
    assert inputs_of(recipe).resolve_auto(recipe).precision == expected


@pytest.mark.parametrize(
    ("gpus_per_trial", "num_gpus", "expected"), [("auto", 0, 0.0), ("auto", 2, None), ("0", 2, 0.0), ("0.5", 2, 0.5)]
)
def test_a_gpu_is_used_where_there_is_one_and_its_share_stays_open(
    gpus_per_trial: str, num_gpus: int, expected: float | None, image_folder: Path
) -> None:
    recipe = Recipe.model_validate({"data": str(image_folder), "weights": "none", "gpus_per_trial": gpus_per_trial})
    resolved = inputs_of(recipe, num_gpus).resolve_auto(recipe)
    assert resolved.gpus_per_trial == expected
    assert resolved.precision == ("fp32" if expected == 0 else "bf16")


def test_a_large_data_set_is_validated_on_its_split_in_epochs_and_probes_of_a_part(
    image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuning.search.defaults.MAX_REGRESSION_IMAGES", 20)
    monkeypatch.setattr("tuning.search.defaults.PROBE_IMAGES", (4, 9, 100))
    for module in ("tuning.search.defaults", "tuning.workflows.preflight"):
        monkeypatch.setattr(f"{module}.MIN_EPOCH_IMAGES", 10)
    monkeypatch.setattr("tuning.workflows.preflight.max_val_images", lambda budget_s: 4)
    monkeypatch.setattr("models.precision.has_fast_bf16", lambda: False)
    recipe = Recipe.model_validate({"data": str(image_folder), "weights": "none", "minutes": 0.001})
    inputs = inputs_of(recipe)
    resolved = inputs.resolve_auto(recipe)
    assert (resolved.validation, resolved.images_per_epoch) == ("split", 10)
    num_train = len(inputs.dataset.split("train"))
    assert len(inputs.dataset.split("val")) <= 4
    probes = inputs.search_space(resolved.model_copy(update={"minutes": 5.0})).linear_probes()
    assert {probe["probe_images"] for probe in probes} == {4}
    assert num_train > 10
    whole = inputs.resolve_auto(Recipe.model_validate({"data": str(image_folder), "weights": "none", "trials": 2}))
    assert (whole.validation, whole.images_per_epoch) == ("split", 0)


def test_a_search_on_a_cpu_uses_as_many_training_images_as_its_time_allows(
    make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder({"a": 40, "b": 30})
    complete = load_dataset(str(folder))
    monkeypatch.setattr("tuning.workflows.preflight.max_train_images", lambda budget_s, cores: 20)

    def load(on_gpu: bool = False, limits: dict[SplitName, int] | None = None, **settings: object) -> Dataset:
        recipe = Recipe.model_validate({"data": str(folder), "weights": "none", "minutes": 1, **settings})
        return load_data(recipe, lambda *_: None, lambda: on_gpu, limits=limits)

    part = load()
    assert sum(part.counts()["train"].values()) == 21
    assert part.layout[-1] == "train: 21 of 50 images, drawn by class"
    assert part.split("test") == complete.split("test")
    assert part.fingerprint == complete.fingerprint  # of the user's images: promote and compare need it
    assert load(on_gpu=True, limits=part.limits) == part  # a resumed search uses the same images
    assert load(on_gpu=True) == load(images_per_epoch=0) == load(minutes=None, trials=2) == complete


def test_auto_is_resolved_for_each_variant(image_folder: Path) -> None:
    variants = [
        {"name": "fixed", "settings": {"backbone": "small_cnn", "image_size": "32"}},
        {"name": "open", "settings": {"freeze_fraction": "1"}},
    ]
    recipe = Recipe.model_validate({"data": str(image_folder), "weights": "none", "variants": variants})
    inputs = inputs_of(recipe)
    fixed, left_open = inputs.resolve_auto(recipe).variants
    assert fixed.settings == {"backbone": "small_cnn", "image_size": "32", "truncate": "0"}  # it has few blocks
    auto = {"backbone": ",".join(OFFLINE), "image_size": "48,64,96", "truncate": "0,3"}
    assert left_open.settings == {"freeze_fraction": "1", **auto}
    assert ("small_cnn", 32) in inputs.preprocessings
    assert ("small_cnn", 48) not in inputs.preprocessings


@pytest.mark.parametrize(
    ("median", "sizes"),
    [(1, (48, 64, 96)), (31, (48, 64, 96)), (32, (64, 96, 128)), (128, (64, 96, 128)), (160, (96, 128, 160)),
     (161, (128, 160, 224)), (4000, (128, 160, 224))],
)  # fmt: skip
def test_auto_image_sizes_follow_the_median_image_size(median: int, sizes: tuple[int, ...]) -> None:
    assert auto_image_sizes(median, on_gpu=False) == sizes


@pytest.mark.parametrize(
    ("median", "sizes"),
    [(1, (48, 64, 96)), (224, (128, 160, 224)), (225, (160, 224, 288)), (289, (224, 288, 384)),
     (4000, (224, 288, 384))],
)  # fmt: skip
def test_auto_image_sizes_on_a_gpu_go_beyond_224_px(median: int, sizes: tuple[int, ...]) -> None:
    assert auto_image_sizes(median, on_gpu=True) == sizes


@pytest.mark.parametrize(
    ("precision", "frozen", "trained"),
    [("fp32", "fp32", "fp32"), ("bf16", "bf16", "bf16"), ("bf16-frozen", "bf16", "fp32")],
)
def test_the_precision_applies_to_frozen_and_trained_blocks(precision: str, frozen: str, trained: str) -> None:
    space = SearchSpace(recipe(precision=precision))
    config = space.trial_config(space.default_settings(), {(BACKBONE, 32): Preprocessing(32)})
    assert (config.features.frozen_precision, config.fit.trained_precision) == (frozen, trained)
