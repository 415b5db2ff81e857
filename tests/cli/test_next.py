"""``riskft next`` on tiny scans, some of which are faulty or copies."""

import csv
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from tiny_cohort import write_tiny_cohort

from riskft.cli import main
from riskft.errors import InputError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
TINY = Path(__file__).parent / "tiny.yaml"
QUICK = TINY.with_name("quick.yaml")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory, tiny_manifest):
    """A run from scratch, and a folder of four new scans, two copies and two faulty files."""
    root = tmp_path_factory.mktemp("next")
    write_tiny_cohort(root / "more", subjects=10)
    scans = root / "scans"
    scans.mkdir()
    for number in (6, 7, 8, 9):
        shutil.copy(root / f"more/case{number:02d}_t2.nii.gz", scans / f"new{number}.nii.gz")
    shutil.copy(scans / "new7.nii.gz", scans / "twin7.nii.gz")
    shutil.copy(tiny_manifest.parent / "case01_t2.nii.gz", scans / "known.nii.gz")
    (scans / "cut.nii.gz").write_bytes((scans / "new8.nii.gz").read_bytes()[:2000])
    image = nib.load(scans / "new9.nii.gz")
    values = image.get_fdata()
    values[5, 5, 5] = np.nan
    nib.save(nib.Nifti1Image(values, image.affine), scans / "hole.nii.gz")
    main(
        [
            *("fit", "--config", str(TINY), "--config", str(CONFIGS / "method/scratch.yaml"), "--config", str(QUICK)),
            *("--data.reader.init_args.csv", str(tiny_manifest), "--data.cache_dir", str(root / "cache")),
            *("--run.root", str(root / "runs"), "--trainer.max_epochs", "2"),
        ]
    )
    return root


def rows(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_scans_of_highest_risk_that_are_unlike_the_labelled_ones(root, tmp_path, capsys):
    run, out = root / "runs/tiny/scratch/seed=0", tmp_path / "out"
    arguments = ["next", "--unlabelled", str(root / "scans"), "--run", str(run), "--out", str(out)]
    main([*arguments, "-k", "2", "--trainer.accelerator", "cpu"])
    printed = " ".join(capsys.readouterr().out.split())
    found = rows(out / "next.csv")
    assert [row["rank"] for row in found] == ["1", "2"]
    assert {row["subject"] for row in found} < {"new6", "new7", "new8", "new9"}
    assert [Path(row["files"]).name for row in found] == [f"{row['subject']}.nii.gz" for row in found]
    assert all(0 < float(row["mean_expected_risk"]) <= 1 and 0 <= float(row["expected_dice"]) < 1 for row in found)
    assert all(float(row["distance"]) > 0 for row in found)
    assert "highest expected risk of 4 scans; farther from those labelled" in found[0]["reason"]
    assert "twin7 is a copy of new7" in printed
    assert "known is a copy of the labelled case01" in printed
    assert "cut: unreadable file" in printed
    assert "hole: NaN or infinite voxels" in printed
    assert len(list(out.glob("next_[12]_new?.png"))) == 2
    with pytest.raises(SystemExit):
        main(arguments)
    assert "--overwrite true" in capsys.readouterr().err
    kept = list((root / "cache/looks").glob("*/*.npz"))
    assert len(kept) == 4 + 3  # the new scans, and the training cases
    kept[0].write_bytes(kept[0].read_bytes()[:100])
    main([*arguments, "-k", "9", "--overwrite"])
    again = rows(out / "next.csv")
    assert [row["subject"] for row in again[:2]] == [row["subject"] for row in found]
    assert len(again) == len(list(out.glob("*.png"))) == 4
    assert "fewer scans than the 9" in capsys.readouterr().out


def test_what_would_do_nothing_or_harm_results_is_refused(root, tmp_path, capsys, monkeypatch):
    run, out = root / "runs/tiny/scratch/seed=0", tmp_path / "out"
    arguments = ["next", "--unlabelled", str(root / "scans"), "--run", str(run), "--out", str(out), "--overwrite"]
    arguments += ["-k", "1", "--trainer.accelerator", "cpu"]

    def refused(*more):
        with pytest.raises(SystemExit):
            main([*arguments, *more])
        return capsys.readouterr().err

    message = refused("--images", "scans", "--probabilities")
    assert "--images" in message
    assert "--probabilities" in message
    assert "nowhere.ckpt" in refused("--ckpt_path", str(tmp_path / "nowhere.ckpt"))
    (tmp_path / "file").touch()
    message = refused("--data.cache_dir", str(tmp_path / "file"))
    assert message.count("--data.cache_dir") == 1
    assert "is a file" in message
    out.mkdir()
    earlier = [out / "next.csv", out / "next_1_old.png"]
    for path in earlier:
        path.touch()
    content = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    next(iter(content["state_dict"].values())).mul_(1.5)
    other = tmp_path / "other.ckpt"
    torch.save(content, other)
    looks = len(list((root / "cache/looks").glob("*")))

    def damaged(*scan):
        raise InputError("damaged since")

    with monkeypatch.context() as patch:
        patch.setattr("riskft.label_next.report.panel_of", damaged)
        assert "damaged since" in refused("--ckpt_path", str(other))
    assert sorted(out.iterdir()) == earlier
    assert len(list((root / "cache/looks").glob("*"))) == looks + 1  # of other weights
    earlier[0].unlink()
    earlier[0].mkdir()
    assert "next.csv: is a folder" in refused()


def test_before_the_first_label_a_source_finds_typical_scans(root, tmp_path, capsys):
    source = root / "runs/tiny/scratch/seed=0/checkpoints/best.ckpt"
    network = root / "network.yaml"
    text = TINY.read_text().partition("model:\n")[2].partition("  inferer:")[0]
    network.write_text(f"model:\n{text}")
    arguments = [
        *("next", "--unlabelled", str(root / "scans"), "--out", str(tmp_path / "out"), "--config", str(network)),
        *("--data.modalities", "[t2]", "--data.patch_size", "[16, 16, 16]", "--data.cache_dir", str(root / "cache")),
        *("--trainer.accelerator", "cpu"),
    ]
    main([*arguments, "-k", "1", "--model.source.checkpoint", str(source)])
    (row,) = rows(tmp_path / "out/next.csv")
    # without a data set, case01 is a new scan too
    assert row["subject"] in ("known", "new6", "new7", "new8", "new9")
    assert row["reason"] == "the most typical of all 5 scans, none of which is labelled"
    assert row["distance"] == row["expected_dice"] == ""
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main([*arguments, "--overwrite"])
    assert "Give --run with the folder of a fine-tuned run" in capsys.readouterr().err
