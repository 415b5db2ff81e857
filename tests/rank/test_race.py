"""The race: who goes on, what a failure does, and that nothing is trained twice."""

import csv
import json
import multiprocessing
from pathlib import Path
from unittest import mock

import pytest
from forked_runs import Study
from rich.console import Console

import riskft.rank.race
import riskft.sweep.local
from riskft.cli import main
from riskft.data.records import Case
from riskft.errors import InputError
from riskft.files import csv_text, write_text
from riskft.rank import race_runners
from riskft.rank.candidates import Candidate
from riskft.rank.race import RaceOptions, run_race
from riskft.rank.race_folds import folds_of
from riskft.rank.race_runners import cluster_runner
from riskft.rank.race_table import race_table
from riskft.run.folder import RunFolder
from riskft.sweep.plan import Run
from riskft.sweep.slurm import SlurmOptions
from riskft.sweep.state import State, write_record
from riskft.training.pause import COLUMNS

STEPS = 80


class Trainings:
    """Stands for the processes: writes the scores that candidates reach, and notes who was trained how far."""

    reason = "fit: the source [/data/b.pt] has 5 channels"

    def __init__(self, dice, failing=(), cases=1):
        self.dice, self.failing, self.cases = dice, set(failing), cases
        self.trained = []

    def run(self, runs, jobs=1, command_line=None):
        for run in runs:
            folder, at = Path(run.folder), run.values["at"]
            self.trained.append((folder.name, at))
            if (folder.name, at) in self.failing:
                yield run, State("failed", self.reason)
                continue
            path = RunFolder(folder).validation
            before = [list(row.values()) for row in csv.DictReader(path.open())] if path.is_file() else []
            value = self.dice[folder.name]
            value = value[at] if isinstance(value, dict) else value
            cases = [f"case{number}" for number in range(self.cases)]
            if folder.parent.name.startswith("fold="):
                cases = [f"case{folder.parent.name}"]
            rows = [(at, round(at * STEPS), STEPS, 100 * at, case, "core", value) for case in cases]
            write_text(path, csv_text(COLUMNS, [*before, *rows]))
            write_record(run, ["fit"])
            yield run, State("finished")


@pytest.fixture
def race(tmp_path, monkeypatch):
    monkeypatch.setattr(riskft.rank.race, "race_folds", lambda arguments: [])

    def start(trainings, names=None, **options):
        monkeypatch.setattr(race_runners, "run_locally", trainings.run)
        candidates = [Candidate(name, ["--config=x.yaml", f"--name={name}"]) for name in names or trainings.dice]
        return run_race(candidates, RaceOptions(tmp_path, **options), print)

    return start


