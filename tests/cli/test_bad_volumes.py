"""Volumes that cannot be used, through the real command line: three lines at most, before any training."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tiny_cohort import write_tiny_cohort

from riskft.cli import main

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
TINY = Path(__file__).parent / "tiny.yaml"

pytestmark = pytest.mark.slow


def refused(manifest, root, capsys, *more):
    with pytest.raises(SystemExit) as stopped:
        main(
            ["fit", "--config", str(TINY), "--config", str(CONFIGS / "method/scratch.yaml"),
             "--data.reader.init_args.csv", str(manifest), "--data.cache_dir", str(root / "cache"),
             "--run.root", str(root / "runs"), "--wandb.enabled", "false", *more]
        )  # fmt: skip
    assert stopped.value.code == 1
    error = capsys.readouterr().err
    assert "Traceback" not in error
    lines = error[error.index("riskft: ") :].splitlines()
    assert len(lines) <= 3
    return "\n".join(lines)


@pytest.fixture
def cohort(tmp_path):
    return write_tiny_cohort(tmp_path / "cohort")


def test_spacing_of_zero(cohort, tmp_path, capsys):
    path = cohort.parent / "case01_t2.nii.gz"
    image = nib.load(path)
    header = image.header.copy()
    header["pixdim"][2] = 0
    content = bytearray(nib.Nifti1Image(np.asarray(image.dataobj), image.affine).to_bytes())
    content[:348] = header.binaryblock  # nibabel would mend it
    (cohort.parent / "bad.nii").write_bytes(bytes(content))
    cohort.write_text(cohort.read_text().replace("case01_t2.nii.gz", "bad.nii"))
    message = refused(cohort, tmp_path, capsys)
    assert "bad.nii" in message
    assert "spacing is 1.2x0x2 mm, expected numbers above 0. Correct the header" in message


def test_four_axes_where_three_are_expected(cohort, tmp_path, capsys):
    path = cohort.parent / "case01_t2.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.stack([np.asarray(image.dataobj)] * 3, -1), image.affine), path)
    message = refused(cohort, tmp_path, capsys)
    assert "case01_t2.nii.gz" in message
    assert "riskft.MsdReader" in message
    assert "case01: not 3-D" in message


def test_a_network_that_cannot_be_built(cohort, tmp_path, capsys):
    config = tmp_path / "network.yaml"
    config.write_text("model: {source: {network: {class_path: riskft.MeshNet, init_args: {layers: []}}}}")
    message = refused(cohort, tmp_path, capsys, "--config", str(config))
    assert "layers is empty, expected one entry per convolution" in message
