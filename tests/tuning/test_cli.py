"""The command line: help, wrong options, exit statuses, and imports that wait until they are needed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import NoReturn

import pytest
from pydantic import BaseModel

from data.errors import SearchError, UserError
from tests.tuning.command_line import Capture, error_lines
from tuning import __version__, cli
from tuning.__main__ import main
from tuning.cli import audit, compare, evaluate
from tuning.cli.parser import parse
from tuning.recipe.options import option_fields

ROOT = Path(__file__).parents[2]


# --- help ---


def test_a_call_without_a_command_prints_the_overview_and_fails(capsys: Capture) -> None:
    assert main([]) == 2
    assert "usage: freezeline COMMAND" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["--help", "-h", "help"])
def test_the_overview_lists_every_command(word: str, capsys: Capture) -> None:
    assert main([word]) == 0
    commands = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert commands == list(cli.SUMMARIES)
    assert {"tune", "train", "evaluate", "promote", "predict"} <= set(commands)


@pytest.mark.parametrize("name", cli.SUMMARIES)
@pytest.mark.parametrize("arguments", [("{}", "--data", "nowhere", "--help"), ("help", "{}")])
def test_the_help_of_a_command_has_its_options_and_an_example(
    name: str, arguments: Sequence[str], capsys: Capture
) -> None:
    assert main([argument.format(name) for argument in arguments]) == 0
    page = " ".join(capsys.readouterr().out.split())
    command = cli.load(name)
    assert f"usage: freezeline {name} " in page
    assert cli.SUMMARIES[name][1:] in page
    for option, field in option_fields(command.Options).items():
        assert f"--{option.replace('_', '-')}" in page
        assert str(field.description).replace("-", "") in page.replace("- ", "").replace("-", "")
    assert command.EXAMPLE.startswith(f"freezeline {name} ")
    assert command.EXAMPLE in page


def test_the_version_is_that_of_the_package(capsys: Capture) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"freezeline {__version__}\n"
    assert metadata.version("freezeline") == __version__


@pytest.mark.parametrize("shell", cli.SHELLS)
def test_a_completion_script_knows_the_commands_and_their_options(shell: str, capsys: Capture) -> None:
    assert main(["--print-completion", shell]) == 0
    script = capsys.readouterr().out
    for word in (*cli.SUMMARIES, "max-latency-ms", "no-sweep"):
        assert word in script


def test_a_folder_without_a_command_is_an_error_with_the_command_to_use(tmp_path: Path, capsys: Capture) -> None:
    assert error_lines(capsys, str(tmp_path)) == [
        f"a command must come first, got '{tmp_path}'; to search on this data, use freezeline tune {tmp_path}."
    ]


@pytest.mark.parametrize("shadow", ["data.py", "models/__init__.py"])
def test_a_users_own_module_of_the_same_name_is_named_in_one_sentence(shadow: str, tmp_path: Path) -> None:
    file = tmp_path / shadow
    file.parent.mkdir(exist_ok=True)
    file.touch()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for arguments in (("-m", "tuning", "--version"), ("-c", "import freezeline")):
        done = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        name = Path(shadow).parts[0].removesuffix(".py")
        assert f"Freezeline needs its own package {name!r}, but Python finds {file}" in done.stderr.splitlines()[-1]
        assert done.returncode == (2 if arguments[0] == "-m" else 1)
    assert len(done.stderr.splitlines()) < 10


def test_a_folder_of_images_named_data_is_no_module(tmp_path: Path) -> None:
    (tmp_path / "data" / "cats").mkdir(parents=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tuning", "--version"]
    assert subprocess.run(command, cwd=tmp_path, env=environment, check=False).returncode == 0


def test_every_module_in_cli_is_a_command() -> None:
    modules = {path.stem for path in (ROOT / "tuning" / "cli").glob("*.py")} - {"__init__", "parser"}
    assert modules == set(cli.SUMMARIES)
    assert len(modules) >= 5


# --- imports ---

HEAVY_IMPORTS = """
import sys, time
from tuning.__main__ import main
status = main(sys.argv[1:])
heavy = {"torch", "ray", "mlflow", "optuna", "timm", "pandas", "sklearn", "albumentations", "numpy", "PIL"}
heavy &= set(sys.modules)
print(sorted(heavy), time.process_time(), file=sys.stderr)
sys.exit(status)
"""


def run_and_list_imports(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a new process; the last line on standard error lists its heavy imports and its CPU time."""
    command = [sys.executable, "-c", HEAVY_IMPORTS, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", [("--help",), *((name, "--help") for name in cli.SUMMARIES)])
def test_help_imports_nothing_heavy_and_is_fast(arguments: Sequence[str]) -> None:
    process = run_and_list_imports(*arguments)
    assert process.returncode == 0
    imports, _, processor_s = process.stderr.strip().rpartition(" ")
    assert imports == "[]"
    assert float(processor_s) < 1


@pytest.mark.parametrize("arguments", [("--help",), ("tune", "--help")])
def test_a_closed_pipe_ends_a_command_without_a_traceback(arguments: Sequence[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)  # as head does once it has its lines
    result = subprocess.run(
        [sys.executable, "-m", "tuning", *arguments], check=False, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE
    )
    os.close(writer)
    assert (result.returncode, result.stderr) == (1, b"")


def test_an_option_may_be_written_as_in_messages_and_in_python(
    tmp_path: Path, image_folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["audit", str(image_folder), "near_duplicates=off", "layout=classes"]) == 0
    assert main(["audit", str(image_folder), "layout=class"]) == 2
    assert "layout" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    image_folder.rename("images=1")
    assert main(["audit", "images=1"]) == 0  # an existing path is no option


def test_a_misspelled_option_is_reported_before_heavy_imports() -> None:
    process = run_and_list_imports("tune", "--trails", "5")
    assert process.returncode == 2
    message, imports = process.stderr.splitlines()
    assert message == "tune: there is no option --trails; did you mean trials?"
    assert imports.startswith("[] ")


def test_an_audit_imports_no_library_that_it_does_not_need(image_folder: Path) -> None:
    process = run_and_list_imports("audit", "--data", str(image_folder))
    assert (process.returncode, process.stderr.rpartition(" ")[0]) == (0, "['PIL', 'numpy']")


def test_the_package_can_be_run_as_a_module() -> None:
    command = [sys.executable, "-m", "tuning", "tnue"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr.strip() == "there is no command 'tnue'; did you mean tune?"


# --- wrong options ---

RUN_OR_VERSION = "promote: either --run RUN_ID, or --name NAME with --version N, must be given, got {}; use one form."


def test_an_unknown_command_is_an_error(capsys: Capture) -> None:
    assert error_lines(capsys, "zebra") == ["there is no command 'zebra'; see freezeline --help."]


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (("tune", "--trials", "0"), ["tune: trials must be at least 1, got '0'."]),
        (("tune", "--trials", "abc"), ["tune: trials must be a whole number, got 'abc'."]),
        (("tune", "--image_size", "0"), ["tune: image_size must be a whole number from 16 to 1024, got '0'."]),
        (("tune", "--drop-out", "0"), ["tune: there is no option --drop_out; did you mean dropout?"]),
        (("tune", "--trails", "5", "--trials", "0"),
         ["tune: there is no option --trails; did you mean trials?", "tune: trials must be at least 1, got '0'."]),
        (("train", "--max_epochs", "0"), ["train: max_epochs must be at least 1, got '0'."]),
        (("evaluate", "--split", "tset", "--model", "m"),
         ["evaluate: split must be 'test', 'val', 'train' or 'all', got 'tset'; did you mean test?"]),
        (("promote", "--run", ""), [RUN_OR_VERSION.format("none of them")]),
        (("promote", "--run", "a", "--name", "pets", "--version", "1"),
         [RUN_OR_VERSION.format("--run --name --version")]),
        (("promote", "--name", "pets"), [RUN_OR_VERSION.format("--name")]),
        (("rollback", "--name", "pets"),
         ["rollback: --reason must be given: the reason, recorded in the champion history."]),
        (("predict", "--format", "xml", "--model", "m", "--files", "f"),
         ["predict: format must be 'json' or 'csv', got 'xml'."]),
    ],
)  # fmt: skip
def test_a_wrong_option_is_one_message(arguments: Sequence[str], messages: list[str], capsys: Capture) -> None:
    assert error_lines(capsys, *arguments) == messages


@pytest.mark.parametrize(
    ("options", "name", "required"),
    [
        (audit.Options, "json_file", ()),
        (audit.Options, "sheets", ()),
        (evaluate.Options, "json_file", ("--model", "m")),
        (evaluate.Options, "report_file", ("--model", "m")),
        (compare.Options, "chart", ("--runs", "a,b")),
    ],
)
def test_a_tilde_in_the_path_of_an_output_is_the_home_folder(
    options: type[BaseModel], name: str, required: Sequence[str]
) -> None:
    option = options.model_fields[name].alias or name
    assert getattr(parse(options, [f"--{option}", "~/a.png", *required]), name) == str(Path.home() / "a.png")


def test_all_missing_options_are_reported_together(capsys: Capture) -> None:
    lines = error_lines(capsys, "predict")
    assert [line.split(" must be given")[0] for line in lines] == ["predict: --model", "predict: --files"]


@pytest.mark.parametrize(
    ("error", "status", "stderr"),
    [
        (UserError("lr is wrong.", "so is data"), 2, "tune: lr is wrong.\ntune: so is data.\n"),
        (SearchError("no trial finished"), 1, "tune: no trial finished\n"),
        (KeyboardInterrupt(), 130, "tune: stopped.\n"),
    ],
)
def test_each_kind_of_error_has_its_exit_status(
    error: BaseException, status: int, stderr: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: object) -> NoReturn:
        raise error

    monkeypatch.setattr(cli, "run", run)
    assert main(["tune"]) == status
    assert capsys.readouterr().err == stderr
