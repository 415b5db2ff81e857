"""The real command line, end to end, on tiny volumes: fit, test, predict, riskmap, resume."""

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from pictures import leave_out_figures

from riskft.cli import main
from riskft.compare.exports import read_export
from riskft.data.io.volumes import read_volume
from riskft.risk.store import RiskStore
from riskft.training.case_panel import unseen_panel
from riskft.training.found_risk import find_risk
from riskft.validity.opening import load_run

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
TINY = Path(__file__).parent / "tiny.yaml"

pytestmark = pytest.mark.slow


def options(root, manifest, method, *more):
    return [
        *("--config", str(TINY), "--config", str(CONFIGS / "method" / f"{method}.yaml")),
        *("--data.reader.init_args.csv", str(manifest), "--data.cache_dir", str(root / "cache")),
        *("--run.root", str(root / "runs")),
        *more,
    ]


@pytest.fixture(scope="module")
def study(tmp_path_factory, tiny_manifest):
    """A source trained on t1, and a risk-weighted and a plain fine-tuning on t2."""
    root = tmp_path_factory.mktemp("study")
    main(["fit", *options(root, tiny_manifest, "scratch", "--run.method", "source", "--data.modalities", "[t1]")])
    source = root / "runs/tiny/source/seed=0/checkpoints/best.ckpt"
    for method in ("riskft", "vanilla"):
        main(["fit", *options(root, tiny_manifest, method, "--model.source.checkpoint", str(source))])
    return root


@pytest.fixture(scope="module")
def tested(study):
    """The risk-weighted run after `riskft test`."""
    folder = run_folder(study, "riskft")
    (folder / "heatmaps/test_old.png").touch()
    main(["test", "--config", str(folder / "config.yaml")])
    return folder


@pytest.fixture
def no_pictures(monkeypatch):
    """Small black pictures instead of figures, once the first runs have drawn theirs."""
    leave_out_figures(monkeypatch.setattr)


def run_folder(study, method):
    return study / "runs/tiny" / method / "seed=0"


@pytest.mark.parametrize("method", ["riskft", "vanilla"])
def test_fit_leaves_a_complete_run_folder(study, method):
    folder = run_folder(study, method)
    for name in ("config.yaml", "metrics.csv", "adaptation.csv", "checkpoints/best.ckpt", "checkpoints/last.ckpt"):
        assert (folder / name).is_file(), name
    assert "Unable to serialize" not in (folder / "config.yaml").read_text()
    assert {path.name for path in (folder / "risk").iterdir()} == {
        "classes.csv", "conditional.png", "manifest.json", "summary.json", "weights.png"
    }  # fmt: skip
    names = {path.name for path in (folder / "heatmaps").iterdir()}
    assert names == {"train_case00.png", "train_case01.png", "val_case03.png"}
    offline = list((folder / "wandb").glob("offline-run-*"))
    assert len(offline) == 1
    assert list((offline[0] / "files/media/images/risk").rglob("*.png"))
    checkpoint = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    made = checkpoint["riskft"]
    assert (made["class_names"], made["in_channels"]) == (["background", "shell", "core"], 1)
    assert made["classes"] == [["shell", [1]], ["core", [2]]]
    assert sorted(made["cases"]["train"]) == ["case00", "case01", "case02"]
    assert made == json.loads((folder / "record.json").read_text())
    assert checkpoint["global_step"] == 2 * 3


