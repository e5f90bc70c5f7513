"""Starting Ray quietly, or joining the cluster that ``RAY_ADDRESS`` names."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from data.errors import SearchError, SettingError, last_line
from data.store import home

REPOSITORY = Path(__file__).resolve().parents[2]
STARTS = 2  # of Ray, before it is given up

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
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # tuning.interrupts has its own, for SIGTERM too
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial that fails in its first epoch has no metric
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # its snapshots are never read: the ledger is the truth
}
# What a worker needs beyond what it inherits; the pictures and threads of a trial are its own affair.
WORKER_ENVIRONMENT = {"NO_ALBUMENTATIONS_UPDATE": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}

# Of this project's folder, what a cluster's workers don't need.
NOT_SHIPPED = [".venv", ".git", "tests", "docs", "benchmarks", "mlruns", "mlartifacts", "*.db", "*.db-*"]


def cores() -> int:
    """Return how many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def ray_started() -> Iterator[None]:
    """Start Ray in this process, or join the cluster of ``RAY_ADDRESS``; leave it at the end.

    Ray opens ports on every interface whatever it is told, so token authentication is on, with a token that only
    this search knows where the user has set none.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    address = os.environ.get("RAY_ADDRESS") or "local"
    if address == "local" and os.environ["RAY_AUTH_MODE"] == "token" and "RAY_AUTH_TOKEN_PATH" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))

    import ray

    started_here = not ray.is_initialized()
    if started_here:
        _start(address)
    for name in ("ray", "ray.tune", "ray.train", "ray.air"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        if started_here:
            ray.shutdown()


def resources() -> Mapping[str, float]:
    """Return what the Ray that was started has in all its nodes now: CPU, GPU, ..."""
    import ray

    found: Mapping[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return found


def check_shared(folder: Path) -> None:
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

    for left in reversed(range(STARTS)):
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

    environment = {**WORKER_ENVIRONMENT, "FREEZELINE_HOME": str(home())}
    start = partial(
        ray.init, address=address, log_to_driver=False, logging_level=logging.CRITICAL, configure_logging=False
    )
    if address != "local":
        shipped = {"working_dir": str(REPOSITORY), "excludes": NOT_SHIPPED}
        start(runtime_env={"env_vars": environment, **shipped})
        return
    # Without a runtime environment the workers that Ray starts beforehand are those that it takes for the trials.
    path = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
    with _inherited({**environment, "PYTHONPATH": path}):
        start(num_cpus=cores(), include_dashboard=False)


@contextmanager
def _inherited(environment: Mapping[str, str]) -> Iterator[None]:
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
