"""There and back between grids: no voxel at the scan's border is lost."""

from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel.affines import apply_affine
from scipy.spatial.transform import Rotation

from riskft.data.io.native import to_native
from riskft.data.io.resample import beyond, covering_box, covering_grid, resampled
from riskft.data.labels import LabelMap
from riskft.data.prepare.preprocess import Preprocessing, preprocess
from riskft.data.records import Case
from riskft.evaluation.cases import native_segmentation

LABELS = LabelMap({"bar": [1]})
CODES = ("RAS", "LPS", "LIA", "PIR", "SRA", "ASL")
ANGLES = ((0, 0, 0), (12, -7, 25))
OWN = (1.0, 0.8, 1.7)
# finer, coarser by fractions in all axes, one axis only, far coarser, and its own
SPACINGS = ((0.6, 0.6, 0.6), (1.3, 1.3, 1.3), (1.0, 0.8, 2.5), (3.1, 3.7, 2.9), OWN)


def geometry(codes: str, angles=(0, 0, 0), spacing=OWN) -> np.ndarray:
    """An affine whose axes point to the codes, turned by the angles (degrees), with an offset."""
    reorder = np.zeros((3, 3))
    for axis, (world, sign) in enumerate(nib.orientations.axcodes2ornt(codes)):
        reorder[int(world), axis] = sign
    result = np.eye(4)
    result[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ reorder @ np.diag(spacing)
    result[:3, 3] = (31.7, -12.3, 4.9)
    return result


def bars(shape) -> np.ndarray:
    """Three bars through the whole volume, 8 voxels thick, that touch all six faces."""
    label = np.zeros(shape, np.uint8)
    for axis in range(3):
        place = [slice(size // 2 - 4, size // 2 + 4) for size in shape]
        place[axis] = slice(None)
        label[tuple(place)] = 1
    return label


def make(folder: Path, affine: np.ndarray, label: np.ndarray, image: np.ndarray | None = None) -> Case:
    if image is None:
        image = np.random.default_rng(0).normal(100, 10, label.shape).astype(np.float32)
    paths = [folder / "t1.nii.gz", folder / "label.nii.gz"]
    for path, array in zip(paths, (image, label), strict=True):
        nib.save(nib.Nifti1Image(array, affine), path)
    return Case("p01", {"t1": paths[0]}, paths[1])


def there_and_back(case: Case, **options) -> np.ndarray:
    """Classes on the scan's grid of a network that gives the prepared label."""
    volumes = preprocess(case, LABELS, Preprocessing(intensity=None, **options))
    classes = volumes.label[0].long()
    return native_segmentation(torch.stack([classes == 0, classes == 1]).float(), volumes.affine, case).classes


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


@pytest.mark.parametrize(("codes", "angles"), list(product(CODES, ANGLES)))
def test_a_label_on_all_six_faces_comes_back_on_them(tmp_path, codes, angles):
    label = bars((23, 25, 24))
    case = make(tmp_path, geometry(codes, angles), label)
    own = preprocess(case, LABELS, Preprocessing(intensity=None)).affine
    for spacing in SPACINGS:
        # OWN is along the file's axes, the options are along the orientation's
        wanted = np.linalg.norm(own[:3, :3], axis=0) if spacing == OWN else spacing
        found = there_and_back(case, spacing=tuple(float(edge) for edge in wanted))
        if spacing == OWN:
            np.testing.assert_array_equal(found, label)
            continue
        # a border can move by half a prepared voxel where it is sampled; a cross-section has 64 voxels
        assert dice(found, label) > (0.7 if max(spacing) > 3 else 0.85), spacing
        for axis, end in product(range(3), (0, -1)):
            face, neighbour = found.take(end, axis), found.take(3 if end == 0 else -4, axis)
            assert np.count_nonzero(face) >= 0.6 * 64, (spacing, axis, end)
            assert dice(face, neighbour) > 0.75, (spacing, axis, end)


@pytest.mark.parametrize("shape", [(9, 8, 1), (8, 9, 2), (3, 2, 2), (1, 1, 1)])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 5.0), (7.0, 7.0, 7.0), (0.7, 0.9, 0.5)])
def test_volumes_of_few_slices_are_neither_lost_nor_emptied(tmp_path, shape, spacing):
    case = make(tmp_path, geometry("LAS"), np.ones(shape, np.uint8))
    volumes = preprocess(case, LABELS, Preprocessing(intensity=None, spacing=spacing))
    size = np.array(shape) * OWN / spacing
    assert all(own <= found < own + 1 for found, own in zip(volumes.image.shape[1:], size, strict=True))
    assert (volumes.label == 1).all()
    assert there_and_back(case, spacing=spacing).all()


