"""A trial's configuration."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from data.loading.batch_config import BatchConfig
from models.features.caching_policy import CachingPlan, caching_plan
from models.trial_config import FeaturesConfig, TrialConfig


def test_a_configuration_survives_json(trial_config: TrialConfig) -> None:
    assert TrialConfig.from_json(trial_config.to_json()) == trial_config


def test_an_unknown_setting_is_rejected(trial_config: TrialConfig) -> None:
    fields = trial_config.model_dump()
    fields["fit"]["learning_rate"] = 0.1
    with pytest.raises(ValidationError, match="learning_rate"):
        TrialConfig.model_validate(fields)


def test_a_configuration_cannot_be_changed(trial_config: TrialConfig) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        trial_config.seed = 4  # type: ignore[misc]


def test_a_configuration_without_features_is_read_as_uncached(trial_config: TrialConfig) -> None:
    fields = trial_config.model_dump(mode="json")
    del fields["features"]
    config = TrialConfig.model_validate_json(json.dumps(fields))
    assert config == trial_config.model_copy(
        update={"features": FeaturesConfig(feature_cache="off", cached_augmentations=0)}
    )
    assert caching_plan(
        config.features, BatchConfig(), elements_per_image=100, num_images=10, limit_bytes=10**9
    ) == CachingPlan("uncached", 0)


@pytest.mark.parametrize("invalid", [{"feature_cache": "half"}, {"cached_augmentations": -1}, {"view": 2}])
def test_invalid_feature_settings_are_rejected(invalid: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(invalid))):
        FeaturesConfig.model_validate(invalid)


def test_the_images_of_an_epoch_are_a_setting_if_they_are_not_all(trial_config: TrialConfig) -> None:
    assert "images_per_epoch" not in trial_config.settings()["batches"]
    part = trial_config.model_copy(update={"images_per_epoch": 500})
    assert part.settings()["batches"]["images_per_epoch"] == 500
