"""``riskft predict --expected_risk``: maps and ranked cases, the calibration kept, one process or two."""

import csv
import json
import re

import nibabel as nib
import numpy as np
import pytest
import torch
from forked_runs import ranks
from monai.networks.nets import UNet
from test_main_job import options

from riskft.cli import main
from riskft.training.case_estimates import CaseEstimates

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_pictures")]


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_manifest):
    """A fine-tuned run with phase 1."""
    root = tmp_path_factory.mktemp("expected")
    torch.manual_seed(0)
    torch.save(UNet(3, 1, 3, (4, 8), (2,)).state_dict(), root / "source.pt")
    more = ["--model.source.checkpoint", str(root / "source.pt"), "--model.source.network.init_args.out_channels", "3"]
    main(["fit", *options(root, tiny_manifest, "vanilla", *more, "--wandb.enabled", "false")])
    return root / "runs/tiny/vanilla/seed=0"


def predict(run, out, *more):
    main(["predict", "--config", str(run / "config.yaml"), "--out", str(out), "--expected_risk", *more])


def rows(out):
    with (out / "cases.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_maps_and_cases(run, tmp_path, tiny_manifest, caplog, capsys):
    predict(run, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *(f"case0{number}{end}" for number in (4, 5) for end in (".nii.gz", "_expected_risk.nii.gz")),
        *("cases.csv", "labels.txt", "labels.ctbl"),
    }
    for number in (4, 5):
        scan = nib.load(tiny_manifest.parent / f"case0{number}_t2.nii.gz")
        risk = nib.load(tmp_path / f"out/case0{number}_expected_risk.nii.gz")
        np.testing.assert_array_equal(risk.affine, scan.affine)
        assert risk.shape == scan.shape
        assert risk.get_data_dtype() == np.float32
        assert (risk.header["cal_min"], risk.header["cal_max"]) == (0, 1)
        values = np.asarray(risk.dataobj)
        assert 0 <= values.min() < values.max() <= 1
    found = rows(tmp_path / "out")
    assert {row["subject"] for row in found} == {"case04", "case05"}
    assert float(found[0]["mean_expected_risk"] or 1) >= float(found[1]["mean_expected_risk"])
    for row in found:
        labels = np.asarray(nib.load(tmp_path / f"out/{row['subject']}.nii.gz").dataobj)
        assert float(row["ml_core"]) == pytest.approx((labels == 2).sum() * 1.2 * 1.5 * 2 / 1000, abs=1e-3)
        assert 0 <= float(row["expected_dice_low"]) <= float(row["expected_dice"]) <= float(row["expected_dice_high"])
    estimate = json.loads((run / "estimate.json").read_text())
    assert (estimate["cases"], estimate["has_eep"]) == (["case03"], True)
    assert "calibrated on 1 validation case" in caplog.text

    # the calibration is kept; an interrupted prediction goes on with the cases that are missing
    before, of, done = (run / "estimate.json").stat().st_mtime_ns, CaseEstimates.of, []

    def one_only(self, *arguments):
        if done:
            raise KeyboardInterrupt
        done.append(of(self, *arguments))
        return done[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CaseEstimates, "of", one_only)
        with pytest.raises(SystemExit):
            predict(run, tmp_path / "again")
    assert (run / "estimate.json").stat().st_mtime_ns == before

    # with more validation cases it is fitted again, without those that cannot be read; this would mix calibrations
    other = tiny_manifest.with_name("more.csv")
    added = [("case06", "case05"), ("case07", "case07")]  # a copy, and files that are not there
    more = [f"{name},val,{files}_t1.nii.gz,{files}_t2.nii.gz,{files}_label.nii.gz\n" for name, files in added]
    other.write_text("".join([tiny_manifest.read_text(), *more]))
    with pytest.raises(SystemExit):
        predict(run, tmp_path / "again", "--data.reader.init_args.csv", str(other))
    assert "the expected risk on other validation cases" in " ".join(capsys.readouterr().err.split())
    assert re.search(r"without these validation cases:\s+- .*case07_t2", caplog.text)
    kept = json.loads((run / "estimate.json").read_text())
    assert kept["cases"] == kept["labelled"] == ["case03", "case06"]

    predict(run, tmp_path / "again")
    assert "1 of 2 segmentations are finished" in caplog.text
    assert rows(tmp_path / "again") == found

    with pytest.raises(SystemExit):
        predict(run, run)  # whose cases.csv is another table
    assert "is a run folder" in " ".join(capsys.readouterr().err.split())

    # two processes fit the same from their shares
    (run / "estimate.json").unlink()
    arguments = ["predict", "--config", str(run / "config.yaml"), "--out", str(tmp_path / "two"), "--expected_risk"]
    processes = ranks([*arguments, "--trainer.devices", "2"], tmp_path / "log", size=2)
    assert [process.wait(240) for process in processes] == [0, 0], processes[0].text
    assert json.loads((run / "estimate.json").read_text())["risk"] == estimate["risk"]
    assert rows(tmp_path / "two") == found


@pytest.mark.parametrize("split", ["train", "test"])
def test_without_unseen_validation_cases_the_entropy_is_shown(run, tmp_path, tiny_manifest, caplog, split):
    """There is no validation case, or only one that the network was trained on."""
    (run / "estimate.json").unlink(missing_ok=True)
    text = tiny_manifest.read_text().replace("case03,val", f"case03,{split}")
    if split == "train":
        text = text.replace("case00,train", "case00,val")
    other = tiny_manifest.with_name(f"{split}.csv")
    other.write_text(text)
    predict(run, tmp_path, "--data.reader.init_args.csv", str(other))
    assert caplog.text.count("The expected risk is not calibrated") == 1
    assert ("There is no labelled validation case (data.split)" in caplog.text) is (split == "test")
    assert ("names or people: case00" in caplog.text) is (split == "train")
    assert not (run / "estimate.json").exists()
    image = nib.load(tmp_path / "case04_expected_risk.nii.gz")
    assert image.header["descrip"].tobytes().startswith(b"entropy")
    assert len(rows(tmp_path)) == (2 if split == "train" else 3)
