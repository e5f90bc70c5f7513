"""The order in which the workers of ``make test`` start tests, and what a missing part means in CI."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.conftest import SYSTEM_GROUPS, in_order_of_start, pytest_xdist_make_scheduler, scope_of, skip_without

RAY, OWN = "tests/system/test_search.py::test_a", "tests/system/own_processes/test_cluster.py::test_b"
MANY = [f"tests/models/test_many.py::test_{number}" for number in range(9)]
SMALL = ["tests/data/test_one.py::test_c"]
LARGE = [f"tests/models/test_many.py::test_{letter}" for letter in "fdeg"]


def test_each_file_is_one_scope_and_the_system_tests_are_two() -> None:
    assert {scope_of(nodeid) for nodeid in LARGE} == {"tests/models/test_many.py"}
    assert (scope_of(OWN), scope_of(RAY)) == SYSTEM_GROUPS
    assert scope_of("tests/system/test_docs.py::test_g") == scope_of(RAY)


def test_system_tests_start_first_and_small_files_last() -> None:
    server = "tests/models/test_server.py::test_h"
    tests = dict.fromkeys((*SMALL, *LARGE), False) | dict.fromkeys((server, RAY, OWN), True)
    assert in_order_of_start(tests) == [RAY, OWN, server, *LARGE, *SMALL]


@dataclass(eq=False)
class FakeWorker:
    """A worker that only records the positions of the tests that it is sent."""

    gateway: Any = field(default_factory=lambda: SimpleNamespace(id="gw"))
    shutting_down: bool = False
    sent: list[int] = field(default_factory=list)

    def send_runtest_some(self, positions: list[int]) -> None:
        self.sent += positions


def test_each_worker_starts_with_a_group_of_system_tests() -> None:
    option = SimpleNamespace(loadscopereorder=True)
    scheduler = pytest_xdist_make_scheduler(
        cast("Any", SimpleNamespace(option=option, getvalue=lambda _: ["popen"] * 2)), None
    )
    names = [f"{nodeid}{number}" for nodeid in (RAY, OWN) for number in range(3)]
    tests = in_order_of_start(dict.fromkeys(names, True) | dict.fromkeys(MANY, False))
    workers = [FakeWorker(), FakeWorker()]
    for worker in workers:
        scheduler.add_node(worker)
        scheduler.add_node_collection(worker, tests)
    scheduler.schedule()
    assert [[tests[position] for position in worker.sent] for worker in workers] == [names[:3], names[3:]]


def test_a_missing_part_skips_a_test_except_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="a browser is missing"):
        skip_without("a browser")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="a browser must be present in CI"):
        skip_without("a browser")
