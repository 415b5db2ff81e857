"""``riskft validity`` on tiny runs: against `predict`, the risk store and the labels on disk."""

import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml

from riskft.cli import main
from riskft.risk.store import RiskStore
from riskft.run.folder import RunFolder
from riskft.validity.cases import examined
from riskft.validity.opening import open_pair
from riskft.validity.pairs import find_pairs
from riskft.validity.predictors import region

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
TINY = Path(__file__).parent / "tiny.yaml"
QUICK = TINY.with_name("quick.yaml")
SUBJECTS = ("case04", "case05")

pytestmark = pytest.mark.slow


def fit(root, manifest, method, *more):
    main(
        [
            *("fit", "--config", str(TINY), "--config", str(CONFIGS / "method" / f"{method}.yaml")),
            *("--config", str(QUICK)),
            *("--data.reader.init_args.csv", str(manifest), "--data.cache_dir", str(root / "cache")),
            # another grid than the scan's own
            *("--data.preprocessing.spacing", "[1.4, 1.4, 1.7]", "--trainer.max_epochs", "4"),
            *("--run.root", str(root / "runs"), *more),
        ]
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory, tiny_manifest):
    """A source trained on t1, a plain fine-tuning with averaged weights and a run from scratch on t2."""
    root = tmp_path_factory.mktemp("validity")
    fit(root, tiny_manifest, "scratch", "--run.method", "source", "--data.modalities", "[t1]")
    source = root / "runs/tiny/source/seed=0/checkpoints/best.ckpt"
    ema = ("--config", str(CONFIGS / "trainer/ema.yaml"))
    fit(root, tiny_manifest, "vanilla", *ema, "--model.source.checkpoint", str(source))
    fit(root, tiny_manifest, "scratch")
    return root


def runs(study):
    return tuple(str(study / "runs/tiny" / method / "seed=0") for method in ("vanilla", "scratch"))


