"""Starting Ray quietly, or joining the cluster that ``RAY_ADDRESS`` names."""

from __future__ import annotations

import logging
import os
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from data.errors import SearchError, SettingError, last_line
from data.home import state_dir

if TYPE_CHECKING:
    from tuning.recipe.schema import Recipe

REPOSITORY = Path(__file__).resolve().parents[2]
START_ATTEMPTS = 2  # of Ray, before it is given up

# Read by Ray when it is imported or started. Its progress tables, usage reports, default loggers (3 ms instead of
# 10 for a report) and warnings of its own migrations are no news to our user.
ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a trial without an accelerator must not see one
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # tuning.common.signals has its own, for SIGTERM too
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial that fails in its first epoch has no metric
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # its snapshots are never read: the ledger is the truth
    "TUNE_MAX_PENDING_TRIALS_PG": "1000000",  # workers start side by side; how many, the course says
}
# What a worker needs beyond what it inherits; the pictures and threads of a trial are its own affair.
WORKER_ENVIRONMENT = {"NO_ALBUMENTATIONS_UPDATE": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}

# What every trial imports: seconds, which a worker has while the search is still being prepared.
TRIAL_MODULES = (
    "ray.tune",
    "tuning.search.trial_worker",
    "models.training.checkpoint",
    "models.features.feature_cache",
    "models.training.loop",
)

# Of this project's folder, what a cluster's workers don't need.
RUNTIME_ENV_EXCLUDES = [".venv", ".git", "tests", "docs", "benchmarks", "mlruns", "mlartifacts", "*.db", "*.db-*"]


