"""The options that say what the data set is and how its labels are read, shared by all commands that read one."""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from data.frozen_model import FrozenModel


class DataOptions(FrozenModel):
    """The option ``data`` and the options of reading it.

    Attributes:
        min_classes: number of classes without which the data set is refused.
    """

    min_classes: ClassVar[int] = 2
    data: str = Field(
        "demo",
        min_length=1,
        description="folder of class folders (optionally inside train/, val/, test/), .csv or .parquet manifest, "
        ".zip or .tar, s3://bucket/prefix, or 'demo'",
    )
    layout: Literal["auto", "classes"] = Field(
        "auto",
        description="what the folders of data are: auto: splits if they are named so; classes: always classes",
    )
    near_duplicates: Literal["group", "report", "off"] = Field(
        "group",
        description="near-duplicates: group: kept in the same split, unless more than a quarter of the images are "
        "alike; report: only listed; off: not searched",
    )
    label_column: str = Field(
        "", description="column of a manifest that has the labels; empty: label, class, target or category"
    )
    label_from: str = Field(
        "",
        description="regular expression whose first group in the path of a file is its class, for folders without "
        "class folders: '([a-z]+)_[0-9]+'",
    )
    images: str = Field(
        "", description="folder that the paths of a manifest are relative to; empty: the folder of the manifest"
    )

    def command_arguments(self) -> list[str]:
        """Return the data and the options of reading it that are not their defaults, as arguments of a command."""
        fields = {name: getattr(self, name) for name in DataOptions.model_fields if name != "data"}
        changed = {name: value for name, value in fields.items() if value != DataOptions.model_fields[name].default}
        return [
            self.data,
            *(part for name, value in changed.items() for part in (f"--{name.replace('_', '-')}", value)),
        ]

    @field_validator("label_from")
    @classmethod
    def _check_label_from(cls, pattern: str) -> str:
        try:
            num_groups = re.compile(pattern).groups
        except (re.error, RecursionError, OverflowError) as error:
            raise ValueError(f"must be a regular expression, got {pattern!r} ({error}); correct it") from error
        if pattern and not num_groups:
            raise ValueError(f"must have a group (...) for the class, got {pattern!r}; put parentheses around it")
        return pattern


class LabeledImagesOptions(DataOptions):
    """The options of images that are measured, not trained on: one class suffices."""

    min_classes: ClassVar[int] = 1
