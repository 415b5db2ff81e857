"""Work on many cases, of which some fail."""

from pathlib import Path

import pytest

from riskft.data.prepare.each import each_case
from riskft.data.records import Case
from riskft.errors import InputError, NoSpaceError

CASES = [Case(name, {"t1": Path(name)}) for name in "abcd"]


def names(cases):
    return [case.subject for case in cases]


def test_cases_that_fail_are_left_out_with_a_line_each():
    calls = []

    def work(cases):
        calls.append("".join(names(cases)))
        if bad := [f"{name}: damaged" for name in names(cases) if name in "bd"]:
            raise InputError("Some fail:", bad)
        return names(cases)

    done, problems = each_case(work, CASES)
    assert [(case.subject, found) for case, found in done] == [("a", "a"), ("c", "c")]
    assert problems == ["b: damaged", "d: damaged"]
    assert calls == ["abcd", "a", "b", "c", "d"]
    assert each_case(work, []) == ([], [])


def test_a_full_disk_ends_the_work():
    def work(cases):
        raise NoSpaceError("full")

    with pytest.raises(NoSpaceError):
        each_case(work, CASES)
