"""The ways to use a single source: their options, and what becomes of those that its network does not allow."""

import pytest

from riskft.errors import InputError
from riskft.rank.candidates import Candidate
from riskft.rank.depths import depth_candidates, depth_study
from riskft.rank.study import Rejected, Scored
from riskft.transferability.table import Estimate

BASE = Scored(Candidate("a", ["--x=1"]), "a.pt", cases=3, seconds=2.0, scores={"leep": Estimate(-0.5)})


class Opener:
    """Refuses what a network without an encoder refuses."""

    def built(self, candidate):
        if "--model.source.load=encoder" in candidate.arguments:
            raise InputError("it has no encoder")


def test_each_way_differs_in_one_option():
    assert [(each.name, each.arguments) for each in depth_candidates(BASE.candidate)] == [
        ("a-encoder", ["--x=1", "--model.source.load=encoder", "--model.head_init=random"]),
        ("a-not_first", ["--x=1", "--model.source.load=not_first"]),
        ("a-l2sp=10", ["--x=1", "--trainer.callbacks+=riskft.L2SP", "--trainer.callbacks.alpha=10"]),
        ("a-l2sp=1", ["--x=1", "--trainer.callbacks+=riskft.L2SP", "--trainer.callbacks.alpha=1"]),
    ]


@pytest.mark.parametrize(
    ("most", "names"), [(2, ["a-not_first", "a-l2sp=10"]), (9, ["a-not_first", "a-l2sp=10", "a-l2sp=1"])]
)
def test_an_impossible_way_is_listed_and_takes_no_place(most, names):
    found, impossible = depth_study(BASE, Opener(), most)
    assert [each.candidate.name for each in found] == names
    assert impossible == [Rejected("a-encoder", "it has no encoder")]
    assert {each.seconds for each in found} == {0.0}
    assert all(each.scores == BASE.scores for each in found)
