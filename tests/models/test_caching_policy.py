"""Whether and how features are cached, as decided by the configuration."""

from __future__ import annotations

from typing import Any

import pytest

from data.loading.batch_config import BatchConfig
from models.features.caching_policy import MAX_BYTES_PER_TRIAL, CachingPlan, caching_plan
from models.trial_config import FeaturesConfig


@pytest.mark.parametrize(
    ("features", "batches", "elements_per_image", "expected"),
    [
        ({}, {}, 100, CachingPlan("fp16", 4)),
        ({"feature_cache": "fp32"}, {}, 100, CachingPlan("fp32", 4)),
        ({"feature_cache": "off"}, {}, 100, CachingPlan("uncached", 4)),
        ({"cached_augmentations": 9}, {}, 100, CachingPlan("fp16", 9)),
        ({"cached_augmentations": 0}, {}, 100, CachingPlan("uncached", 0)),
        ({}, {"augmentation": "none"}, 100, CachingPlan("fp16", 1)),
        ({"cached_augmentations": 0}, {"augmentation": "none"}, 100, CachingPlan("fp16", 1)),
        ({}, {"augmentation": "none", "balance": "oversample"}, 100, CachingPlan("fp16", 5)),
        (
            {"cached_augmentations": 0},
            {"augmentation": "none", "balance": "oversample"},
            100,
            CachingPlan("uncached", 0),
        ),
        ({}, {"mix": "mixup"}, 100, CachingPlan("uncached", 0)),
        ({}, {"mix": "cutmix", "augmentation": "none"}, 100, CachingPlan("uncached", 0)),
        ({}, {}, 0, CachingPlan("uncached", 0)),
        ({}, {}, MAX_BYTES_PER_TRIAL // 8000, CachingPlan("fp16", 4)),
        ({}, {}, MAX_BYTES_PER_TRIAL // 8000 + 1, CachingPlan("uncached", 4)),
        ({"feature_cache": "fp32"}, {}, MAX_BYTES_PER_TRIAL // 8000, CachingPlan("uncached", 4)),
    ],
)
def test_the_plan_follows_from_the_configuration(
    features: dict[str, Any], batches: dict[str, Any], elements_per_image: int, expected: CachingPlan
) -> None:
    plan = caching_plan(FeaturesConfig(**features), BatchConfig(**batches), elements_per_image, 1000, 20 * 10**9)
    assert plan == expected


def test_features_larger_than_a_quarter_of_the_cache_are_not_cached() -> None:
    limit = 8_000_000
    assert caching_plan(FeaturesConfig(), BatchConfig(), 250, 1000, limit) == CachingPlan("fp16", 4)
    assert caching_plan(FeaturesConfig(), BatchConfig(), 251, 1000, limit) == CachingPlan("uncached", 4)
