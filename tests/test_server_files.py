"""mlflow-compose.yml, Dockerfile and server scripts: valid, pinned, local by default and without passwords."""

from __future__ import annotations

import json
import re
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from server.secrets import fill_secrets
from tests.system.team_server import services
from tests.test_project_files import ROOT, pins

COMPOSE = ROOT / "mlflow-compose.yml"
EXAMPLE = (ROOT / ".env.example").read_text()
ADMIN = "MLFLOW_ADMIN_PASSWORD"
SERVICES_WITH_IMAGE = {"postgres", "store", "bucket", "migrate", "mlflow"}


def specification() -> dict[str, Any]:
    """Return the schema of the Compose specification that check-jsonschema vendors."""
    file = resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    schema: dict[str, Any] = json.loads(file.read_text())
    return schema


def schema_errors(compose: object) -> list[str]:
    validator = jsonschema.validators.validator_for(specification())(specification())
    return [error.message for error in validator.iter_errors(compose)]


def test_the_compose_file_matches_the_compose_specification() -> None:
    compose = yaml.safe_load(COMPOSE.read_text())
    assert schema_errors(compose) == []
    compose["services"]["mlflow"]["portz"] = []
    assert schema_errors(compose) != []


def test_ports_are_published_on_the_loopback_address_only() -> None:
    ports = [port for service in services().values() for port in service.get("ports", ())]
    assert ports == ["127.0.0.1:5000:5000"]


def test_every_image_is_pinned_and_the_server_has_the_pinned_mlflow() -> None:
    images = {name: service["image"] for name, service in services().items() if "build" not in service}
    assert set(images) == SERVICES_WITH_IMAGE
    assert all(re.search(r":v?\d+\.\d+", image) for image in images.values())
    pinned_image = f"ghcr.io/mlflow/mlflow:v{str(pins()['mlflow'].specifier)[2:]}-full"
    assert {images[name] for name in ("bucket", "migrate", "mlflow")} == {pinned_image}


def test_permanent_services_have_a_healthcheck_a_restart_policy_and_volumes() -> None:
    for name, service in services().items():
        if name in {"postgres", "store", "mlflow"}:
            assert service["restart"] == "unless-stopped"
            assert service["healthcheck"]["test"]
    volumes = set(yaml.safe_load(COMPOSE.read_text())["volumes"])
    used = {mount.partition(":")[0] for service in services().values() for mount in service.get("volumes", ())}
    assert volumes == {mount for mount in used if not mount.startswith(".")}


def test_the_server_starts_after_its_tables_and_its_bucket_exist() -> None:
    depends_on = services()["mlflow"]["depends_on"]
    assert depends_on == {name: {"condition": "service_completed_successfully"} for name in ("migrate", "bucket")}


def test_the_compose_file_has_no_password_and_the_example_has_every_variable() -> None:
    text = COMPOSE.read_text()
    required = set(re.findall(r"\$\{(\w+):\?", text))
    assert required == {"POSTGRES_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY", "SERVER_SECRET_KEY"}
    assert set(re.findall(r"^(\w+)=$", EXAMPLE, re.MULTILINE)) == required
    optional = set(re.findall(r"\$\{(\w+)", text)) - required
    assert optional <= set(re.findall(r"^# (\w+)=", EXAMPLE, re.MULTILINE))
    with pytest.raises(KeyError, match="POSTGRES_PASSWORD"):
        services(POSTGRES_PASSWORD="")


def test_defaults_in_the_example_match_the_compose_file() -> None:
    defaults = dict(re.findall(r"\$\{(\w+):-([^}]+)\}", COMPOSE.read_text()))
    examples = dict(re.findall(r"^# (\w+)=(\S+)$", EXAMPLE, re.MULTILINE))
    shared = defaults.keys() & examples.keys()
    assert shared == {"DEVICE", "MLFLOW_LISTEN", "MLFLOW_PORT", "MLFLOW_HOSTS", "IMAGES"}
    assert {name: examples[name] for name in shared} == {name: defaults[name] for name in shared}


