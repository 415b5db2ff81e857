"""The page of a ranking, and what W&B gets."""

from html.parser import HTMLParser
from pathlib import Path

import pytest

from riskft.rank.candidates import Candidate
from riskft.rank.decision import Rung, decide
from riskft.rank.online import log_ranking
from riskft.rank.page import rank_html
from riskft.rank.race_result import Course, RaceResult
from riskft.rank.race_runs import Mark
from riskft.rank.study import Rejected, Scored
from riskft.transferability.table import Estimate

SCRATCH = Candidate("scratch", [])
SCORED = [Scored(Candidate("<t1>", []), cases=2, scores={"leep": Estimate(-0.5, -0.6, -0.4), "nce": Estimate(None)})]


@pytest.fixture
def result():
    """<t1> is 0.6 and 0.8 on the only case, scratch 0.5 at the first rung."""
    key = ("case0", "core")
    first = Rung(0.5, {"<t1>": {key: 0.6}, "scratch": {key: 0.5}})
    rungs = [first, Rung(1.0, {"<t1>": {key: 0.8}})]
    marks = {rung.at: [Mark(rung.at, int(10 * rung.at), 10, 60 * rung.at, rung.dice["<t1>"])] for rung in rungs}
    courses = [
        Course("<t1>", Path("race/t1"), marks, "won", 1.0, 60.0),
        Course(
            "scratch",
            Path("race/s"),
            {0.5: [Mark(0.5, 5, 10, 30.0, {key: 0.5})]},
            "dropped after 1/2 of the steps",
            0.5,
            30.0,
        ),
    ]
    return RaceResult(decide(rungs, "<t1>"), rungs, courses, 0)


class Texts(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.rows, self.text, self.inside = [], "", False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        if tag == "tr":
            self.rows.append([])
            self.inside = True

    def handle_endtag(self, tag):
        self.inside &= tag != "tr"

    def handle_data(self, data):
        self.text += data
        if self.inside and data.strip():
            self.rows[-1].append(data.strip())


def test_the_page(result):
    page = rank_html(SCORED, [Rejected("t9", "it has 5 channels")], SCRATCH, result)
    found = Texts(page)
    assert ["<t1>", "won", "0.600", "0.800", "1.00", "60 s"] in found.rows
    assert ["scratch", "dropped after 1/2 of the steps", "0.500", "-", "0.50", "30 s"] in found.rows
    assert ["<t1>", "-0.5 (-0.6 to -0.4)", "-"] in found.rows
    assert "+10.0 Dice points over scratch after 1/2 of the steps, on one case" in found.text
    assert "t9: it has 5 channels" in found.text
    assert page.count("<svg") == 1


def test_a_page_without_a_race():
    page = rank_html(SCORED, [], SCRATCH, None)
    assert "There was no race." in page
    assert "<svg" not in page


def test_an_offline_run(result, tmp_path):
    result.write(tmp_path)
    log_ranking(tmp_path, "candidate,leep\n<t1>,-0.5\n", result)
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) == 1
    media = {path.parent.name for path in tmp_path.glob("wandb/offline-run-*/files/media/*/rank/*")}
    assert media == {"rank"}
    names = {path.name.split("_")[0] for path in tmp_path.glob("wandb/offline-run-*/files/media/*/rank/*")}
    assert names == {"scores", "race", "curves"}
