"""Starting a local Ray instance without its console output, or connecting to the cluster at ``RAY_ADDRESS``."""

from __future__ import annotations

import logging
import math
import os
import secrets
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from data.errors import SearchError, SettingError, last_line
from data.home import cache_dir, state_dir
from data.machine import available_cores
from tuning import PACKAGES
from tuning.common.environment import DEFAULTS
from tuning.common.signals import keep_handlers

if TYPE_CHECKING:
    from tuning.recipe.schema import Recipe

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]  # the clone, or site-packages
START_ATTEMPTS = 2
MAX_TMPDIR = 35  # bytes: a socket path has at most 107, of which Ray's session and names take about 70
# Trials exchange small messages. Ray's default is a third of the memory, which it refuses if /dev/shm is small.
OBJECT_STORE_BYTES = 256_000_000
TRIAL_BYTES = 1_500_000_000  # memory of a worker that trains the default network; a larger one may use more
SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108  # Ray makes a private folder in it


def concurrency(recipe: Recipe, resources: Mapping[str, float]) -> int:
    """Return the number of concurrent trials: ``max_concurrent`` of the recipe, else what Ray's ``resources`` allow.

    Ray's ``memory`` is what was free at its start, in bytes, within the limit of the control group.
    """
    capacity = resources.get("CPU", 0.0) // recipe.cpus_per_trial
    capacity = min(capacity, resources.get("memory", math.inf) // TRIAL_BYTES)
    if recipe.gpus_per_trial:  # not 0, and not open
        capacity = min(capacity, resources.get("GPU", 0.0) // recipe.gpus_per_trial)
    return recipe.max_concurrent or max(1, int(capacity))


def check_resources(recipe: Recipe, resources: Mapping[str, float]) -> None:
    """Check that the ``resources`` of a local Ray allow at least one trial, which would wait for them forever.

    A cluster is not checked: it may grow.

    Raises:
        SettingError: with a message for each resource that is missing.
    """
    if os.environ.get("RAY_ADDRESS"):
        return
    needed = (("cpus_per_trial", recipe.cpus_per_trial, "CPU"), ("gpus_per_trial", recipe.gpus_per_trial or 0.0, "GPU"))
    problems = [
        f"{option} must be at most {resources.get(kind, 0):g}, the {kind}s that Ray has, got {amount:g}; lower it"
        for option, amount, kind in needed
        if amount > resources.get(kind, 0)
    ]
    if problems:
        raise SettingError(*problems)


class RayRuntime:
    """A local Ray, or a connection to the cluster of ``RAY_ADDRESS``, which starts in a background thread.

    Ray's own settings are in ``tuning.common.environment``.
    """

    def __init__(self, recipe: Recipe) -> None:
        """Create the runtime; the first workers preload the imports of the recipe's trials."""
        self._recipe = recipe
        self._thread: threading.Thread | None = None
        self._ready, self._closing = threading.Event(), threading.Event()
        self._error: Exception | None = None
        self._cleanup = ExitStack()

    def start_async(self) -> None:
        """Start Ray in the background, unless it was started before."""
        if self._thread is not None:
            return
        self._address = os.environ.get("RAY_ADDRESS") or "local"
        if self._address == "local":
            self._cleanup.enter_context(temporary_env(self._local_environment()))
        self._thread = threading.Thread(target=self._run, name="ray", daemon=True)
        self._thread.start()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Context manager that waits until Ray is ready, and on exit begins to shut it down, which takes seconds.

        Raises:
            SearchError: Ray does not start, or the cluster does not respond.
        """
        self.start_async()
        try:
            self._ready.wait()
            if self._error is not None:
                raise self._error
            yield
        finally:
            self._closing.set()
            self._cleanup.close()

    def num_gpus(self) -> float:
        """Return the number of GPUs that trials can use: of this machine, or of the cluster once it has responded.

        Raises:
            SearchError: the cluster does not respond.
        """
        if not os.environ.get("RAY_ADDRESS"):
            return num_local_gpus()
        self.start_async()
        self._ready.wait()
        if self._error is not None:
            raise self._error
        return cluster_resources().get("GPU", 0.0)

    def close(self) -> None:
        """Shut Ray down if it was started, and wait until it has ended."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
            self._cleanup.close()

    def _local_environment(self) -> Mapping[str, str]:
        """Return the environment variables that local workers inherit in addition to this process's environment."""
        clone = str(ROOT) if (ROOT / "pyproject.toml").exists() else ""  # an installed package is found without it
        path = os.pathsep.join(filter(None, (clone, os.environ.get("PYTHONPATH"))))
        environment = {
            "FREEZELINE_HOME": str(state_dir()),
            "PYTHONPATH": path,
            # By default Ray ends its first workers when Tune reserves their cores, and starts others for the trials.
            "RAY_num_workers_soft_limit": str(available_cores()),
        }
        # Ray starts one worker per core in advance. If a trial uses several cores or a GPU, most of them stay idle, and
        # would hold hundreds of MB of preloaded modules.
        if concurrency(self._recipe, {"CPU": available_cores()}) >= available_cores():
            environment["RAY_preload_python_modules"] = "tuning.search.worker_imports"
        return {**environment, **_short_temporary_folder()}

    def _run(self) -> None:
        """Start Ray, wait, and shut it down: Linux ends Ray's processes together with the thread that started them."""
        # Ray's processes inherit the mask. Without it, a closed terminal would end them before the trials are saved.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        owns_ray = False
        try:
            import ray

            for name in ("ray", "ray.tune", "ray.train", "ray.air"):
                logging.getLogger(name).setLevel(logging.CRITICAL)
            if not ray.is_initialized():
                _start(self._address)
                owns_ray = True
        except Exception as error:  # raised by running()
            self._error = error
        finally:
            self._ready.set()
        self._closing.wait()
        if owns_ray:
            with keep_handlers():
                ray.shutdown()


def _short_temporary_folder() -> Mapping[str, str]:
    """Return RAY_TMPDIR if the path of Ray's sockets in the temporary folder (SLURM's are long) exceeds the limit."""
    if "RAY_TMPDIR" in os.environ or len(os.fsencode(tempfile.gettempdir())) <= MAX_TMPDIR:
        return {}
    short = next((folder for folder in SHORT_FOLDERS if os.access(folder, os.W_OK)), None)
    return {"RAY_TMPDIR": short} if short else {}


def num_local_gpus() -> int:
    """Return the number of GPUs of this machine that are visible to this process."""
    import torch

    return torch.cuda.device_count()


def cluster_resources() -> Mapping[str, float]:
    """Return the current resources of all nodes of the running Ray: CPU, GPU, ..."""
    import ray

    resources: Mapping[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return resources


def call_on_gpu(function: Callable[[], T]) -> T:
    """Return the result of a function that runs in a worker with one GPU of the running Ray."""
    import ray

    @ray.remote(num_gpus=1, num_cpus=0)
    def call() -> T:
        return function()

    result: T = ray.get(call.remote())
    return result


def check_shared_filesystem(folder: Path, image: Path) -> None:
    """Check that every node of the cluster can read files of this process in ``folder``, which holds checkpoints.

    With FREEZELINE_CACHE, a folder on each node's own disk, all nodes decode the images, so they must read ``image``.

    Raises:
        SettingError: a node cannot; the message names it.
    """
    if not os.environ.get("RAY_ADDRESS"):
        return
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    token = secrets.token_hex(8)
    file = folder / f".shared-{token}"
    file.write_text(token)

    @ray.remote(num_cpus=0)
    def read(path: str, image: str) -> tuple[str, bool]:
        return Path(path).read_text() if Path(path).exists() else "", Path(image).exists()

    try:
        nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        strategies = (NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes)
        answers = ray.get([read.options(scheduling_strategy=each).remote(str(file), str(image)) for each in strategies])
    finally:
        file.unlink(missing_ok=True)
    hosts = [node["NodeManagerHostname"] for node in nodes]
    if failed := sorted(host for host, (text, _) in zip(hosts, answers, strict=True) if text != token):
        raise SettingError(
            f"FREEZELINE_HOME must be a folder that all nodes of the cluster share, but {', '.join(failed)} "
            f"cannot read {folder}; set it to a folder on a network file system"
        )
    failed = sorted(host for host, (_, has_image) in zip(hosts, answers, strict=True) if not has_image)
    if failed and "FREEZELINE_CACHE" in os.environ:
        raise SettingError(
            f"with FREEZELINE_CACHE, data must be a folder that all nodes share, but {', '.join(failed)} "
            f"cannot read {image}; move the images to a network file system, or unset FREEZELINE_CACHE"
        )


def _start(address: str) -> None:
    """Start or join Ray; retry once, because a start on a busy machine may exceed Ray's limit of 30 s."""
    import ray

    for attempts_left in reversed(range(START_ATTEMPTS)):
        try:
            _init(address)
            return
        except Exception as error:  # Ray raises a bare Exception if a node takes too long
            ray.shutdown()
            if not attempts_left:
                raise SearchError(
                    f"Ray must start, or the cluster of RAY_ADDRESS must respond, but Ray reported: {last_line(error)}"
                    "; reduce the load of the machine or correct RAY_ADDRESS, then run the command again"
                ) from error


def _init(address: str) -> None:
    import ray

    start = partial(
        ray.init, address=address, log_to_driver=False, logging_level=logging.CRITICAL, configure_logging=False
    )
    if address == "local":
        # Without a runtime environment, Ray runs trials in the workers that it started in advance.
        start(num_cpus=available_cores(), include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES)
        return
    start(runtime_env=cluster_environment())


def cluster_environment() -> dict[str, Any]:
    """Return the environment of a cluster's workers: our packages, which Ray sends to them, and variables."""
    names = (*DEFAULTS, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION")
    variables = {**{name: os.environ[name] for name in names}, "FREEZELINE_HOME": str(state_dir())}
    if "FREEZELINE_CACHE" in os.environ:  # the same folder on each node's own disk
        variables["FREEZELINE_CACHE"] = str(cache_dir())
    return {"env_vars": variables, "py_modules": [str(ROOT / name) for name in PACKAGES]}


@contextmanager
def temporary_env(environment: Mapping[str, str]) -> Iterator[None]:
    """Context manager that sets environment variables and restores them on exit.

    ``ray.init`` has no other way to pass them to the processes that it starts; they are for one local Ray only.
    """
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
