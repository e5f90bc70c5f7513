"""Freezeline in Python: search, train, evaluate and predict from any folder, also in a notebook.

    import freezeline as fl

    networks = ["tf_efficientnet_lite0", "tf_efficientnet_lite1"]
    result = fl.tune("photos/", minutes=20, backbone=networks, lr=(1e-4, 1e-2))
    result.leaderboard                                # a pandas DataFrame
    result.model.predict(["a.jpg", "b.jpg"])          # another one

The functions take the options of ``freezeline COMMAND --help`` as keyword arguments. Of a searched setting, a list is a
choice, and a tuple ``(low, high)`` or ``{"low": …, "high": …}`` is a range. Nothing is printed unless ``verbose=True``.
All errors are subclasses of ``FreezelineError``; those that the caller can fix are ``UserError``.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, ParamSpec, TypeVar, overload

from tuning import __version__, shadowing_message

if message := shadowing_message():
    raise RuntimeError(message)

from data.errors import (
    BackboneError,
    DataError,
    FreezelineError,
    SearchError,
    SettingError,
    TrackingError,
    UserError,
    did_you_mean,
)

if TYPE_CHECKING:
    from pydantic import BaseModel

    from data.audit.report import Audit
    from tuning.reporting.content import EvaluationContent
    from tuning.ui.session import Recorder
    from tuning.workflows.context import Context
    from tuning.workflows.results import Model, Predictions, PromotionResult, SearchResult, TrainingResult
    from tuning.workflows.tune import Plan

__all__ = [
    "BackboneError",
    "DataError",
    "FreezelineError",
    "SearchError",
    "SettingError",
    "TrackingError",
    "UserError",
    "__version__",
    "audit",
    "evaluate",
    "load",
    "load_result",
    "predict",
    "promote",
    "resume",
    "train",
    "tune",
]

PathLike = str | Path
COMMAND_LINE_ONLY = {"quiet", "events"}  # here, ``verbose``
Arguments = ParamSpec("Arguments")
ResultT = TypeVar("ResultT")


def _refuse_unknown_keywords(function: Callable[Arguments, ResultT]) -> Callable[Arguments, ResultT]:
    """Return a function that raises a SettingError for unknown keywords, as those with ``**options`` do."""
    known = list(inspect.signature(function).parameters)

    @functools.wraps(function)
    def call(*args: Arguments.args, **options: Arguments.kwargs) -> ResultT:
        if problems := [_unknown_option(name, known) for name in options if name not in known]:
            raise SettingError(*problems)
        return function(*args, **options)

    return call


@overload
def tune(data: PathLike = "demo", *, verbose: bool = False, dry_run: Literal[True], **options: object) -> Plan: ...


@overload
def tune(data: PathLike = "demo", *, verbose: bool = False, **options: object) -> SearchResult: ...


def tune(data: PathLike = "demo", *, verbose: bool = False, **options: object) -> SearchResult | Plan:
    """Search for the best fine-tune of a classifier for the images in ``data``, and register it.

    With ``dry_run=True``, validate everything and return the plan, which can be printed, without starting anything.

    Raises:
        UserError: with all problems, before any trial starts.
        SearchError: the search ended without a model.
        KeyboardInterrupt: the search was interrupted; ``resume`` continues it.
    """
    from tuning.recipe.loader import load_recipe
    from tuning.recipe.schema import Recipe

    texts, problems = _texts(Recipe, {"data": data, **options})
    recipe = load_recipe(texts, problems)
    with _command(verbose) as (context, recorder):
        from tuning.workflows.tune import make_plan, run_search

        if recipe.dry_run:
            return make_plan(recipe, context)
        run_search(recipe, context)
        return _search_result(recorder)


def resume(run_id: str, *, verbose: bool = False, **options: object) -> SearchResult:
    """Continue the search with the parent run ``run_id``, with the rest of its budget or ``minutes`` or ``trials``.

    Raises:
        UserError: the state or the images are missing or have changed.
        SearchError: the search ended without a model.
    """
    from tuning.cli.parser import validate
    from tuning.recipe.schema import ResumeRequest

    request = validate(ResumeRequest, *_texts(ResumeRequest, {"run": run_id, **options}))
    with _command(verbose) as (context, recorder):
        from tuning.workflows.resume import resume as resume_search

        resume_search(request, context)
        return _search_result(recorder)


def train(data: PathLike = "demo", *, verbose: bool = False, **options: object) -> TrainingResult:
    """Train one configuration, or with ``run`` or ``model`` that of a finished trial or registered version again.

    Raises:
        UserError: with all problems, before the training starts.
    """
    from tuning.cli.parser import validate
    from tuning.cli.train import Options, check_options

    again = options.get("run") or options.get("model")
    settings = validate(Options, *_texts(Options, options if again else {"data": data, **options}))
    check_options(settings)
    with _command(verbose) as (context, recorder):
        from tuning.workflows.results import TrainingResult
        from tuning.workflows.train import train as train_one

        train_one(settings, settings.run, settings.model, context)
        if recorder.candidate is None:
            raise SearchError("the training ended without a model")
        return TrainingResult(recorder.candidate)


@_refuse_unknown_keywords
def evaluate(model: str, data: PathLike = "demo", split: str = "all") -> EvaluationContent:
    """Evaluate a packaged model on all labeled images, or on one split (``test``, ``val``, ``train``).

    Raises:
        UserError: the model or the data set cannot be used.
    """
    from tuning.cli.evaluate import Options
    from tuning.cli.parser import validate

    options = validate(Options, *_texts(Options, {"model": model, "data": data, "split": split}))
    with _environment():
        from tuning.registry.candidate_store import load_model
        from tuning.workflows.evaluate import evaluate as evaluate_model
        from tuning.workflows.evaluate import load_evaluation_data

        packaged = load_model(options.model)
        return evaluate_model(packaged, options.model, load_evaluation_data(options, options.split), options.split)


@_refuse_unknown_keywords
def predict(model: str, files: PathLike | Sequence[PathLike], reject: float = 1.0) -> Predictions:
    """Classify images: files, folders (all files in them) or patterns such as ``new/*.jpg``.

    The label of an image whose novelty is above ``reject`` is empty; 0.99 keeps 99% of images like those of training.

    Raises:
        UserError: the model cannot be used, or no file matches.
    """
    names = [files] if isinstance(files, (str, Path)) else files
    with _environment():
        from models.packaging.inference import predict_files
        from tuning.cli.predict import find_files
        from tuning.registry.candidate_store import load_model
        from tuning.workflows.results import Predictions

        paths = [path for name in names for path in find_files(str(name))]
        return Predictions(tuple(predict_files(load_model(model), paths, reject=reject)))


@_refuse_unknown_keywords
def load(model: str) -> Model:
    """Return a packaged model, whose ``predict`` takes paths, bytes, PIL images or arrays and returns a DataFrame.

    Raises:
        TrackingError: there is no such model.
    """
    with _environment():
        from tuning.workflows.results import Model

        return Model.load(model)


@_refuse_unknown_keywords
def load_result(run_id: str) -> SearchResult:
    """Return the result of the search with the parent run ``run_id``, also one of the command line.

    Raises:
        TrackingError: this machine has no such search, or it has no model yet.
    """
    with _environment():
        from tuning.workflows.results import SearchResult

        return SearchResult.load(run_id)


@_refuse_unknown_keywords
def promote(run_id: str = "", *, name: str = "", version: int | None = None, force: str = "") -> PromotionResult:
    """Decide whether the model of a search, a training or a registered version becomes champion.

    Raises:
        UserError: there is no such model, or its images have changed.
    """
    from tuning.cli.parser import validate
    from tuning.cli.promote import Options, promote_candidate

    given = {"run": run_id, "name": name, "version": version, "force": force}
    options = validate(Options, *_texts(Options, given))
    with _environment():
        from tuning.workflows.results import PromotionResult

        return PromotionResult(*promote_candidate(options))


@_refuse_unknown_keywords
def audit(data: PathLike) -> Audit:
    """Return the problems of a data set, file by file; nothing is changed.

    Raises:
        DataError: the data set cannot be read.
    """
    from data.audit.report import audit as audit_dataset
    from data.load_dataset import load_dataset

    return audit_dataset(load_dataset(str(data)))


def _search_result(recorder: Recorder) -> SearchResult:
    from tuning.workflows.results import SearchResult

    return SearchResult.load(recorder.run_id)


def _texts(model: type[BaseModel], options: Mapping[str, object]) -> tuple[dict[str, str], list[str]]:
    """Return the options as a user types them, and a message for each that is unknown or cannot be converted.

    None and an empty text are the same as an omitted option.
    """
    from tuning.recipe.options import option_fields

    known = [name for name in option_fields(model) if name not in COMMAND_LINE_ONLY]
    texts: dict[str, str] = {}
    problems: list[str] = []
    for name, value in options.items():
        if name not in known:
            problems.append(_unknown_option(name, known))
            continue
        try:
            text = "" if value is None else _text(name, value)
        except SettingError as error:
            problems += error.problems
            continue
        texts |= {name: text} if text else {}
    return texts, problems


def _unknown_option(name: str, known: Sequence[str]) -> str:
    hint = did_you_mean(name, known) or f"; options: {', '.join(known)}."
    return f"there is no option {name!r}{hint}"


def _text(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, Mapping):
        if set(value) != {"low", "high"}:
            raise SettingError(f"{name} must be a range with low and high, got {dict(value)}; write (low, high)")
        value = (value["low"], value["high"])
    if isinstance(value, tuple):
        if len(value) != 2:
            raise SettingError(f"{name} must be a range (low, high), got {value}; write a list for a choice")
        return f"{value[0]}..{value[1]}"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


@contextmanager
def _environment() -> Iterator[None]:
    """Context manager: set the environment variables of a command, and restore those of the caller on exit.

    Those of Ray's authentication stay: Ray reads them once per process.
    """
    from tuning.common.environment import configure_environment

    before = dict(os.environ)
    configure_environment()
    _import_tqdm()
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            if not name.startswith("RAY_AUTH_"):
                del os.environ[name]
        os.environ.update(before)


def _import_tqdm() -> None:
    """Import tqdm, which libraries use, without its warning that a notebook has no ipywidgets."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "IProgress not found")
        importlib.import_module("tqdm.autonotebook")


@contextmanager
def _command(verbose: bool) -> Iterator[tuple[Context, Recorder]]:
    """Context manager: yield the context of a search or training, and what its events have recorded.

    Raises:
        SettingError: this is not the main thread, in which Ray Tune must run.
    """
    from tuning.common.signals import SignalHandler
    from tuning.ui.session import open_recorded_bus

    if threading.current_thread() is not threading.main_thread():
        raise SettingError("a search must run in the main thread, got another one; start a process for it")
    started_s = time.time()
    with _environment(), open_recorded_bus(verbose) as (bus, recorder):
        from tuning.workflows.context import Context

        yield Context(bus, SignalHandler(takes_over=False), started_s), recorder
