"""Environment variables of the libraries that a command uses: set here, at the command's start.

The only others are those of one local Ray (``search.ray_runtime``) and of a package (``packaging.mlflow_model``).
"""

from __future__ import annotations

import os
import secrets

# Libraries read these when they are imported or started. The user's own values have precedence.
DEFAULTS = {
    # By default MLflow retries a call for minutes if the server is unavailable; the async writer has its own retries.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # The threads of torch soon sleep while they wait for each other. Beside trials or other work, which take the cores,
    # waiting in a loop made 10 passes of a network take 21 s instead of 1.3 s; on idle cores both take 0.4 s.
    "GOMP_SPINCOUNT": "3000",
    # Those of numpy and scipy always wait in a loop. Two workers that each fitted a linear probe with two threads on
    # two cores spent 90 % of the time in it. A fit with one thread on an idle core takes as long as with two.
    "OPENBLAS_NUM_THREADS": "1",
    # Ray runs a trial in a thread. The memory of such threads is in heaps of at most 64 MB, so glibc would return the
    # large tensors of every batch to the kernel, which fills pages with zeros again: a forward pass at 224 px took 1.4
    # times as long. Read when a process starts: for the workers.
    "MALLOC_ARENA_MAX": "1",
    "NO_ALBUMENTATIONS_UPDATE": "1",  # otherwise the import checks online for a new release
    # No progress tables, usage reports, default loggers (a report takes 3 ms instead of 10) or migration warnings.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a trial without an accelerator must not see one
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # tuning.common.signals has its own, for SIGTERM too
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial that fails in its first epoch has no metric
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # its snapshots are never read: a search resumes from the trial store
    "TUNE_MAX_PENDING_TRIALS_PG": "1000000",  # workers start in parallel; SearchStrategy limits their number
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}


def configure_environment() -> str | None:
    """Set the environment variables of libraries and Ray's workers; called before the libraries are imported.

    Returns:
        The id of the run that ``mlflow run`` created for this command. The variable is removed: Ray workers that
        inherited it would log into that run, rename it and end it.
    """
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    if os.environ.get("MLFLOW_TRACKING_URI", "").startswith(("http://", "https://")):
        # MLflow would request http://HOST//api for artifacts, which a server answers with 404.
        os.environ["MLFLOW_TRACKING_URI"] = os.environ["MLFLOW_TRACKING_URI"].rstrip("/")
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    # Ray opens ports on all network interfaces regardless of its settings, so token authentication is enabled. Unless
    # the user has set a token, that of a local Ray is random and known to this command only.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    takes_token_from_variable = os.environ["RAY_AUTH_MODE"] == "token" and "RAY_AUTH_TOKEN_PATH" not in os.environ
    if takes_token_from_variable and not os.environ.get("RAY_ADDRESS"):
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    return os.environ.pop("MLFLOW_RUN_ID", None) or None


def process_started_s() -> float:
    """Return the start of this process as Unix time in seconds, so that a command's imports count as its time."""
    import psutil

    return float(psutil.Process().create_time())
