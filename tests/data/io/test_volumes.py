"""NIfTI files are written as nibabel writes them."""

import nibabel as nib
import numpy as np
import pytest

from riskft.data.io.volumes import write_nifti


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(5, 6, 7), (5, 6, 7, 2), (4, 1, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_byte_by_byte(tmp_path, dtype, shape, order):
    array = np.asarray(np.random.default_rng(0).uniform(0, 200, shape).astype(dtype), order=order)
    affine = np.diag([-1.0, 2.0, 3.0, 1.0])
    nib.save(nib.Nifti1Image(array, affine), tmp_path / "expected.nii")
    write_nifti(tmp_path / "found.nii", array, affine)
    assert (tmp_path / "found.nii").read_bytes() == (tmp_path / "expected.nii").read_bytes()