@pytest.fixture(scope="module")
def out(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out") / "validity"
    run, scratch = runs(study)
    main(["validity", run, "--scratch", scratch, "--out", str(folder), "--maps", "true", "--margin", "2"])
    return folder


def rows(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def predicted(study, tmp_path_factory):
    """What `riskft predict` gives for both runs, by method and subject."""
    found = {}
    for run in runs(study):
        method, folder = Path(run).parent.name, tmp_path_factory.mktemp("predicted")
        main(["predict", "--config", f"{run}/config.yaml", "--out", str(folder), "--dtype", "uint8"])
        for subject in SUBJECTS:
            found[method, subject] = np.asarray(nib.load(folder / f"{subject}.nii.gz").dataobj)
    return found


@pytest.mark.parametrize("subject", SUBJECTS)
def test_map_has_the_scan_s_geometry_and_is_what_predict_gives(out, predicted, tiny_manifest, subject):
    scan, label = (nib.load(tiny_manifest.parent / f"{subject}_{kind}.nii.gz") for kind in ("t2", "label"))
    found = nib.load(out / f"{subject}_negative_transfer.nii.gz")
    assert found.shape == scan.shape
    np.testing.assert_array_equal(found.affine, scan.affine)
    assert found.get_data_dtype() == np.uint8
    assert b"2 negative transfer" in found.header["descrip"].item()
    codes, truth = np.asarray(found.dataobj), np.asarray(label.dataobj)
    right, reference = (predicted[method, subject] == truth for method in ("vanilla", "scratch"))
    np.testing.assert_array_equal(codes == 1, ~right & ~reference)
    np.testing.assert_array_equal(codes == 2, ~right & reference)
    np.testing.assert_array_equal(codes == 3, right & ~reference)
    assert (codes == 0).any()
    assert (codes > 0).any()
    hardness = nib.load(out / f"{subject}_hardness.nii.gz")
    assert hardness.shape == scan.shape
    np.testing.assert_array_equal(hardness.affine, scan.affine)
    values = np.asarray(hardness.dataobj)
    assert values.min() >= 0
    assert values[truth > 0].mean() > values[truth == 0].mean()  # rare classes are harder


def test_volumes_add_up_to_the_label_s(out, tiny_manifest):
    found = rows(out / "volumes.csv")
    assert [(row["subject"], row["class_name"]) for row in found] == [
        (subject, name) for subject in SUBJECTS for name in ("background", "shell", "core")
    ]
    for number, row in enumerate(found):
        image = nib.load(tiny_manifest.parent / f"{row['subject']}_label.nii.gz")
        codes = np.asarray(nib.load(out / f"{row['subject']}_negative_transfer.nii.gz").dataobj)
        inside = np.asarray(image.dataobj) == number % 3
        ml = abs(np.linalg.det(image.affine[:3, :3])) / 1000
        values = {key: float(value) for key, value in row.items() if key.endswith("_ml")}
        assert values["label_ml"] == pytest.approx(inside.sum() * ml, abs=1e-6)
        names = ("both_right_ml", "both_wrong_ml", "negative_transfer_ml", "positive_transfer_ml")
        for code, name in enumerate(names):
            assert values[name] == pytest.approx((codes[inside] == code).sum() * ml, abs=1e-6)
        assert sum(values[name] for name in names) == pytest.approx(values["label_ml"], abs=1e-6)
        assert values["finetuned_wrong_ml"] == pytest.approx(
            values["both_wrong_ml"] + values["negative_transfer_ml"], abs=1e-6
        )


def test_tables_and_figure_are_complete(out):
    found = rows(out / "validity.csv")
    targets = ("error", "negative transfer", "foreground error")
    predictors = ("hardness", "relative to prior", "rank in class", "class prior", "source entropy", "EEP entropy",
                  "boundary")  # fmt: skip
    assert [(row["target"], row["predictor"]) for row in found] == [
        (target, name) for target in targets for name in predictors
    ]
    assert {(row["run"], row["seed"]) for row in found} == {("tiny/vanilla", "0")}
    errors = [row for row in found if row["target"] == "error"]
    assert all(0 <= float(row["low"]) <= float(row["auroc"]) <= float(row["high"]) <= 1 for row in errors)
    assert all(row["cases"] == "2" and 0 < float(row["pooled_prevalence"]) < 1 for row in errors)
    assert len(rows(out / "case_scores.csv")) == 2 * 21
    assert (out / "roc.png").stat().st_size > 10_000


def test_hardness_is_phase_1_s_and_predictions_are_test_s(study):
    """On a training case, whose hardness lies in the risk store; and against the predictions on the prepared grid."""
    run, scratch = (Path(folder) for folder in runs(study))
    pair = open_pair(find_pairs([run], [scratch])[0])
    case = pair.run.data.prepared("train")[1]
    voxels, _ = examined(pair, pair.loaded(), case, 2, None)
    store = RiskStore.of(RunFolder(run).risk.store())
    label = torch.from_numpy(np.asarray(nib.load(case.folder / "label.nii").dataobj).astype(np.int64))
    chosen = region(label, 2)
    torch.testing.assert_close(voxels.predictors["hardness"], store.read_hardness(case.subject)[0][chosen])
    state = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    assert "current_model_state" in state  # the weights are averages
    for name, value in pair.run.module.state_dict().items():
        torch.testing.assert_close(value, state["state_dict"][name], rtol=0, atol=0)
    image = case.to_subject()["image"].data[None].float()
    with torch.no_grad():
        prediction = pair.run.module.infer(image).argmax(1)[0]
    wrong = (prediction != label)[chosen]
    assert 0 < wrong.sum() < len(wrong)
    torch.testing.assert_close(voxels.targets["error"].bool(), wrong)


def test_results_are_not_overwritten_unasked(study, out, capsys):
    run, scratch = runs(study)
    arguments = ["validity", run, "--scratch", scratch, "--out", str(out)]
    before = (out / "validity.csv").read_text()
    with pytest.raises(SystemExit):
        main(arguments)
    assert "--overwrite true" in capsys.readouterr().err
    for name in ("validity.csv", "case_scores.csv", "volumes.csv", "roc.png"):
        (out / name).rename(out / f"{name}.kept")
    with pytest.raises(SystemExit):
        main([*arguments, "--maps"])
    assert "negative_transfer.nii.gz" in capsys.readouterr().err
    main([*arguments, "--maps", "true", "--margin", "2", "--overwrite", "true"])
    assert (out / "validity.csv").read_text() == before


def copied(folder, target, **changes):
    """Copies a run, with changes of its config by dotted keys."""
    shutil.copytree(folder, target)
    config = yaml.safe_load((target / "config.yaml").read_text())
    for key, value in changes.items():
        *parents, name = key.split("__")
        part = config
        for parent in parents:
            part = part[parent]
        part[name] = value
    (target / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return target


def test_several_seeds(study, tmp_path, capsys):
    for method in ("vanilla", "scratch"):
        folder = study / "runs/tiny" / method / "seed=0"
        copied(folder, tmp_path / "runs" / method / "seed=0")
        copied(folder, tmp_path / "runs" / method / "seed=1", seed_everything=1)
    # the hardness of the training cases may have gone
    for seed in (0, 1):
        summary = tmp_path / f"runs/vanilla/seed={seed}/risk/summary.json"
        summary.write_text(json.dumps({**json.loads(summary.read_text()), "maps": str(tmp_path / "gone/a/b")}))
    main(["validity", str(tmp_path / "runs/vanilla"), "--scratch", str(tmp_path / "runs/scratch"), "--maps", "true",
          "--out", str(tmp_path / "out")])  # fmt: skip
    printed = capsys.readouterr().out
    assert "all seeds: negative transfer" in printed
    assert "no 'rank in class'" in printed
    found = rows(tmp_path / "out/validity.csv")
    assert [row["seed"] for row in found] == ["0"] * 18 + ["1"] * 18 + ["all"] * 18
    for first, both in zip(found[:18], found[36:], strict=True):  # the same run twice
        assert (first["auroc"], first["pooled_ap"]) == (both["auroc"], both["pooled_ap"])
        assert both["interval_over"] in ("seeds and cases", "seeds alone", "-")
    for seed in (0, 1):
        assert (tmp_path / f"out/tiny/vanilla/seed={seed}/case04_hardness.nii.gz").is_file()


def test_runs_that_do_not_belong_together_are_refused(study, tmp_path, tiny_manifest, capsys):
    run, scratch = (Path(folder) for folder in runs(study))

    def said(run, scratch):
        with pytest.raises(SystemExit) as stopped:
            main(["validity", str(run), "--scratch", str(scratch), "--out", str(tmp_path / "out")])
        assert stopped.value.code == 1
        return capsys.readouterr().err

    other = copied(scratch, tmp_path / "a", data__train_limit=2, data__labels__classes={"shell": [1], "inner": [2]})
    message = said(run, other)
    assert "has the classes ['background', 'shell', 'inner'], expected ['background', 'shell', 'core']" in message
    assert "lacks the training cases case0" in message
    assert "has other images, labels or preprocessing for the test cases case04, case05" in message
    stale = copied(run, tmp_path / "b", model__inferer__init_args__overlap=0.5)
    assert "was made with another inference" in said(stale, scratch)
    unfit = copied(scratch, tmp_path / "c", data__patch_size="large")
    assert "config.yaml" in said(run, unfit)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there(study, tmp_path, capsys):
    run, scratch = runs(study)
    with pytest.raises(SystemExit) as stopped:
        main(["validity", run, "--scratch", scratch, "--out", str(tmp_path), "--accelerator", "cuda"])
    assert stopped.value.code == 1
    assert "Choose another device with --accelerator" in capsys.readouterr().err
