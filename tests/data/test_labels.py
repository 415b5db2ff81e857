"""From label values to classes."""

import numpy as np
import pytest

from riskft.data.labels import IGNORE_INDEX, LabelMap
from riskft.errors import InputError


@pytest.mark.parametrize(
    ("arguments", "problems"),
    [
        ({"classes": {}}, ["labels.classes is empty"]),
        ({"classes": {"background": [1]}}, ["labels.classes names 'background'"]),
        ({"classes": {"core": []}}, ["labels.classes.core has no values"]),
        ({"classes": {"a": [1, 2], "b": [2]}}, ["label value 2 is in both 'a' and 'b'"]),
        ({"classes": {"a": [1, 1]}}, ["label value 1 is in both 'a' and 'a'"]),
        ({"classes": {"a": [0]}}, ["label value 0 is in both 'a' and 'background'"]),
        ({"classes": {"a": [1]}, "ignore": [1]}, ["label value 1 is in both 'a' and 'ignore'"]),
        ({"classes": {"a": [1]}, "regions": {"r": []}}, ["labels.regions.r has no values"]),
        ({"classes": {"a": [1, 2]}, "regions": {"r": [1]}}, ["labels.regions.r takes [1] of 'a' [1, 2]"]),
        ({"classes": {"a": [1]}, "regions": {"r": [0, 1]}}, ["labels.regions.r takes [0] of 'background' [0]"]),
        ({"classes": {"a": [1]}, "ignore": [9], "regions": {"r": [1, 9]}}, ["labels.regions.r takes [9] of 'ignore'"]),
        ({"classes": {"a": [1]}, "regions": {"r": [1, 7]}}, ["labels.regions.r has the values [7]"]),
        ({"classes": {"a": []}, "ignore": [0]}, ["labels.classes.a has no values", "label value 0 is in both"]),
    ],
)
def test_an_unusable_map_is_refused_with_all_reasons(arguments, problems):
    with pytest.raises(InputError, match="The label map is not usable") as caught:
        LabelMap(**arguments)
    assert len(caught.value.problems) == len(problems)
    assert all(problem in found for problem, found in zip(problems, caught.value.problems, strict=True))


def test_names_are_in_the_order_of_the_classes():
    assert LabelMap({"oedema": [2], "core": [1, 4]}).names == ("background", "oedema", "core")


def test_with_known_makes_the_other_values_background():
    labels = LabelMap({"core": [1, 4]}, ignore=[9])
    completed = labels.with_known({0, 1, 2, 3, 4, 9})
    assert completed.background == [0, 2, 3]
    assert (completed.classes, completed.ignore) == (labels.classes, [9])
    assert labels.background == [0]
    assert completed.with_known([]) == completed


def test_unknown_values():
    labels = LabelMap({"core": [1, 4]}, ignore=[9])
    assert labels.unknown([9, 7.5, 1, 0, 2, 2.0]) == [2.0, 7.5]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_to_classes(dtype):
    labels = LabelMap({"oedema": [2], "core": [1, 4]}, background=[0, 3], ignore=[9, 10])
    raw = np.array([[0, 1, 2], [3, 4, 9], [10, 2, 1]], dtype=dtype)
    mapped = labels.to_classes(raw)
    assert mapped.dtype == np.uint8
    assert mapped.tolist() == [[0, 2, 1], [0, 2, IGNORE_INDEX], [IGNORE_INDEX, 1, 2]]


def test_negative_values_and_a_foreground_zero():
    labels = LabelMap({"a": [-1], "b": [0]}, background=[5])
    assert labels.to_classes(np.array([-1, 0, 5], dtype=np.int8)).tolist() == [1, 2, 0]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (3, r"Label values 3 are in no class\. Add them to labels\.classes"),
        (-1, "Label values -1 are in no class"),
        (1234567, "Label values 1234567 are in no class"),
        (1.5, "Label values are not whole: 1.5"),
        (np.nan, "Label values are NaN or infinite"),
        (-np.inf, "Label values are NaN or infinite"),
    ],
)
def test_to_classes_refuses_what_the_map_does_not_place(value, words):
    with pytest.raises(InputError, match=words):
        LabelMap({"a": [1]}).to_classes(np.array([0, 1, value]))


def test_regions_are_unions_of_classes_and_what_is_scored():
    classes = {"necrosis": [1], "oedema": [2], "enhancing": [4]}
    assert LabelMap(classes).scored == {"necrosis": (1,), "oedema": (2,), "enhancing": (3,)}
    regions = {"whole": [1, 2, 4], "core": [4, 1], "enhancing": [4]}
    assert LabelMap(classes, regions=regions).scored == {"whole": (1, 2, 3), "core": (1, 3), "enhancing": (3,)}


def test_more_classes_than_indices_are_refused() -> None:
    assert len(LabelMap({f"c{value}": [value] for value in range(1, 255)}).names) == IGNORE_INDEX
    with pytest.raises(InputError, match=r"labels\.classes has 255 classes, expected at most 254"):
        LabelMap({f"c{value}": [value] for value in range(1, 256)})
