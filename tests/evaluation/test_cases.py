"""Whole cases: from the prepared grid to the scan's own, labels as on disk, and the scores of both."""

import nibabel as nib
import numpy as np
import pytest
import torch

from riskft.data.labels import LabelMap
from riskft.data.patches.batch import VolumeBatch
from riskft.data.records import Case
from riskft.errors import InputError
from riskft.evaluation.cases import (
    native_label,
    native_segmentation,
    score_native,
    score_prepared,
    spacing_of,
    voxel_ml,
)

NAMES = ["background", "a", "b"]
LABELS = LabelMap({"a": [1], "b": [4]}, ignore=[9])
AFFINE = np.diag([-1.0, 2.0, 3.0, 1.0])


@pytest.fixture
def case(tmp_path):
    """Six voxels in a row of 1 x 2 x 3 mm: background, a, a, b, b and one that does not count."""
    for name, values in (("t1", [5, 5, 5, 5, 5, 5]), ("label", [0, 1, 1, 4, 4, 9])):
        nib.save(nib.Nifti1Image(np.array(values, np.uint8).reshape(6, 1, 1), AFFINE), tmp_path / f"{name}.nii")
    return Case("p", {"t1": tmp_path / "t1.nii"}, tmp_path / "label.nii")


def cropped() -> tuple[torch.Tensor, np.ndarray]:
    """Probabilities, (3, 4, 1, 1), of the scan's last four voxels, and the grid's affine."""
    rows = [[0.2, 0.7, 0.1], [0.6, 0.3, 0.1], [0.1, 0.2, 0.7], [0.1, 0.2, 0.7]]
    affine = AFFINE.copy()
    affine[0, 3] = -2
    return torch.tensor(rows).T.reshape(3, 4, 1, 1), affine


def test_what_was_cropped_away_is_background(case):
    found = native_segmentation(*cropped(), case, keep_probabilities=True)
    assert found.subject == "p"
    assert found.classes.dtype == np.uint8
    assert found.classes.ravel().tolist() == [0, 0, 1, 0, 2, 2]
    expected = [[1, 0, 0], [1, 0, 0], *cropped()[0].reshape(3, 4).T.tolist()]
    np.testing.assert_allclose(found.probabilities.reshape(3, 6).T, expected, atol=1e-6)
    assert native_segmentation(*cropped(), case).probabilities is None


def test_a_label_is_read_as_it_is_on_disk(case):
    assert native_label(case, LABELS).ravel().tolist() == [0, 1, 1, 2, 2, 255]
    with pytest.raises(InputError, match="p: a test case needs a label"):
        native_label(Case("p", case.images), LABELS)


def test_scores_on_the_scan_s_grid(case):
    segmentation = native_segmentation(*cropped(), case)
    a, b = score_native(segmentation, case, LABELS, NAMES, {})
    # a: one of its two voxels, the only one predicted; 0 and 1 mm away, of which 95 % lie within 0.95
    # b: likewise, for the last voxel does not count
    assert (a.dice, a.hd95_mm, a.voxels_true, a.voxels_predicted) == (pytest.approx(2 / 3), pytest.approx(0.95), 2, 1)
    assert (b.dice, b.voxels_true, b.voxels_predicted) == (pytest.approx(2 / 3), 2, 1)
    (whole,) = score_native(segmentation, case, LABELS, NAMES, {"whole": [1, 2]})
    assert (whole.class_name, whole.dice) == ("whole", pytest.approx(2 * 2 / (2 + 4)))


def test_scores_on_the_prepared_grid():
    label = torch.tensor([0, 1, 1, 2, 2, 255], dtype=torch.uint8).reshape(1, 1, 6, 1, 1)
    volume = VolumeBatch("p", torch.zeros(1, 1, 6, 1, 1), label, AFFINE)
    classes = torch.tensor([0, 0, 1, 0, 2, 2]).reshape(6, 1, 1)
    quick, slow = (score_prepared(classes, volume, NAMES, {}, surface) for surface in (False, True))
    assert [score.dice for score in quick] == [score.dice for score in slow] == [pytest.approx(2 / 3)] * 2
    assert np.isnan(quick[0].hd95_mm)
    assert slow[0].hd95_mm == pytest.approx(0.95)
    with pytest.raises(InputError, match="p: a case to be scored needs a label"):
        score_prepared(classes, volume._replace(label=None), NAMES, {}, False)


def test_sizes_of_voxels():
    turned = AFFINE[:, [1, 0, 2, 3]]
    assert spacing_of(turned) == (2, 1, 3)
    assert voxel_ml(turned) == pytest.approx(0.006)
