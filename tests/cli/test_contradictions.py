"""Checkpoints against commands that ask something else, and runs that are not what they are called."""

import csv
import json
from pathlib import Path

import pytest
import torch
import yaml
from monai.networks.nets import UNet

from riskft.cli import main

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
TINY = Path(__file__).parent / "tiny.yaml"
QUICK = TINY.with_name("quick.yaml")

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_pictures")]


@pytest.fixture(scope="module")
def study(tmp_path_factory, tiny_manifest):
    """A folder with a run from scratch on t1 and t2, and an unrelated file of weights."""
    root = tmp_path_factory.mktemp("record")
    torch.manual_seed(0)
    torch.save(UNet(3, 1, 3, (4, 8), (2,)).state_dict(), root / "source.pt")
    main(["fit", *options(root, tiny_manifest, "--data.modalities", "[t1, t2]")])
    main(["test", "--config", str(root / "runs/tiny/scratch/seed=0/config.yaml")])
    return root


def options(root, manifest, *more, method="scratch"):
    return [
        *("--config", str(TINY), "--config", str(CONFIGS / f"method/{method}.yaml")),
        *("--config", str(QUICK)),
        *("--data.reader.init_args.csv", str(manifest), "--data.cache_dir", str(root / "cache")),
        *("--run.root", str(root / "runs"), "--trainer.max_epochs", "1", *more),
    ]


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 1
    return capsys.readouterr().err


def test_a_refused_resume_names_everything_at_once_and_changes_nothing(study, tiny_manifest, capsys):
    folder = study / "runs/tiny/scratch/seed=0"
    before = files(folder)
    text = refused(
        capsys, "fit", *options(study, tiny_manifest, "--data.modalities", "[t2, t1]"), "--ckpt_path", "last",
        "--data.labels.classes", "{shell: [2], core: [1]}", "--data.patch_size", "[24, 24, 16]",
        "--data.preprocessing.spacing", "[2, 2, 2]", "--data.train_limit", "1", "--model.optimizer", "torch.optim.SGD",
        "--model.loss.dice_weight", "0", "--seed_everything", "1", "--run.folder", str(folder),
    )  # fmt: skip
    for said in (
        "data.modalities: [t1, t2] in the checkpoint, [t2, t1] in this command",
        "data.labels.classes.shell: [1] in the checkpoint, [2] in this command",
        "data.patch_size: [16, 16, 16] in the checkpoint, [24, 24, 16] in this command",
        "data.preprocessing.spacing: null in the checkpoint, [2.0, 2.0, 2.0] in this command",
        "data.train_limit: null in the checkpoint, 1 in this command",
        "training cases: case00, case01, case02 in the checkpoint",
        "model.optimizer: ",
        "model.loss.init_args.dice_weight: 1.0 in the checkpoint, 0.0 in this command",
        "seed_everything: 0 in the checkpoint, 1 in this command",
        "--run.overwrite true",
    ):
        assert said in text, said
    assert files(folder) == before