def test_the_better_half_goes_on(race, tmp_path):
    dice = {"a": 0.3, "b": {0.125: 0.5, 0.25: 0.6, 1.0: 0.9}, "c": {0.125: 0.6, 0.25: 0.5}, "scratch": 0.1}
    trainings = Trainings(dice, cases=2)
    result = race(trainings)
    at_first = [(name, 0.125) for name in ("a", "b", "c", "scratch")]
    assert trainings.trained == [*at_first, ("c", 0.25), ("b", 0.25), ("b", 1.0)]
    assert [course.outcome for course in result.courses] == [
        "dropped after 1/8 of the steps",
        "won",
        "dropped after 1/4 of the steps",
        "dropped after 1/8 of the steps",
    ]
    # a and scratch 1/8, c 1/4, b all
    assert result.cost == pytest.approx(0.125 * 2 + 0.25 + 1)
    assert result.seconds == pytest.approx(150)
    decision = result.decision
    assert (decision.winner, decision.dice, decision.at) == ("b", pytest.approx(0.9), 1.0)
    assert (decision.runner_up.over, decision.runner_up.gain) == ("c", pytest.approx(0.1))
    assert (decision.scratch.at, decision.scratch.gain) == (0.125, pytest.approx(0.4))
    assert "as many steps as 1.50 fine-tunings (2 min), of which 1.00 (2 min)" in result.sentences()[-1]

    result.write(tmp_path)
    with (tmp_path / "race.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 2 * 7
    assert next(row for row in rows if row["rung"] == "1.0") == {
        **{"candidate": "b", "rung": "1.0", "step": "80", "case": "case0", "class": "core", "dice": "0.9"}
    }
    plain = json.loads((tmp_path / "race.json").read_text())
    assert (plain["winner"], plain["cost"]["fine_tunings"]) == ("b", 1.5)
    assert plain["runner_up"]["separable"] is False
    assert (tmp_path / "race.png").read_bytes().startswith(b"\x89PNG")
    console = Console(record=True, width=120)
    console.print(race_table(result))
    (line,) = [line for line in console.export_text().splitlines() if "won" in line]
    assert line.split() == ["b", "0.500", "0.600", "0.900", "1.00", "2", "min", "won"]


def test_a_race_goes_on_where_it_was_stopped(race):
    dice = {"a": 0.3, "b": 0.5, "scratch": 0.1}
    first = Trainings(dice, failing=[("b", 0.25), ("a", 0.25), ("scratch", 0.25)])
    with pytest.raises(InputError, match=r"b: fit: the source .* has 5 channels"):
        race(first)
    again = Trainings(dice)
    assert race(again).decision.winner == "b"
    assert again.trained == [("b", 0.25), ("a", 0.25), ("b", 1.0)]
    third = Trainings(dice)
    assert race(third).decision.winner == "b"
    assert third.trained == []


def test_a_candidate_that_fails_is_out_and_the_race_goes_on(race):
    trainings = Trainings({"a": 0.3, "b": 0.9, "c": 0.4, "scratch": 0.1}, failing=[("b", 0.125)])
    result = race(trainings)
    assert result.decision.winner == "c"
    assert result.courses[1].outcome == Trainings.reason
    console = Console(record=True, width=120)
    console.print(race_table(result))
    assert Trainings.reason in console.export_text()


def test_the_best_that_was_dropped_replaces_those_that_fail_later(race):
    trainings = Trainings({"a": 0.3, "b": 0.9, "c": 0.4, "scratch": 0.1}, failing=[("b", 0.25), ("c", 0.25)])
    result = race(trainings)
    assert trainings.trained[4:] == [("b", 0.25), ("c", 0.25), ("a", 0.25), ("a", 1.0)]
    assert result.decision.winner == "a"
    assert result.decision.runner_up.over == "scratch"


def test_the_budget_limits_who_goes_on(race):
    names = [f"{number}" for number in range(8)]
    trainings = Trainings({name: float(name) / 10 for name in names})
    result = race(trainings, budget=2.0)
    # 8/8 are spent; 1/8 of two and the winner's 3/4 make it 2
    assert trainings.trained[8:] == [("7", 0.25), ("6", 0.25), ("7", 1.0)]
    assert result.cost == pytest.approx(2)


def test_without_finish_the_winner_stays_where_it_is(race):
    trainings = Trainings({"a": 0.3, "scratch": 0.1})
    result = race(trainings, rungs=[0.5], finish=False)
    assert trainings.trained == [("a", 0.5), ("scratch", 0.5)]
    assert (result.decision.winner, result.decision.at, result.cost) == ("a", 0.5, 1.0)


def test_pauses_in_one_epoch_share_their_scores(race):
    class Coarse(Trainings):
        """An epoch has a quarter of the steps."""

        def run(self, runs, jobs=1, command_line=None):
            for run, state in super().run(runs):
                path = RunFolder(Path(run.folder)).validation
                lines = [line.replace("0.125,10,", "0.125,20,") for line in path.open() if not line.startswith("0.25")]
                write_text(path, "".join(lines))
                yield run, state

    result = race(Coarse({"a": 0.3, "b": 0.5, "scratch": 0.1}))
    assert [(mark.at, mark.step) for mark in result.winner.marks[0.25]] == [(0.125, 20)]


def test_other_runs_are_not_overwritten(race, tmp_path):
    race(Trainings({"a": 0.3, "scratch": 0.1}))
    (tmp_path / "race/new").mkdir()
    (tmp_path / "race/new/config.yaml").touch()
    record = tmp_path / "race/a/sweep.json"
    record.write_text(record.read_text().replace("x.yaml", "y.yaml"))
    with pytest.raises(InputError) as refused:
        race(Trainings({"a": 0.3, "new": 0.1}))
    assert "race/a was run with --config=y.yaml where this race has --config=x.yaml" in str(refused.value)
    assert "race/new holds a run that no race started" in str(refused.value)


def test_an_earlier_pause_does_not_stand_for_a_rung(race):
    """a was not paused at 1/4 by the first race; the winner has been trained to its end by hand."""
    dice = {"a": 0.9, "b": 0.5, "scratch": 0.1}
    race(Trainings(dice), names=["a", "scratch"], rungs=[0.125, 1.0])
    result = race(Trainings(dice))
    assert "race/a has no validation scores after 1/4" in result.courses[0].outcome
    assert result.decision.winner == "b"


def test_a_winner_that_was_trained_to_its_end_by_hand_keeps_its_earlier_scores(race, caplog):
    class Ended(Trainings):
        def run(self, runs, jobs=1, command_line=None):
            for run, state in super().run(runs):
                path = RunFolder(Path(run.folder)).validation
                write_text(path, "".join(line for line in path.open() if not line.startswith("1.0")))
                yield run, state

    result = race(Ended({"a": 0.9, "scratch": 0.1}))
    assert (result.decision.winner, result.decision.at) == ("a", 0.125)
    assert "race/a has no validation scores after all" in caplog.text


def test_other_rungs_need_another_folder(race):
    race(Trainings({"a": 0.3, "scratch": 0.1}), rungs=[0.5, 1.0])
    with pytest.raises(InputError, match=r"no validation scores after 1/8 .* choose another --out"):
        race(Trainings({"a": 0.3, "scratch": 0.1}))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"names": ["a"]}, "only one candidate is given"),
        ({"names": ["a", "a"]}, "a: 2 candidates have this name"),
        ({"rungs": [0.5, 0.25]}, "expected ascending fractions"),
        ({"rungs": []}, "expected ascending fractions"),
        ({"rungs": [2.0]}, "expected ascending fractions"),
        ({"jobs": 0}, "jobs is 0"),
    ],
)
def test_unusable_options_are_refused(race, options, problem):
    with pytest.raises(InputError, match=problem):
        race(Trainings({"a": 0.3, "scratch": 0.1}), **options)