def test_one_variable_enables_logins() -> None:
    assert "--app-name" not in services()["mlflow"]["command"]
    mlflow = services(**{ADMIN: "twelve letters"})["mlflow"]
    assert mlflow["command"].rstrip().endswith("--app-name basic-auth")
    assert "twelve letters" in mlflow["environment"].values()


def test_a_new_env_file_has_different_random_passwords() -> None:
    first, second = fill_secrets(EXAMPLE), fill_secrets(EXAMPLE)
    pairs = re.findall(r"^(\w+)=([0-9a-f]{48})$", first, re.MULTILINE)
    assert len(pairs) == len({password for _, password in pairs}) == 4
    assert first != second


# --- Dockerfile ---


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions with their arguments; lines are joined and comments removed."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    parts = [line.partition(" ") for line in joined.splitlines() if line.strip()]
    return [(name, arguments.strip()) for name, _, arguments in parts]


def test_the_image_has_the_python_of_conda_yaml_and_the_pinned_packages() -> None:
    conda = yaml.safe_load((ROOT / "conda.yaml").read_text())["dependencies"][0].removeprefix("python=")
    steps = instructions()
    assert steps[0][0] == "FROM"
    assert steps[0][1].startswith(f"python:{conda}-")
    runs = " ".join(arguments for name, arguments in steps if name == "RUN")
    assert "pip install -r requirements.txt" in runs
    assert not re.search(r"==\d", runs), "versions are pinned only in requirements.txt"


def test_the_image_installs_packages_before_the_code_and_does_not_run_as_root() -> None:
    steps = instructions()
    names = [" ".join(step) for step in steps]
    packages, code = names.index("COPY requirements.txt ."), names.index("COPY --chown=freezeline . .")
    assert packages < names.index("RUN pip install -r requirements.txt") < code
    assert steps.index(("USER", "freezeline")) > code
    assert ("ARG", "DEVICE=cpu") in steps


def test_the_image_and_the_search_service_run_the_tune_entry_point() -> None:
    entry = json.loads(dict(instructions())["ENTRYPOINT"])
    assert entry == ["mlflow", "run", "/app", "-e", "tune", "--env-manager", "local"]
    search = services()["search"]
    assert search["profiles"] == ["search"]
    assert "entrypoint" not in search
    assert "./photos:/images:ro" in search["volumes"]
    home = next(arguments for name, arguments in instructions() if "FREEZELINE_HOME" in arguments)
    assert f"FREEZELINE_HOME={search['volumes'][1].partition(':')[2]} " in home


def test_the_image_has_the_command_that_a_search_prints() -> None:
    steps = instructions()
    assert steps.index(("RUN", "pip install --no-deps --editable .")) > steps.index(("COPY", "--chown=freezeline . ."))
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert not {"pyproject.toml", "README.md", "requirements.txt"} & set(ignored), "the installation reads them"


def test_secrets_and_the_virtual_environment_are_not_in_the_image() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {".env", ".venv", ".git"} <= set(ignored)


# --- the Makefile and the scripts ---


@pytest.mark.parametrize("target", ["server", "server-down", "server-logs"])
def test_make_has_each_server_target(target: str) -> None:
    commands = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "docker compose -f mlflow-compose.yml" in commands


@pytest.mark.parametrize("script", ["backup.sh", "restore.sh"])
def test_the_scripts_are_bash_and_stop_at_the_first_error(script: str) -> None:
    path = ROOT / "server" / script
    subprocess.run(["bash", "-n", str(path)], check=True)
    assert "set -euo pipefail" in path.read_text()
    assert path.stat().st_mode & 0o111
    result = subprocess.run([str(path)], capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "give the folder" in result.stderr


def test_the_server_package_has_the_expected_modules() -> None:
    modules = {path.name for path in Path(ROOT / "server").glob("*.py")}
    assert modules == {"__init__.py", "artifact_backup.py", "secrets.py"}
