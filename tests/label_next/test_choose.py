"""Choices computed by hand."""

import numpy as np
import pytest

from riskft.label_next.choose import by_risk_and_distance, by_typicality, standardised

NONE = np.zeros((0, 1))


def line(*places):
    """Scans with one feature."""
    return np.array(places, dtype=float)[:, None]


def indices(choices):
    return [choice.index for choice in choices]


def test_standardised_features_are_about_root_two_apart_and_constant_ones_are_left_out():
    generator = np.random.default_rng(0)
    features = np.concatenate([generator.normal(50, 9, (300, 8)), np.full((300, 2), 0.1)], axis=1)
    one, two = standardised(features[:200], features[200:])
    every = np.concatenate([one, two])
    assert (len(one), len(two)) == (200, 100)
    np.testing.assert_allclose(every[:, :8].mean(0), 0, atol=1e-12)
    np.testing.assert_allclose((every[:, :8] ** 2).mean(0), 1 / 8)
    assert not every[:, 8:].any()
    squared = ((every[0::2] - every[1::2]) ** 2).sum(1)
    assert squared.mean() == pytest.approx(2, rel=0.1)


def test_rank_times_distance_decides():
    # ranks 1/4, 2/4, 3/4, 1; distances to the labelled scan at 0: 8, 6, 2, 1; products 2, 3, 1.5, 1
    found = by_risk_and_distance(np.array([0.1, 0.2, 0.3, 9.0]), line(8, 6, 2, 1), line(0), 3)
    # then distances 2, -, 2, 1 and products 0.5, -, 1.5, 1; then 2, -, -, 1 and 0.5, -, -, 1
    assert indices(found) == [1, 2, 3]
    assert [choice.distance for choice in found] == [6, 2, 1]
    assert found[0].reason == "3rd highest expected risk of 4 scans; farther from those labelled than 2 of 3 others"
    assert found[1].reason == (
        "2nd highest expected risk of 4 scans; farther from those labelled or chosen than 1 of 2 others"
    )
    assert found[2].reason == "highest expected risk of 4 scans"  # of the two left, it is the nearer


def test_without_a_labelled_scan_the_highest_risk_comes_first():
    found = by_risk_and_distance(np.array([1.0, 3.0, 2.0]), line(0, 5, 6), NONE, 2)
    assert indices(found) == [1, 0]  # ranks 1/3, 2/3 with distances 5, 1: products 5/3, 2/3
    assert np.isnan(found[0].distance)
    assert found[0].reason == "highest expected risk of 3 scans"
    assert found[1].reason == "3rd highest expected risk of 3 scans; farther from those chosen than 1 of 1 other"


def test_ties_go_to_the_higher_risk_and_then_to_the_first():
    # products: 2/3 x 3, 1 x 2, 1/3 x 6, all 2
    assert indices(by_risk_and_distance(np.array([2.0, 3.0, 1.0]), line(3, 2, 6), line(0), 1)) == [1]
    assert indices(by_risk_and_distance(np.array([1.0, 1.0, 1.0]), line(4, 4, 4), line(0), 3)) == [0, 1, 2]


def test_copies_of_chosen_scans_come_last():
    found = by_risk_and_distance(np.array([5.0, 5.0, 1.0]), line(9, 9, 3), line(0), 5)
    assert indices(found) == [0, 2, 1]  # all three, although five are wanted
    assert found[2].reason.endswith("; the same as one that is labelled or chosen")


def test_there_may_be_no_scan():
    assert by_risk_and_distance(np.array([]), NONE, line(0), 2) == []
    assert by_typicality(NONE, NONE, 2) == []


def test_typical_scans_of_the_largest_groups():
    # groups: 0 to 4 (five scans) and 20 to 23 (three scans), neighbours: 2 and 1
    features = line(20, 0, 1, 21, 2, 3, 23, 4)
    found = by_typicality(features, NONE, 2)
    # mean distances to two neighbours: 1.5, 1, 1, 1, 1.5, the first of the smallest; to one neighbour: 1, 1, 2
    assert indices(found) == [2, 0]
    assert found[0].reason == "the most typical of 5 similar scans, none of which is labelled"
    assert np.isnan(found[0].distance)
    assert found[1].distance == 19


def test_groups_with_a_labelled_scan_wait():
    features = line(0, 1, 2, 3, 50, 51)
    assert indices(by_typicality(features, line(1.5), 1)) == [4]
    assert indices(by_typicality(features, NONE, 1))[0] in (1, 2)


def test_every_scan_can_be_chosen():
    features = line(0, 0, 0, 70)
    found = by_typicality(features, NONE, 9)
    assert sorted(indices(found)) == [0, 1, 2, 3]
    assert {choice.reason for choice in found} == {"all scans are chosen"}
    assert indices(by_typicality(features, NONE, 9)) == indices(found)
    assert [choice.reason for choice in by_typicality(line(5), NONE, 1)] == ["the only scan"]


def test_reasons_tell_a_lone_scan_and_further_ones_of_a_group_from_typical_ones():
    # three scans that are the same are one group, although there could be three
    found = by_typicality(line(0, 70, 0, 0), NONE, 3)
    assert indices(found) == [0, 1, 2]
    assert found[0].reason == "the most typical of 3 similar scans, none of which is labelled"
    assert found[1].reason == "unlike the other 3 scans"
    assert found[2].reason == "another of 3 similar scans"
    # at 0 and at 71 there is a labelled scan
    found = by_typicality(line(0, 35, 71), line(0, 71), 2)
    assert indices(found) == [1, 0]
    assert [choice.reason for choice in found] == ["unlike the other 2 scans", "similar to one that is labelled"]
    assert by_typicality(line(3, 9), NONE, 1)[0].reason == "the most typical of all 2 scans, none of which is labelled"


@pytest.mark.parametrize("place", [1, 2, 3, 4, 11, 12, 21, 22, 23])
def test_ordinals(place):
    risk = np.arange(30.0)
    features = np.full((30, 1), 1.0)
    features[30 - place] = 1000.0
    ending = {1: "", 2: "2nd ", 3: "3rd ", 4: "4th ", 11: "11th ", 12: "12th ", 21: "21st ", 22: "22nd ", 23: "23rd "}
    (choice,) = by_risk_and_distance(risk, features, np.zeros((1, 1)), 1)
    assert choice.reason.startswith(f"{ending[place]}highest expected risk of 30 scans")