def cases(*people):
    return [Case(f"s{number}", {}, person=person) for number, person in enumerate(people)]


def test_each_person_is_left_out_once():
    folds = folds_of(cases("x", "y", "x", "z"))
    assert [fold.val for fold in folds] == [("s0", "s2"), ("s1",), ("s3",)]
    assert [fold.train for fold in folds] == [("s1", "s3"), ("s0", "s2", "s3"), ("s0", "s1", "s2")]
    six = folds_of(cases(*"abcdef"))
    assert [fold.val for fold in six] == [("s0", "s4"), ("s1", "s5"), ("s2",), ("s3",)]
    with pytest.raises(InputError, match="too few to leave out one in turn"):
        folds_of(cases("x", "x"))


def test_cases_are_left_out_in_turn(race, monkeypatch):
    folds = folds_of(cases("x", "y"))
    monkeypatch.setattr(riskft.rank.race, "race_folds", lambda arguments: folds)
    trainings = Trainings({"a": 0.3, "b": 0.5, "scratch": 0.1})
    result = race(trainings, rungs=[0.125, 0.25])
    one = [("a", 0.125), ("b", 0.125), ("scratch", 0.125)]
    assert sorted(trainings.trained[:6]) == sorted(one * 2)
    # 6/8 are spent: one more whole training fits, and 2 x 1/8, but not 4 x 1/8 ... of a budget of 2
    assert trainings.trained[6:] == [("b", 1.0)]
    assert (result.folds, result.decision.runner_up.cases) == (2, 2)
    assert result.cost == pytest.approx(6 / 8 + 1)


def test_a_cluster_trains_a_rung(tmp_path, monkeypatch):
    """One run is in the queue since an earlier start; one of the others fails."""
    runs = [Run(str(tmp_path / name), ["--config=x.yaml"], {"at": 0.5}, tested=False) for name in "abc"]
    busy = InputError("squeue does not show the queue")
    queues = [
        {runs[0].folder},
        {runs[0].folder, runs[1].folder},
        busy,
        {runs[1].folder},
        {runs[1].folder},
        set(),
        set(),
    ]
    submitted = []

    def submit(folder, name, due, options):
        submitted.append([run.folder for run in due])
        write_record(runs[0], ["fit"])
        write_record(runs[1], ["fit"])
        RunFolder(tmp_path / "c").failure.write_text("fit: no GPU")

    monkeypatch.setattr(race_runners, "POLL_SECONDS", 0)
    monkeypatch.setattr(race_runners, "queue", mock.Mock(side_effect=queues))
    monkeypatch.setattr(race_runners, "submit", submit)
    ended = [(run.folder, state.name) for run, state in cluster_runner(tmp_path, SlurmOptions())(runs)]
    assert submitted == [[runs[1].folder, runs[2].folder]]
    assert ended == [(runs[2].folder, "failed"), (runs[0].folder, "finished"), (runs[1].folder, "finished")]


@pytest.mark.slow
def test_a_race_of_trainings(tiny_manifest, tmp_path, monkeypatch):
    """A source, one whose file is broken, and scratch; without validation cases, each is scored on cases left out."""
    context = multiprocessing.get_context("fork")  # everything is imported here already
    monkeypatch.setattr(riskft.sweep.local, "prepared_processes", lambda: context)
    study = Study(tmp_path, tiny_manifest)
    (tmp_path / "broken.pt").write_bytes(b"nothing")

    def candidate(name, *more):
        arguments = study.arguments(method="scratch" if name == "scratch" else "vanilla")[1:]
        place = arguments.index("--run.folder")
        return Candidate(name, [*arguments[:place], *arguments[place + 2 :], *more])

    candidates = [
        candidate("t2"),
        candidate("broken", "--model.source.checkpoint", str(tmp_path / "broken.pt")),
        candidate("scratch"),
    ]
    result = run_race(candidates, RaceOptions(tmp_path / "out", jobs=2), main)
    assert "broken.pt" in result.courses[1].outcome
    assert {result.courses[0].outcome, result.courses[2].outcome} == {"won", "dropped after 1/8 of the steps"}
    assert [(mark.at, mark.step) for mark in result.winner.marks[1.0]] == [(1.0, 9)]
    assert set(result.winner.marks[0.125][0].dice) == {("case03", "shell"), ("case03", "core")}
    assert "on one case" in " ".join(result.sentences())
    result.write(tmp_path / "out")