def test_training_saw_the_map_only_where_it_is_attached(study):
    def losses(method):
        with (run_folder(study, method) / "metrics.csv").open() as stream:
            return [row["train/loss"] for row in csv.DictReader(stream) if row.get("train/loss")]

    assert json.loads((run_folder(study, "riskft") / "risk/summary.json").read_text())["knowledge"] > 0
    weights = [
        torch.load(run_folder(study, method) / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for method in ("riskft", "vanilla")
    ]
    assert any(not torch.equal(weights[0][key], weights[1][key]) for key in weights[1])


def test_methods_share_the_maps(study):
    summaries = [
        json.loads((run_folder(study, method) / "risk/summary.json").read_text()) for method in ("riskft", "vanilla")
    ]
    assert summaries[0]["maps"] == summaries[1]["maps"]
    assert summaries[0]["joint"] == summaries[1]["joint"]


def test_test_scores_each_case_once_in_its_own_geometry(tested, tiny_manifest):
    folder = tested
    with (folder / "cases.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["subject"], row["class_name"]) for row in rows] == [
        (subject, name) for subject in ("case04", "case05") for name in ("shell", "core")
    ]
    # W&B has them too, each with its run, so that `riskft compare` can read what a project exports
    (table,) = folder.glob("wandb/offline-run-*-test/files/media/table/test/cases*.json")
    (exported,) = read_export(table, "dice")
    assert (exported.study, exported.method, exported.seed) == ("tiny", "riskft", 0)
    assert exported.scores == {(row["subject"], row["class_name"]): float(row["dice"]) for row in rows}
    label = np.asarray(nib.load(tiny_manifest.parent / "case04_label.nii.gz").dataobj)
    assert int(rows[0]["voxels_true"]) == int((label == 1).sum())
    assert all(0 <= float(row["dice"]) <= 1 for row in rows)


def test_test_draws_its_best_and_its_worst_case_with_the_risk_that_phase_1_would_have_given(tested):
    folder = tested
    assert {path.name for path in (folder / "heatmaps").glob("test_*")} == {"test_case04.png", "test_case05.png"}
    assert list(folder.glob("wandb/offline-run-*-test/files/media/images/risk/test/case04/hardness*.png"))
    # of cases that phase 1 has seen it is what phase 1 kept
    run = load_run(folder)
    found = find_risk(run.folder, run.module)
    assert found.stale(run.module, run.data) == []
    store = RiskStore.of(run.folder.risk.store())
    for case in run.data.prepared("train"):
        prediction = np.zeros(case.to_subject()["image"].spatial_shape, np.uint8)
        panel = unseen_panel(found, run.module, case, prediction)
        assert panel.weight is None
        assert panel.hardness.shape == panel.expected_class.shape == prediction.shape
        hardness = store.read_hardness(case.subject)[0].numpy()
        axes = nib.io_orientation(case.to_subject()["image"].affine)
        np.testing.assert_allclose(panel.hardness, nib.apply_orientation(hardness, axes), rtol=1e-4, atol=1e-5)
        source, _ = read_volume(store.expected_class_path(case.subject))
        assert (panel.expected_class != nib.apply_orientation(np.asarray(source), axes)).mean() < 1e-3


def test_a_test_without_what_phase_1_left_warns_and_scores(study, caplog):
    folder = run_folder(study, "vanilla")
    summary = folder / "risk/summary.json"
    text = summary.read_text()
    summary.write_text(text[: len(text) // 2])
    try:
        main(["test", "--config", str(folder / "config.yaml")])
    finally:
        summary.write_text(text)
    assert "No risk heatmaps of test cases." in caplog.text
    assert "summary.json is not valid JSON in UTF-8" in caplog.text
    assert (folder / "cases.csv").is_file()
    assert not list((folder / "heatmaps").glob("test_*"))
    # another phase 1 than the run's
    manifest = folder / "risk/manifest.json"
    text = manifest.read_text()
    manifest.write_text(json.dumps({**json.loads(text), "source": "another"}))
    try:
        main(["test", "--config", str(folder / "config.yaml")])
    finally:
        manifest.write_text(text)
    assert "was made with another source than config.yaml gives now" in caplog.text
    assert not list((folder / "heatmaps").glob("test_*"))


@pytest.mark.usefixtures("no_pictures")
def test_checkpoints_are_found_by_name_and_never_silently_missing(study, tmp_path, capsys):
    """Lightning goes on with untrained weights where it finds no "last"; nothing would say that these were scored."""
    folder = run_folder(study, "vanilla")
    config = str(folder / "config.yaml")

    def scores(*options):
        main(["test", "--config", config, *options])
        return (folder / "cases.csv").read_text()

    by_name = scores("--ckpt_path", "last")
    assert by_name == scores("--ckpt_path", str(folder / "checkpoints/last.ckpt"))
    assert not (folder / "cases.1.csv").exists()
    with pytest.raises(SystemExit) as stopped:
        main(["test", "--config", config, "--run.root", str(tmp_path), "--ckpt_path", "last"])
    assert stopped.value.code == 1
    assert "no checkpoint" in capsys.readouterr().err


def test_further_checkpoints_can_be_kept_and_the_run_be_tested(study, tiny_manifest, tmp_path):
    keep = tmp_path / "keep.yaml"
    keep.write_text(
        "trainer:\n  callbacks+:\n    - class_path: lightning.pytorch.callbacks.ModelCheckpoint\n"
        f"      init_args: {{dirpath: {tmp_path / 'kept'}, filename: '{{epoch}}', save_top_k: -1}}\n"
    )
    given = [*options(study, tiny_manifest, "scratch"), "--config", str(keep), "--run.method", "kept"]
    main(["fit", *given, "--trainer.max_epochs", "2"])
    folder = run_folder(study, "kept")
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {"epoch=0.ckpt", "epoch=1.ckpt"}
    main(["test", "--config", str(folder / "config.yaml")])
    assert (folder / "cases.csv").is_file()


@pytest.mark.usefixtures("no_pictures")
def test_overwriting_clears_what_was_there_and_is_not_passed_on(study, tiny_manifest):
    source = run_folder(study, "source") / "checkpoints/best.ckpt"
    fit = ["fit", *options(study, tiny_manifest, "riskft", "--model.source.checkpoint", str(source))]
    fit += ["--run.method", "again", "--run.overwrite", "true", "--trainer.check_val_every_n_epoch", "2"]
    main(fit)
    folder = run_folder(study, "again")
    first = (folder / "wandb_id").read_text()
    # five epochs, validated after the second and fourth: panels all the same; then nothing is validated at all
    main([*fit, "--trainer.max_epochs", "5"])
    assert (folder / "heatmaps/val_case03.png").is_file()
    assert (folder / "wandb_id").read_text() != first
    main([*fit, "--trainer.max_epochs", "1"])
    assert not (folder / "checkpoints/best.ckpt").exists()
    assert (folder / "checkpoints/last.ckpt").is_file()
    assert not (folder / "heatmaps/val_case03.png").exists()
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(folder / "config.yaml")])


def test_validation_without_any_value_does_not_end_the_training(study, tiny_manifest):
    """Neither label nor prediction has the class: there is no Dice, and the checkpoint callback must bear it."""
    arguments = options(study, tiny_manifest, "scratch", "--run.method", "empty", "--trainer.max_epochs", "1")
    # a class whose only value no scan has; the network starts with a head that never predicts it
    main(["fit", *arguments, "--data.labels.classes", "{nothing: [3]}", "--data.labels.background", "[0, 1, 2]",
          "--data.sampling", "riskft.UniformSampling", "--model.optimizer.init_args.lr", "0.5",
          "--data.check_files", "false"])  # fmt: skip
    with (run_folder(study, "empty") / "metrics.csv").open() as stream:
        assert "val/dice" in next(csv.reader(stream))
    assert (run_folder(study, "empty") / "checkpoints/last.ckpt").is_file()


def test_predict_writes_the_scan_s_geometry_and_refuses_to_overwrite(study, tiny_manifest, tmp_path, capsys):
    config = str(run_folder(study, "riskft") / "config.yaml")
    main(["predict", "--config", config, "--out", str(tmp_path)])
    for subject in ("case04", "case05"):
        scan, segmentation = (
            nib.load(tiny_manifest.parent / f"{subject}_t2.nii.gz"),
            nib.load(tmp_path / f"{subject}.nii.gz"),
        )
        assert segmentation.shape == scan.shape
        np.testing.assert_array_equal(segmentation.affine, scan.affine)
        assert segmentation.get_data_dtype() == scan.get_data_dtype() == np.float32
        assert set(np.unique(segmentation.dataobj)) <= {0, 1, 2}
    with pytest.raises(SystemExit) as stopped:
        main(["predict", "--config", config, "--out", str(tmp_path)])
    assert stopped.value.code == 1
    assert "--overwrite true" in capsys.readouterr().err
    main(["predict", "--config", config, "--out", str(tmp_path), "--overwrite", "true"])


@pytest.mark.usefixtures("no_pictures")
def test_riskmap_alone(study, tiny_manifest, tmp_path):
    main(["riskmap", "--config", str(run_folder(study, "riskft") / "config.yaml"), "--out", str(tmp_path / "maps")])
    for subject in ("case00", "case01", "case02"):
        scan = nib.load(tiny_manifest.parent / f"{subject}_t2.nii.gz")
        for kind in ("weight", "hardness"):
            volume = nib.load(tmp_path / "maps" / f"{subject}_{kind}.nii.gz")
            assert volume.shape == scan.shape
            np.testing.assert_array_equal(volume.affine, scan.affine)
            assert np.asarray(volume.dataobj).max() > 0
    with (tmp_path / "maps/risk_summary.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["class_name"] for row in rows] == ["background", "shell", "core"] * 3


@pytest.mark.usefixtures("no_pictures")
def test_a_finished_run_is_not_overwritten_but_resumed(study, tiny_manifest, capsys):
    folder = run_folder(study, "riskft")
    before = (folder / "checkpoints/last.ckpt").read_bytes()
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", str(folder / "config.yaml")])
    assert stopped.value.code == 1
    assert "--ckpt_path last" in capsys.readouterr().err
    assert (folder / "checkpoints/last.ckpt").read_bytes() == before
    main(["fit", "--config", str(folder / "config.yaml"), "--ckpt_path", "last", "--trainer.max_epochs", "3"])
    checkpoint = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 3 * 3
    assert (folder / "metrics.1.csv").is_file()


def test_data_check_passes_and_fails(study, tiny_manifest, tmp_path, capsys):
    main(["data", "check", *options(tmp_path, tiny_manifest, "riskft")])
    assert "6 cases" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        main(["data", "check", *options(tmp_path, tiny_manifest, "riskft"), "--data.labels.classes", "{shell: [1]}"])
    assert stopped.value.code == 1
    assert "no class" in capsys.readouterr().out