def available_cores() -> int:
    """Return how many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def concurrency(recipe: Recipe, resources: Mapping[str, float]) -> int:
    """Return how many trials run at once: what was asked for, else what Ray's ``resources`` carry; at least one."""
    carried = resources.get("CPU", 0.0) // recipe.cpus_per_trial
    if recipe.gpus_per_trial:
        carried = min(carried, resources.get("GPU", 0.0) // recipe.gpus_per_trial)
    return recipe.max_concurrent or max(1, int(carried))


class RayRuntime:
    """Ray of this process, or the cluster of ``RAY_ADDRESS``: it starts beside what else there is to do.

    Ray opens ports on every interface whatever it is told, so token authentication is on, with a token that only
    this search knows where the user has set none.
    """

    def __init__(self, recipe: Recipe | None = None) -> None:
        """Take the recipe whose trials its first workers are made ready for; with none they are for anything."""
        self._recipe = recipe
        self._thread: threading.Thread | None = None
        self._ready, self._closing = threading.Event(), threading.Event()
        self._error: Exception | None = None
        self._owns_ray = False
        self._cleanup = ExitStack()

    def start_async(self) -> None:
        """Begin to start it, if that was not done before; returns at once."""
        if self._thread is not None:
            return
        for name, value in (ENVIRONMENT | WORKER_ENVIRONMENT).items():
            os.environ.setdefault(name, value)
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        self._address = os.environ.get("RAY_ADDRESS") or "local"
        if self._address == "local":
            if os.environ["RAY_AUTH_MODE"] == "token" and "RAY_AUTH_TOKEN_PATH" not in os.environ:
                os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
            self._cleanup.enter_context(temporary_env(self._local_environment()))
        self._thread = threading.Thread(target=self._run, name="ray", daemon=True)
        self._thread.start()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within: it is there; at the end it is ended.

        Raises:
            SearchError: it does not start, or the cluster does not answer.
        """
        self.start_async()
        try:
            self._ready.wait()
            if self._error is not None:
                raise self._error
            yield
        finally:
            self.close()

    def close(self) -> None:
        """End it, if it was begun."""
        if self._thread is None:
            return
        self._ready.wait()
        if self._owns_ray:
            import ray

            ray.shutdown()
            self._owns_ray = False
        self._closing.set()
        self._thread.join()
        self._cleanup.close()

    def _local_environment(self) -> Mapping[str, str]:
        """Return what the workers on this machine inherit from this process, beyond what it has itself."""
        path = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
        # By default Ray ends its first workers when Tune reserves their cores, and starts others for the same trials.
        kept = {"RAY_num_workers_soft_limit": str(available_cores())}
        environment = {"FREEZELINE_HOME": str(state_dir()), "PYTHONPATH": path, **kept}
        # Ray starts a worker for each core beforehand. Where a trial has several, or an accelerator, most would wait
        # for nothing with hundreds of MB.
        if self._recipe is not None and concurrency(self._recipe, {"CPU": available_cores()}) >= available_cores():
            environment["RAY_preload_python_modules"] = ",".join(TRIAL_MODULES)
        return environment

    def _run(self) -> None:
        """Start it, and stay: Linux ends Ray's processes with the thread that started them."""
        try:
            import ray

            for name in ("ray", "ray.tune", "ray.train", "ray.air"):
                logging.getLogger(name).setLevel(logging.CRITICAL)
            if not ray.is_initialized():
                _start(self._address)
                self._owns_ray = True
        except Exception as error:  # raised where it is waited for
            self._error = error
        finally:
            self._ready.set()
        self._closing.wait()


@contextmanager
def ray_running() -> Iterator[None]:
    """Within: Ray is there."""
    with closing(RayRuntime()) as ray, ray.running():
        yield


def cluster_resources() -> Mapping[str, float]:
    """Return what the Ray that was started has in all its nodes now: CPU, GPU, ..."""
    import ray

    found: Mapping[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return found


def check_shared_filesystem(folder: Path) -> None:
    """Check that every node of a cluster sees what this process writes into ``folder``: checkpoints go there.

    Raises:
        SettingError: one doesn't; the sentence names it.
    """
    if not os.environ.get("RAY_ADDRESS"):
        return
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    word = secrets.token_hex(8)
    file = folder / f".shared-{word}"
    file.write_text(word)

    @ray.remote(num_cpus=0)
    def sees(path: str) -> str:
        return Path(path).read_text() if Path(path).exists() else ""

    try:
        nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        pinned = (NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes)
        answers = ray.get([sees.options(scheduling_strategy=node).remote(str(file)) for node in pinned])
        blind = sorted(
            node["NodeManagerHostname"] for node, answer in zip(nodes, answers, strict=True) if answer != word
        )
    finally:
        file.unlink(missing_ok=True)
    if blind:
        raise SettingError(
            f"FREEZELINE_HOME must be a folder that all nodes of the cluster share, but {', '.join(blind)} "
            f"{'does' if len(blind) == 1 else 'do'} not see {folder}; set it to one on a network file system"
        )


def _start(address: str) -> None:
    """Start or join Ray. It gives itself 30 s, which a busy machine may exceed: so a second time where it failed."""
    import ray

    for left in reversed(range(START_ATTEMPTS)):
        try:
            _init(address)
            return
        except Exception as error:  # a bare one, where a node took too long
            ray.shutdown()
            if not left:
                raise SearchError(
                    f"Ray must start, or the cluster of RAY_ADDRESS must answer, but Ray says: {last_line(error)}; "
                    "give the machine less to do, or correct RAY_ADDRESS, and start again"
                ) from error


def _init(address: str) -> None:
    import ray

    start = partial(
        ray.init, address=address, log_to_driver=False, logging_level=logging.CRITICAL, configure_logging=False
    )
    if address == "local":
        # Without a runtime environment the workers that Ray starts beforehand are those that it takes for the trials.
        start(num_cpus=available_cores(), include_dashboard=False)
        return
    environment = {**ENVIRONMENT, **WORKER_ENVIRONMENT, "FREEZELINE_HOME": str(state_dir())}
    start(runtime_env={"env_vars": environment, "working_dir": str(REPOSITORY), "excludes": RUNTIME_ENV_EXCLUDES})


@contextmanager
def temporary_env(environment: Mapping[str, str]) -> Iterator[None]:
    """Within: this process has these variables as well, for those that it starts."""
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
