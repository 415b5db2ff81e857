"""Decisions of a race, against numbers computed by hand."""

import math

import numpy as np
import pytest

from riskft.rank.decision import Rung, case_means, decide, fraction_text, going_on, ranking

NAN = math.nan


def dice(*values, classes=("a", "b")):
    """Dice by case and class: one tuple of classes per case."""
    return {(f"case{i}", name): value for i, row in enumerate(values) for name, value in zip(classes, row, strict=True)}


def test_means_are_over_classes_then_cases():
    rung = Rung(0.5, {"x": dice((0.5, 0.7), (0.2, 0.4)), "y": dice((0.9, 0.9), (0.1, 0.1))})
    means = case_means(rung.dice)
    np.testing.assert_allclose(means["x"], [0.6, 0.3])
    np.testing.assert_allclose(means["y"], [0.9, 0.1])
    order = ranking(rung)
    assert [name for name, _ in order] == ["y", "x"]
    assert [mean for _, mean in order] == pytest.approx([0.5, 0.45])


def test_a_class_counts_where_all_candidates_have_a_value():
    """b is in the label of no case: y segments it in the first, x in none."""
    both = {"x": dice((0.5, NAN), (0.7, NAN)), "y": dice((0.6, 0.0), (0.6, NAN))}
    means = case_means(both)
    np.testing.assert_allclose(means["x"], [0.5, 0.7])
    np.testing.assert_allclose(means["y"], [0.6, 0.6])
    nothing = Rung(1.0, {"x": dice((NAN, NAN)), "y": dice((NAN, NAN))})
    assert [name for name, _ in ranking(nothing)] == ["x", "y"]


def test_equal_candidates_keep_their_order():
    same = dice((0.5, 0.5))
    assert [name for name, _ in ranking(Rung(1.0, {"b": same, "a": same}))] == ["b", "a"]


def test_the_winner_and_its_gains():
    """Scratch takes part in the first rung only; the runner-up is that of the second."""
    first = Rung(
        0.125,
        {
            "t1": dice((0.4, 0.4), (0.5, 0.5), (0.6, 0.6)),
            "t2": dice((0.5, 0.5), (0.5, 0.5), (0.8, 0.8)),
            "scratch": dice((0.2, 0.2), (0.1, 0.1), (0.3, 0.3)),
        },
    )
    second = Rung(
        0.25,
        {"t1": dice((0.6, 0.8), (0.5, 0.5), (0.9, 0.9)), "t2": dice((0.6, 0.6), (0.4, 0.4), (0.7, 0.7))},
    )
    third = Rung(1.0, {"t1": dice((0.8, 0.8), (0.8, 0.8), (0.8, 0.8))})
    found = decide([first, second, third], "t1")
    assert (found.winner, found.candidates, found.at) == ("t1", 3, 1.0)
    assert found.dice == pytest.approx(0.8)
    assert found.runner_up is not None
    assert (found.runner_up.over, found.runner_up.at, found.runner_up.cases) == ("t2", 0.25, 3)
    assert found.runner_up.gain == pytest.approx((0.1 + 0.1 + 0.2) / 3)
    # all three differences are positive, and so is each mean of draws from them; 4 % of the draws are 0.2 three times
    assert (found.runner_up.low, found.runner_up.high) == pytest.approx((0.1, 0.2))
    assert not found.runner_up.separable  # three cases agree by chance once in four times
    assert found.scratch is not None
    assert (found.scratch.over, found.scratch.at) == ("scratch", 0.125)
    assert found.scratch.gain == pytest.approx((0.2 + 0.4 + 0.3) / 3)
    text = " ".join(found.sentences())
    assert "t1: validation Dice 0.800 after all steps." in text
    assert (
        "+13.3 Dice points over t2 after 1/4 of the steps (+10.0 to +20.0, 95 % interval over 3 cases): the cases"
        in text
    )
    assert "do not separate them; fewer than 6 cannot." in text
    assert "+30.0 Dice points over scratch after 1/8 of the steps" in text
    assert "the best of 3 on these cases" in text


def test_cases_that_disagree_do_not_separate():
    found = decide([Rung(1.0, {"x": dice((0.9, 0.9), (0.2, 0.2)), "y": dice((0.5, 0.5), (0.4, 0.4))})], "x")
    assert found.winner == "x"
    assert found.runner_up is not None
    # the mean of two draws of +0.4 and -0.2 is one of them in a quarter of the draws each
    assert (found.runner_up.gain, found.runner_up.low, found.runner_up.high) == pytest.approx((0.1, -0.2, 0.4))
    assert not found.runner_up.separable
    assert "the cases do not separate them" in " ".join(found.sentences())


@pytest.mark.parametrize(("cases", "separable"), [(5, False), (6, True)])
def test_few_cases_separate_nothing(cases, separable):
    better, worse = (dice(*[(value, value)] * cases) for value in (0.6, 0.5))
    (gain,) = {decide([Rung(1.0, {"x": better, "y": worse})], "x").runner_up}
    assert (gain.gain, gain.low, gain.high) == pytest.approx((0.1, 0.1, 0.1))
    assert gain.separable is separable
    assert ("the cases separate them." in gain.sentence()) is separable


def test_one_case_has_no_interval():
    found = decide([Rung(0.5, {"x": dice((0.9, 0.9)), "scratch": dice((0.5, 0.5))})], "x")
    assert found.runner_up == found.scratch
    assert found.runner_up is not None
    assert math.isnan(found.runner_up.low)
    assert not found.runner_up.separable
    lines = found.sentences()
    assert sum("over scratch" in line for line in lines) == 1
    assert "on one case: there is no interval" in lines[1]


def test_no_case_with_a_dice_is_no_gain():
    found = decide([Rung(0.5, {"x": dice((NAN, NAN)), "scratch": dice((0.5, NAN))})], "x")
    assert found.sentences()[:2] == [
        "x: no case has a validation Dice after 1/2 of the steps.",
        "No case has a Dice both of the winner and of scratch after 1/2 of the steps.",
    ]


def test_scratch_may_win_and_one_candidate_is_no_choice():
    found = decide([Rung(1.0, {"x": dice((0.1, 0.1)), "scratch": dice((0.5, 0.5))})], "scratch")
    assert (found.winner, found.scratch) == ("scratch", None)
    assert "Training from scratch won" in found.sentences()[1]
    alone = decide([Rung(1.0, {"x": dice((0.1, 0.1))})], "x")
    assert alone.runner_up is None
    assert len(alone.sentences()) == 1


@pytest.mark.parametrize(
    ("count", "left", "each", "last", "expected"),
    [
        # after 1/8 of the steps, with a budget of 2
        (4, 2 - 4 / 8, 1 / 8, 3 / 4, 2),
        (5, 2 - 5 / 8, 1 / 8, 3 / 4, 3),
        (1, 2 - 1 / 8, 1 / 8, 3 / 4, 1),
        # no candidate can be trained to its end any more
        (12, 2 - 12 / 8, 1 / 8, 3 / 4, 1),
        (12, 100.0, 1 / 8, 3 / 4, 6),
        # after 1/4: two would cost 2 * 3/4
        (3, 1.0, 3 / 4, 0.0, 1),
        (3, 1.5, 3 / 4, 0.0, 2),
    ],
)
def test_the_better_half_goes_on_within_the_budget(count, left, each, last, expected):
    assert going_on(count, left, each, last) == expected


def test_fractions_are_readable():
    assert [fraction_text(part) for part in (1 / 8, 0.25, 0.3, 1.0)] == ["1/8", "1/4", "30 %", "all"]
