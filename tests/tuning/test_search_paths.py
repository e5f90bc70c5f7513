"""The files of a search: another version of the program refuses them."""

from __future__ import annotations

import pytest

from data.errors import TrackingError
from tuning.common.search_paths import STATE_SCHEMA, SearchPaths


def test_a_new_search_has_the_current_schema() -> None:
    paths = SearchPaths.from_search_id("new")
    paths.check_schema()
    assert paths.schema.read_text() == str(STATE_SCHEMA)


@pytest.mark.parametrize("schema", ["", "1"])
def test_a_search_with_another_schema_is_refused(schema: str) -> None:
    paths = SearchPaths.from_search_id("old")
    paths.schema.unlink()
    if schema:
        paths.schema.write_text(schema)
    assert not SearchPaths.from_search_id("old").has_current_schema
    with pytest.raises(TrackingError, match=rf"schema {schema or 'none'}; start a new search"):
        paths.check_schema()