def test_an_explicit_path_is_compared_too_and_other_epochs_are_welcome(study, tiny_manifest, capsys):
    last = study / "runs/tiny/scratch/seed=0/checkpoints/last.ckpt"
    arguments = ["fit", *options(study, tiny_manifest, "--data.modalities", "[t1, t2]"), "--ckpt_path", str(last)]
    assert "run.method: scratch in the checkpoint, more in this command" in refused(
        capsys, *arguments, "--run.method", "more"
    )
    other = study / "further"
    main([*arguments, "--run.folder", str(other), "--trainer.max_epochs", "2", "--data.num_workers", "1"])
    assert torch.load(other / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 6


@pytest.mark.parametrize(
    ("command", "more", "said"),
    [
        ("test", ["--data.labels.classes", "{shell: [1], nucleus: [2]}"], "data.labels.classes: {shell: [1], core"),
        ("test", ["--data.labels.classes", "{shell: [2], core: [1]}"], "data.labels.classes.core: [2] in the"),
        ("validate", ["--data.preprocessing.orientation", "LPS"], "data.preprocessing.orientation: RAS in the"),
        ("predict", ["--data.modalities", "[t2, t1]"], "data.modalities: [t1, t2] in the checkpoint, [t2, t1]"),
        ("predict", ["--model.source.network.init_args.channels", "[8, 8]"], "source.network.init_args.channels: "),
        ("predict", ["--ckpt_path", "source.pt"], "weights to start from are given as --model.source.checkpoint"),
    ],
)
def test_weights_are_not_used_for_what_they_were_not_trained_for(study, capsys, monkeypatch, command, more, said):
    monkeypatch.chdir(study)
    config = study / "runs/tiny/scratch/seed=0/config.yaml"
    text = refused(capsys, command, "--config", str(config), *more)
    assert said in text
    assert "Traceback" not in text


def test_the_checkpoint_knows_the_order_of_the_classes(study, tmp_path):
    folder = study / "runs/tiny/scratch/seed=0"
    before = (folder / "cases.csv").read_text()
    main(["test", "--config", str(folder / "config.yaml"), "--data.labels.classes", "{core: [2], shell: [1]}"])
    assert (folder / "cases.csv").read_text() == before


def test_training_cases_are_not_scored_as_test_cases(study, tiny_manifest, tmp_path, capsys):
    config = str(study / "runs/tiny/scratch/seed=0/config.yaml")
    with tiny_manifest.open() as stream:
        rows = list(csv.DictReader(stream))
    # since the training another split: the first training case has become a test case
    rows[0]["split"] = "test"
    moved = tiny_manifest.with_name("moved.csv")
    with moved.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    text = refused(capsys, "test", "--config", config, "--data.reader.init_args.csv", str(moved))
    assert "these test cases were training cases of the checkpoint: case00" in text


def test_a_source_that_was_trained_otherwise_is_said_so(study, tiny_manifest, caplog):
    source = study / "runs/tiny/scratch/seed=0/checkpoints/best.ckpt"
    both = ["--data.modalities", "[t1, t2]", "--run.method", "tuned"]
    main([
        "fit", *options(study, tiny_manifest, *both, method="vanilla"),
        "--model.source.checkpoint", str(source), "--data.preprocessing.orientation", "LPS",
    ])  # fmt: skip
    assert "data.preprocessing.orientation: RAS in the checkpoint, LPS in this command" in caplog.text
    assert "training cases: the source was trained on case00, case01, case02 too" in caplog.text


def test_scratch_is_from_scratch_whatever_the_command_line_says(study, tiny_manifest, capsys, caplog):
    source = ["--model.source.checkpoint", str(study / "source.pt")]
    states = []
    for name, more in (("with", source), ("without", [])):
        folder = study / name
        main(["fit", *options(study, tiny_manifest, *more), "--run.folder", str(folder)])
        states.append(torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"])
        assert json.loads((folder / "record.json").read_text())["start"]["fraction"] == 0
    assert "are not loaded, because model.source.load is none" in caplog.text
    assert all(torch.equal(states[1][key], value) for key, value in states[0].items() if key.startswith("network."))
    # the other way round: what starts from a source does not start without one
    text = refused(capsys, "fit", *options(study, tiny_manifest, method="vanilla"))
    assert "model.source.checkpoint is not set" in text
    text = refused(
        capsys, "fit", *options(study, tiny_manifest, *source, method="vanilla"), "--model.source.load", "none"
    )
    assert "model.source.load is none, and phase 1" in text


def test_scores_are_not_kept_as_those_of_another_run(study, tiny_manifest, capsys):
    both = ["--data.modalities", "[t1, t2]", "--run.method", "other"]
    main(["fit", *options(study, tiny_manifest, *both)])
    best = study / "runs/tiny/scratch/seed=0/checkpoints/best.ckpt"
    text = refused(capsys, "test", *options(study, tiny_manifest, *both), "--ckpt_path", str(best))
    assert "is of method scratch, seed 0, and its scores would be kept in" in text
    assert not (study / "runs/tiny/other/seed=0/cases.csv").exists()
    both[-1] = "as_it_is"  # a folder of its own
    main(["test", *options(study, tiny_manifest, *both), "--ckpt_path", str(best)])
    assert (study / "runs/tiny/as_it_is/seed=0/cases.csv").is_file()


def test_compare_and_validity_believe_the_record_and_not_the_name(study, tiny_manifest, capsys):
    folders = {}
    for name in ("vanilla", "scratch"):  # both of which load the source, whatever they are called
        folder = folders[name] = study / "named" / name
        main([
            "fit", *options(study, tiny_manifest, method="vanilla"), "--run.folder", str(folder), "--run.method", name,
            "--model.source.checkpoint", str(study / "source.pt"),
            "--model.source.network.init_args.out_channels", "3",
        ])  # fmt: skip
        main(["test", "--config", str(folder / "config.yaml")])
        assert yaml.safe_load((folder / "config.yaml").read_text())["model"]["source"]["load"] == "network"
    main(["compare", str(study / "named"), "--out", str(study / "report")])
    assert "is called scratch, but" in capsys.readouterr().out
    assert "is called scratch, but" in (study / "report/report.html").read_text()
    text = refused(capsys, "validity", str(folders["vanilla"]), "--scratch", str(folders["scratch"]))
    assert "was not trained from scratch" in text
