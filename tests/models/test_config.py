"""A trial's configuration."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from models.config import TrialConfig


def test_a_configuration_survives_json(trial_config: TrialConfig) -> None:
    assert TrialConfig.from_json(trial_config.to_json()) == trial_config


def test_a_setting_that_does_not_exist_is_refused(trial_config: TrialConfig) -> None:
    fields = trial_config.model_dump()
    fields["fit"]["learning_rate"] = 0.1
    with pytest.raises(ValidationError, match="learning_rate"):
        TrialConfig.model_validate(fields)


def test_a_configuration_cannot_be_changed(trial_config: TrialConfig) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        trial_config.seed = 4  # type: ignore[misc]
