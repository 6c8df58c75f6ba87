"""What never answers is never wrong, and so nothing is known of it."""

from __future__ import annotations

from typing import Any

import pytest

from experiments.checking.binaries import echo_checks
from experiments.checking.client_checks import client_checks, stale_checks
from experiments.checking.history import Operation
from experiments.scenario import Expect, Quorum


def done(f: str, value: Any, type: Any, error: Any = None, result: Any = None) -> Operation:
    return Operation(0, f, value, type, result, 1, 2, 1, None if type == "info" else 2, error)


UNSERVED = [
    done("write", ["k", 1], "info", "timeout"),
    done("read", ["k", None], "fail", "no leader"),
    done("cas", ["k", [1, 2]], "fail", "timeout"),
]


@pytest.mark.parametrize("promised", [True, False])
def test_where_no_operation_succeeded_nothing_is_linearizable_or_kept(promised: bool) -> None:
    checks = client_checks("history", UNSERVED, 1.0, promised=promised)
    checks += stale_checks("history", UNSERVED, 1.0, Expect(linearizable=False), Quorum(), [])[1]
    assert {check.valid for check in checks} == {"unknown"}
    assert all("no operation succeeded" in check.summary for check in checks)


def test_one_answer_is_enough_to_be_judged_by() -> None:
    for answer in (done("read", ["k", None], "ok", result=["k", None]), done("cas", ["k", [1, 2]], "fail", "mismatch")):
        checks = client_checks("history", [*UNSERVED[1:], answer], 1.0, promised=True)
        assert [check.valid for check in checks] == [True, True]


def test_no_echo_that_came_back_was_wrong_where_none_came_back() -> None:
    assert [check.valid for check in echo_checks([done("echo", 1, "info", "timeout")])] == ["unknown"]
    assert [check.valid for check in echo_checks([done("echo", 1, "ok", result=1)])] == [True]