def test_values_past_the_last_centre_are_the_nearest_ones():
    # 5 voxels of 2 mm from 0 to 10 mm; of 1 mm the first centre, 0.5, and the last, 9.5, lie past 1 and 9
    affine = np.diag([2.0, 1, 1, 1])
    volume = torch.tensor([0.0, 10, 20, 30, 40]).reshape(1, 5, 1, 1)
    shape, target = covering_grid((5, 1, 1), affine, (1, 1, 1))
    assert shape == (10, 1, 1)
    np.testing.assert_allclose(apply_affine(target, (0, 0, 0)), (-0.5, 0, 0))
    found = resampled(volume, affine, shape, target).flatten().tolist()
    assert found == pytest.approx([0, 2.5, 7.5, 12.5, 17.5, 22.5, 27.5, 32.5, 37.5, 40], abs=1e-3)
    # labels are of the voxel that holds the centre
    labels = torch.tensor([1, 2, 3, 4, 5], dtype=torch.uint8).reshape(1, 5, 1, 1)
    found = resampled(labels, affine, shape, target, nearest=True)
    assert found.dtype == torch.uint8
    assert found.flatten().tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


@pytest.mark.parametrize(
    ("size", "spacing", "expected"),
    [(24, 2.5, 10), (25, 2.5, 10), (24, 1.0, 24), (24, 1.0005, 24), (24, 0.75, 32), (2, 5, 1), (6, 5, 2)],
)
def test_the_grid_is_the_smallest_that_covers_the_scan(size, spacing, expected):
    affine = geometry("LPI", (5, 10, 15), spacing=(1, 1, 1))
    shape, target = covering_grid((4, 4, size), affine, (1, 1, spacing))
    assert shape == (4, 4, expected)
    middle = [(np.array(grid) - 1) / 2 for grid in ((4, 4, size), shape)]
    np.testing.assert_allclose(apply_affine(affine, middle[0]), apply_affine(target, middle[1]), atol=1e-9)
    edge = 1.0 if expected == size else spacing
    np.testing.assert_allclose(np.linalg.norm(target[:3, :3], axis=0), (1, 1, edge))


def test_only_what_was_cropped_away_is_background(tmp_path):
    # an image of noise in a box from 6 to 15 of 24, in a background of 0
    image, label = np.zeros((24, 24, 24), np.float32), np.zeros((24, 24, 24), np.uint8)
    image[6:16, 6:16, 6:16] = np.random.default_rng(0).normal(100, 10, (10, 10, 10))
    label[6:16, 6:16, 6:16] = 1
    case = make(tmp_path, np.eye(4), label, image)
    for spacing in ((1.0, 1.0, 1.0), (2.5, 2.5, 2.5), (3.0, 4.0, 7.0)):
        volumes = preprocess(case, LABELS, Preprocessing(spacing=spacing, margin=0, intensity=None))
        native = to_native(torch.ones_like(volumes.image), volumes.affine, case)[0].numpy()
        assert (native[label == 1] == 1).all()  # however coarse, the head is in the crop
        away = max(spacing)
        box = tuple(slice(max(0, int(6 - away)), int(16 + away)) for _ in range(3))
        far = native.copy()
        far[box] = 0
        assert not far.any()
        assert (native == 0).any()


def test_a_box_of_voxels_is_covered_by_those_that_touch_it():
    first, last = np.array([2, 3, 0]), np.array([3, 3, 7])
    affine, target = np.eye(4), np.diag([2.5, 1, 2, 1])
    target[:3, 3] = (0.75, 0, 0.5)  # both grids begin at -0.5 mm
    starts, ends = covering_box(first, last, affine, target)
    # x: 1.5 to 3.5 mm, in voxels from -0.5, 2 and 4.5 mm on; z: 8 mm, four voxels
    assert starts.tolist() == [0, 3, 0]
    assert ends.tolist() == [1, 3, 3]


def test_beyond_is_half_a_voxel_past_the_outermost_centres():
    # centres at 0, 1, .., 6 mm; the other grid's voxels end at 0.5 and 4.5 mm
    other = np.diag([2.0, 1, 1, 1])
    other[0, 3] = 1.5
    found = beyond((2, 1, 1), other, (7, 1, 1), np.eye(4)).flatten().tolist()
    assert found == [True, False, False, False, False, True, True]


def test_a_sheared_affine_is_followed(tmp_path):
    affine = np.eye(4)
    affine[0, 1] = 0.2
    label = bars((12, 12, 12))
    case = make(tmp_path, affine, label)
    np.testing.assert_array_equal(there_and_back(case), label)
    assert dice(there_and_back(case, spacing=(0.5, 0.5, 0.5)), label) == 1
