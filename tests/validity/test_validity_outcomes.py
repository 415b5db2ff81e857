"""What became of voxels, counted by hand."""

import numpy as np
import pytest
import torch

from riskft.validity.scores import LEGEND, class_volumes, outcome_map, targets

TRUTH = (0, 0, 0, 1, 1, 1, 2, 2, 255)
TUNED = (0, 1, 1, 1, 0, 2, 0, 2, 0)
SCRATCH = (0, 0, 2, 0, 1, 0, 2, 2, 1)
CODES = (0, 2, 1, 3, 2, 1, 2, 0, 0)


def test_targets_by_hand():
    found = targets(*(torch.tensor(values[:-1]) for values in (TRUTH, TUNED, SCRATCH)))
    assert found["error"].tolist() == [0, 1, 1, 0, 1, 1, 1, 0]
    assert found["negative transfer"].tolist() == [0, 1, 0, 0, 1, 0, 1, 0]
    assert found["foreground error"].tolist() == [-1, -1, -1, 0, 1, 1, 1, 0]


def test_outcome_map_by_hand():
    found = outcome_map(*(np.array(values, dtype=np.uint8) for values in (TRUTH, TUNED, SCRATCH)))
    assert found.tolist() == list(CODES)
    assert found.dtype == np.uint8
    assert len(LEGEND) < 80  # what a NIfTI header holds


def test_volumes_add_up_to_the_class_s():
    truth, codes = (np.array(values, dtype=np.uint8).reshape(3, 3) for values in (TRUTH, CODES))
    background, first, second, empty = class_volumes(truth, codes, ["background", "a", "b", "c"], 0.5)
    assert (background.label_ml, background.negative_transfer_ml, background.both_wrong_ml) == (1.5, 0.5, 0.5)
    assert (first.finetuned_wrong_ml, first.scratch_wrong_ml, first.positive_transfer_ml) == (1.0, 1.0, 0.5)
    assert (second.both_right_ml, second.negative_transfer_ml, second.finetuned_wrong_ml) == (0.5, 0.5, 0.5)
    assert set(vars(empty).values()) == {"c", 0.0}
    for part in (background, first, second):
        whole = part.both_right_ml + part.both_wrong_ml + part.negative_transfer_ml + part.positive_transfer_ml
        assert whole == pytest.approx(part.label_ml)
