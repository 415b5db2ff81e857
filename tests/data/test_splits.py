"""Splits: the same cases always land in the same split, and impossible wishes are refused with all reasons."""

from itertools import pairwise
from pathlib import Path

import pytest

from riskft.data.records import SPLITS, Case
from riskft.data.splits import FractionSplit, ListSplit, ReaderSplit, few_shot
from riskft.errors import InputError


def make(count: int, split: str | None = None, label: bool = True) -> list[Case]:
    name = "s" if label else "u"
    return [
        Case(f"{name}{k:02d}", {"t1": Path(f"{k}.nii")}, Path("seg.nii") if label else None, split)
        for k in range(count)
    ]


def names(cases: list[Case]) -> list[str]:
    return [case.subject for case in cases]


def test_reader_split() -> None:
    cases = [Case(split, {}, None, split) for split in SPLITS]
    assert ReaderSplit().assign(cases) == {split: [case] for split, case in zip(SPLITS, cases, strict=True)}


def test_reader_split_lists_all_cases_without() -> None:
    with pytest.raises(InputError) as caught:
        ReaderSplit().assign([*make(2), Case("fine", {}, None, "val")])
    assert caught.value.problems == ("s00", "s01")


def test_list_split_takes_names_and_patterns() -> None:
    splits = ListSplit(train=["s0[0-2]"], val=["s03"], test=["s1*"]).assign([*make(12), *make(1, label=False)])
    assert {split: names(cases) for split, cases in splits.items()} == {
        "train": ["s00", "s01", "s02"],
        "val": ["s03"],
        "test": ["s10", "s11"],
        "predict": ["u00"],
    }


def test_list_split_prefers_the_exact_name() -> None:
    cases = [Case("a[1]", {}, Path("x")), Case("a1", {}, Path("x"))]
    assert names(ListSplit(train=["a[1]"]).assign(cases)["train"]) == ["a[1]"]


def test_list_split_lists_all_problems() -> None:
    with pytest.raises(InputError) as caught:
        ListSplit(train=["s00", "s01", "x*", "s00"], val=["s0?"], test=["y"]).assign(make(2))
    text = str(caught.value)
    assert len(caught.value.problems) == 5
    for words in (
        "'s00' is in train twice",
        "'x*' in train",
        "'y' in test",
        "'s00' is in train and val",
        "'s01' is in",
    ):
        assert words in text


@pytest.mark.parametrize(
    ("count", "val", "test", "sizes"),
    [
        (10, 0.2, 0.2, (6, 2, 2)),
        (3, 0.2, 0.2, (1, 1, 1)),
        (13, 0.25, 0.5, (3, 3, 7)),
        (5, 0.0, 0.2, (4, 0, 1)),
        (4, 0.0, 1.0, (0, 0, 4)),
        (4, 0.5, 0.5, (0, 2, 2)),
    ],
)
def test_fraction_sizes(count: int, val: float, test: float, sizes: tuple[int, int, int]) -> None:
    splits = FractionSplit(val, test, seed=3).assign([*make(count), *make(2, label=False)])
    assert tuple(len(splits[name]) for name in ("train", "val", "test")) == sizes
    assert names(splits["predict"]) == ["u00", "u01"]
    assert sorted(name for cases in splits.values() for name in names(cases)) == [
        *names(make(count)),
        *names(make(2, label=False)),
    ]


def test_fraction_is_independent_of_listing_order_and_of_unlabelled_cases() -> None:
    cases = make(20)
    one = FractionSplit(seed=1).assign(cases)
    other = FractionSplit(seed=1).assign([*make(3, label=False), *reversed(cases)])
    for split in ("train", "val", "test"):
        assert sorted(names(one[split])) == sorted(names(other[split]))


def test_fraction_is_pinned_across_platforms() -> None:
    splits = FractionSplit(seed=0).assign(make(10))
    assert (names(splits["val"]), names(splits["test"])) == (["s03", "s06"], ["s02", "s04"])


def test_test_set_does_not_depend_on_val_and_depends_on_seed() -> None:
    tests = [names(FractionSplit(val, 0.2, seed=5).assign(make(30))["test"]) for val in (0.0, 0.1, 0.5)]
    assert tests[0] == tests[1] == tests[2]
    assert tests[0] != names(FractionSplit(seed=6).assign(make(30))["test"])


@pytest.mark.parametrize(("val", "test"), [(-0.1, 0.2), (0.2, 1.1), (0.6, 0.6), (float("nan"), 0.2)])
def test_fractions_out_of_range(val: float, test: float) -> None:
    with pytest.raises(InputError, match="fractions from 0 to 1"):
        FractionSplit(val, test)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_cases_for_the_fractions(count: int) -> None:
    with pytest.raises(InputError, match=f"{count} people with labelled cases are too few"):
        FractionSplit().assign([*make(count), *make(5, label=False)])


def test_few_shot_is_nested_and_ignores_order() -> None:
    cases = make(9)
    kept = [set(names(few_shot(cases, limit, seed=4))) for limit in range(1, 10)]
    assert [len(some) for some in kept] == list(range(1, 10))
    assert all(few <= more for few, more in pairwise(kept))
    assert set(names(few_shot(cases[::-1], 3, seed=4))) == kept[2]
    assert any(set(names(few_shot(cases, 3, seed=seed))) != kept[2] for seed in range(4))
    assert few_shot(cases, None) == cases


@pytest.mark.parametrize("limit", [0, -1, 4])
def test_few_shot_out_of_range(limit: int) -> None:
    with pytest.raises(
        InputError, match=f"data.train_limit is {limit}, expected 1 to 3, the people with training cases"
    ):
        few_shot(make(3), limit)


def test_fractions_leave_the_layout_s_own_test_cases_alone() -> None:
    apart = [Case(f"t{k}", {}, Path("seg.nii"), "test") for k in range(3)]
    splits = FractionSplit(val=0.2, test=0.2, seed=0).assign([*make(10), *apart])
    alone = FractionSplit(val=0.2, test=0.2, seed=0).assign(make(10))
    assert names(splits["test"]) == [*names(alone["test"]), "t0", "t1", "t2"]
    assert (splits["train"], splits["val"]) == (alone["train"], alone["val"])
    assert names(FractionSplit(val=0.2, test=0, seed=0).assign([*make(10), *apart])["test"]) == ["t0", "t1", "t2"]


def test_a_person_s_sessions_stay_together() -> None:
    cases = [
        Case(f"sub-{who:02d}_ses-{when}", {}, Path("seg.nii"), person=f"sub-{who:02d}")
        for who in range(10)
        for when in (1, 2)
    ]
    for seed in range(10):
        splits = FractionSplit(val=0.2, test=0.3, seed=seed).assign(cases)
        people = {split: {case.person for case in found} for split, found in splits.items()}
        assert [len(people[split]) for split in ("train", "val", "test")] == [5, 2, 3]
        assert not people["train"] & people["test"] | people["val"] & (people["train"] | people["test"])
        few = few_shot(splits["train"], 2, seed)
        assert len(few) == 4
        assert len({case.person for case in few}) == 2
