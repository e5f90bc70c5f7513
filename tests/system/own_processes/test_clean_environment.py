"""The champion in an environment with nothing but the model's own requirements."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import skip_without
from tests.models.conftest import CLASSES, Packaged, make_package
from tests.models.model_server import MODEL_URI, clean_environment, register_champion
from tests.system.own_processes.wheels import install_wheels

MAX_ENVIRONMENT_MB = 500
CLIENT = """
import importlib.util, json, os, pathlib, sys, time
started = time.perf_counter()
import mlflow
importable = [name for name in ("torch", "timm", "ray", "data", "models", "tuning") if importlib.util.find_spec(name)]
assert not importable, importable
model = mlflow.pyfunc.load_model(sys.argv[1])
content = pathlib.Path(sys.argv[2]).read_bytes()
frame = model.predict([content, content])
seconds = time.perf_counter() - started
assert os.listdir() == []
print(json.dumps({"rows": frame.to_dict("records"), "seconds": seconds}))
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Packaged:
    from data.loading.batch_config import BatchConfig
    from data.preprocessing import Preprocessing
    from models.trial_config import FitConfig, NetworkConfig, TrialConfig

    config = TrialConfig(
        seed=0,
        preprocessing=Preprocessing(32),
        batches=BatchConfig(),
        network=NetworkConfig(backbone="timm/test_efficientnet", weights="none"),
        fit=FitConfig(),
    )
    return make_package(tmp_path_factory.mktemp("packaged"), config)


@pytest.fixture(scope="module")
def clean_python(package: Packaged, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Python of a new environment with the model's requirements, installed from local wheels."""
    wheels = Path(os.environ.get("FREEZELINE_WHEELS", ""))
    if not list(wheels.glob("*.whl")):
        skip_without("the folder of wheels that FREEZELINE_WHEELS names and tests.system.own_processes.wheels fills")
    folder = tmp_path_factory.mktemp("clean")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    install_wheels(folder / "bin" / "python", wheels, package.model / "requirements.txt")
    return folder / "bin" / "python"


@pytest.fixture
def champion_server(package: Packaged, server_uri: str) -> str:
    """Return the URI of an MLflow server with the champion; the server also proxies its artifacts."""
    register_champion(server_uri, package.folder)
    return server_uri


@pytest.mark.timeout(900)
def test_the_champion_predicts_in_a_clean_environment_from_a_server_and_from_a_folder(
    package: Packaged, clean_python: Path, champion_server: str, tmp_path: Path
) -> None:
    for model, environment in ((MODEL_URI, {"MLFLOW_TRACKING_URI": champion_server}), (str(package.model), {})):
        command = [str(clean_python), "-I", "-c", CLIENT, model, str(package.image_file)]
        done = subprocess.run(
            command, cwd=tmp_path, env=clean_environment(**environment), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        output = json.loads(done.stdout)
        probabilities = np.array([[row[name] for name in CLASSES] for row in output["rows"]])
        assert np.abs(probabilities - package.expected(2)).max() < 1e-4
        print(f"{model}: first prediction after {output['seconds']:.1f} s")


def test_the_clean_environment_is_small(clean_python: Path) -> None:
    site_packages = clean_python.parents[1] / "lib"
    size_mb = sum(file.stat().st_size for file in site_packages.rglob("*") if file.is_file()) / 1e6
    print(f"installed: {size_mb:.0f} MB")
    assert size_mb < MAX_ENVIRONMENT_MB
    assert not list(site_packages.rglob("torch"))
