"""What `riskft data check` passes is trained on; what it refuses, `riskft fit` refuses in the same words."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from riskft.cli import main

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
TINY = Path(__file__).parent / "tiny.yaml"
AFFINE = np.array([[1.2, 0, 0, 11], [0, 1.5, 0, -7], [0, 0, 2, 23], [0, 0, 0, 1.0]])
SHEARED = AFFINE + 0.3 * np.eye(4, k=1)

pytestmark = pytest.mark.slow


def ball(shape=(20, 18, 17), seed=0):
    """Returns noise with a bright ball, and the ball with its core."""
    grid = np.indices(shape) - np.array(shape)[:, None, None, None] / 2 + 0.5
    distance = np.sqrt((grid**2).sum(0)) / max(shape)
    label = (distance < 0.3).astype(np.uint8) + (distance < 0.15)
    return 50 + 40.0 * label + np.random.default_rng(seed).normal(0, 5, shape), label.astype(np.uint8)


def sparse(label):
    kept = np.full_like(label, 9)
    kept[:, :, :2] = 0
    kept[9:11, 9:11, 0] = 1
    return kept


def change(image=lambda v: v, label=lambda v: v, shape=(20, 18, 17), affine=AFFINE):
    def make(seed):
        one, two = ball(shape, seed)
        return image(one), label(two), affine

    return make


PASSED = {
    "uint16": change(lambda v: v.astype(np.uint16)),
    "int64 big-endian label": change(label=lambda v: v.astype(">i8")),
    "big-endian": change(lambda v: v.astype(">f4")),
    "negative": change(lambda v: -v),
    "one slice": change(shape=(20, 18, 1)),
    "two voxels thick": change(shape=(20, 2, 17)),
    "tiny": change(shape=(3, 3, 3)),
    "of the patch's size": change(shape=(16, 16, 16)),
    "sheared": change(affine=SHEARED),
    "far away": change(affine=AFFINE + 1e6 * np.eye(4, k=3)),
    "0.02 mm": change(affine=np.diag([0.02, 0.02, 0.02, 1.0])),
    "trailing axes": change(lambda v: v[..., None], lambda v: v[..., None]),
    "no foreground": change(label=lambda v: 0 * v),
    "ignored": change(label=lambda v: 0 * v + 9),
    "annotated at the edge": change(label=sparse),
    "head 01_é name": change(),
    "HEAD 01_é NAME": change(),
}

REFUSED = {
    "nan": change(lambda v: np.where(v > 100, np.nan, v)),
    "beyond": change(lambda v: v * 1e38),
    "collapsed": change(lambda v: v * 1e-60),
    "constant": change(lambda v: 0 * v + 7),
    "complex": change(lambda v: v.astype(np.complex64)),
    "colours": change(lambda v: np.zeros(v.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])),
    "four axes": change(lambda v: np.stack([v, v], -1)),
    "no class": change(label=lambda v: v * 3),
    "not whole": change(label=lambda v: v * 0.5),
    "shape": change(label=lambda v: v[1:]),
}


def options(root, cases, *more):
    """Writes cases for training and test, and a sound one for validation too; returns the options."""
    root.mkdir(exist_ok=True)
    rows = ["subject,split,t2,label"]
    for number, (name, make) in enumerate({"sound": change(), **cases}.items()):
        for index, split in enumerate(("train", "test") if number else ("train", "test", "val")):
            image, label, affine = make(10 * number + index)
            for kind, volume in (("image", image), ("label", label)):
                dtype = {"dtype": volume.dtype} if volume.dtype.kind in "iu" else {}
                nib.save(nib.Nifti1Image(volume, affine, **dtype), root / f"{number}_{split}_{kind}.nii")
            rows.append(f"{name} {split},{split},{number}_{split}_image.nii,{number}_{split}_label.nii")
    (root / "m.csv").write_text("\n".join(rows) + "\n")
    return [
        *("--config", str(TINY), "--config", str(CONFIGS / "method/scratch.yaml")),
        *("--data.reader.init_args.csv", str(root / "m.csv"), "--data.cache_dir", str(root / "cache")),
        *("--data.labels.ignore", "[9]", "--data.patches_per_volume", "1", "--trainer.max_epochs", "1"),
        *("--run.root", str(root / "runs"), "--wandb.enabled", "false", *more),
    ]


def problems(text):
    return [line for line in text.splitlines() if line.startswith("  - ")]


def test_what_the_check_passes_is_trained_on_tested_and_segmented(tmp_path, capsys):
    arguments = options(tmp_path / "data", PASSED, "--data.preprocessing.spacing", "[2, 2, 2]")
    main(["data", "check", *arguments])
    assert f"{2 * len(PASSED) + 3} cases" in capsys.readouterr().out
    for command in ("fit", "test"):
        main([command, *arguments])
    main(["predict", *arguments, "--out", str(tmp_path / "out")])
    assert len(list((tmp_path / "out").iterdir())) == len(PASSED) + 1


def test_what_the_check_refuses_fit_refuses_in_the_same_words_before_it_prepares_anything(tmp_path, capsys):
    arguments = options(tmp_path / "data", REFUSED)
    found = []
    for command in (["data", "check"], ["fit"]):
        with pytest.raises(SystemExit) as stopped:
            main([*command, *arguments])
        assert stopped.value.code == 1
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        found.append(captured.out if command[0] == "data" else captured.err)
    told, refused = problems(found[0].split("warning")[0]), problems(found[1])
    assert told == refused
    assert {line.split(": ")[0].removeprefix("  - ").rsplit(" ", 1)[0] for line in told} == set(REFUSED)
    assert not (tmp_path / "data/cache/cases").exists()


@pytest.mark.parametrize(
    ("cases", "more", "words"),
    [
        ({}, ["--data.batch_size", "5"], "train: too few patches: an epoch has 1 patches, fewer than data.batch_size"),
        (
            {"metres": change(affine=np.diag([400.0, 400.0, 800.0, 1.0]))},
            ["--data.preprocessing.spacing", "[1, 1, 1]"],
            "metres train: too large after resampling",
        ),
        ({}, ["--data.labels.classes", "{shell: [3]}", "--data.labels.background", "[0, 1, 2]"], "nothing to learn"),
    ],
)
def test_options_that_do_not_fit_the_data_are_refused_by_both(tmp_path, capsys, cases, more, words):
    arguments = options(tmp_path / "data", cases, "--data.batch_size", "1", *more)
    for command in (["data", "check"], ["fit"]):
        with pytest.raises(SystemExit) as stopped:
            main([*command, *arguments])
        assert stopped.value.code == 1
        captured = capsys.readouterr()
        assert words in captured.out + captured.err


def test_predict_leaves_labels_unread(tmp_path):
    arguments = options(tmp_path / "data", {"odd": change()}, "--data.batch_size", "1")
    main(["fit", *arguments])
    nib.save(nib.Nifti1Image(np.full((3, 3, 3), 0.5), np.eye(4)), tmp_path / "data/1_test_label.nii")
    main(["predict", *arguments, "--out", str(tmp_path / "out")])
    assert len(list((tmp_path / "out").iterdir())) == 2
