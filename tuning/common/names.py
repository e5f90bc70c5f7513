"""Names of tags, parameters and metrics in MLflow, each defined once.

Tags for programs are called ``freezeline.*``; tags for people have plain names.
"""

from __future__ import annotations

# Parameters
VARIANT = "variant"
TRIAL_NUMBER_PARAM = "trial"
RECIPE_PARAM_PREFIX = "recipe."  # mlflow run logs the options by plain names, quoted, and params cannot be changed

# Tags that MLflow defines
PARENT_RUN_TAG = "mlflow.parentRunId"
NOTE_TAG = "mlflow.note.content"
RUN_NAME_TAG = "mlflow.runName"
PRIMARY_METRIC_TAG = "mlflow.experiment.primaryMetric.name"  # of an experiment
SHARED_VIEW_TAG = "mlflow.sharedViewState."  # of an experiment, followed by the key of a view of its table of runs
LOGGED_ARTIFACTS_TAG = "mlflow.loggedArtifacts"  # the artifacts that the UI shows as tables
PROJECT_SOURCE_TAG = "mlflow.source.name"

# Tags of runs
SEARCH_UID_TAG = "freezeline.search_uid"  # identifies the parent run of a search that started without a server
SEARCH_FOLDER_TAG = "freezeline.search_folder"  # holds the state of the search
RECIPE_TAG = "freezeline.recipe"
DATA_FINGERPRINT_TAG = "freezeline.data_fingerprint"  # of all images of the data set
SAMPLES_FINGERPRINT_TAG = "freezeline.samples_fingerprint"  # of those that the search uses
DATA_LIMITS_TAG = "freezeline.data_limits"  # the largest numbers of images by split
REGISTERED_MODEL_TAG = "freezeline.registered_model"
RESUMES_TAG = "freezeline.resumes"
GIT_COMMIT_TAG = "freezeline.git_commit"
GIT_DIRTY_TAG = "freezeline.git_dirty"
TRIAL_UID_TAG = "freezeline.trial_uid"
TRIAL_CONFIG_TAG = "freezeline.trial_config"
RERUN_OF_TAG = "freezeline.rerun_of"
WINNER_TAG = "winner"  # of a search: its networks in short
ORIGIN_TAG = "freezeline.origin"  # of a trial: champion, probe, default, fine_tune, sampler or rerun
REASON_TAG = "reason"
STATUS_TAG = "status"  # of a trial; MLflow has no status for pruned and out of time
PROMOTION_TAG = "promotion"
PROMOTION_REASON_TAG = "promotion_reason"
VERSION_TAG = "version"

# Tags of registered models and their versions
CHAMPION_CHANGE_TAG = "freezeline.champion."  # followed by the number of the change
CLAIM_TAG = "freezeline.claim."  # followed by a random ID; while the champion is being changed
MODEL_ID_TAG = "freezeline.model_id"  # MLflow's model ID: its SQL store does not keep it with the version
CLASSES_TAG = "freezeline.classes"
GATE_TAG = "freezeline.gate"
FORCED_TAG = "freezeline.forced"
EVIDENCE_TAG = "freezeline.evidence"
PREVIOUS_CHAMPION_TAG = "previous_champion"

# Metrics
OBJECTIVE_METRIC = "val_balanced_accuracy"  # of each epoch; trials are compared by that of their best epoch
OOF_LOSS_METRIC = "oof_loss"  # of a probe: log loss over cross-validation, by which probes are compared
BEST_OBJECTIVE_METRIC = f"best_{OBJECTIVE_METRIC}"
TEST_METRIC = "test_balanced_accuracy"
WINNER_METRIC = "best_trial"  # the number of the winning trial
SEARCH_MINUTES_METRIC = "search_minutes"  # of all sessions, from the start of each command to the decision
PIXEL_BASELINE_METRIC = "test_raw_pixel_accuracy"
