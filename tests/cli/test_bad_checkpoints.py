"""Checkpoints that cannot be used, through the real command line: three lines at most, and nothing is run."""

import logging
import os
from pathlib import Path

import pytest
import torch
from monai.networks import nets

from riskft.cli import main

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
TINY = Path(__file__).parent / "tiny.yaml"

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_pictures")]


class Payload:
    """Unpickled, it makes the marker folder."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (os.mkdir, (str(self.marker),))


def unet(classes=2, channels=(4, 8)):
    """The network of tiny.yaml by default."""
    return nets.UNet(3, 1, classes, channels, (2,)).state_dict()


def refused(root, manifest, method, checkpoint, capsys, *more):
    """Runs fit, and returns the lines of its refusal without the progress log."""
    with pytest.raises(SystemExit) as stopped:
        main(
            ["fit", "--config", str(TINY), "--config", str(CONFIGS / "method" / f"{method}.yaml"),
             "--data.reader.init_args.csv", str(manifest), "--data.cache_dir", str(root / "cache"),
             "--run.root", str(root / "runs"), "--wandb.enabled", "false",
             "--model.source.checkpoint", str(checkpoint), *more]
        )  # fmt: skip
    assert stopped.value.code == 1
    error = capsys.readouterr().err
    assert "Traceback" not in error
    lines = error[error.index("riskft: ") :].splitlines()
    assert len(lines) <= 4
    assert checkpoint.name in lines[0]
    assert not (root / "runs/tiny" / method / "seed=0/checkpoints/last.ckpt").exists()
    return lines


@pytest.fixture(autouse=True)
def _log_to_this_test():
    """The log's handler keeps the stream of the test in which it was made."""
    logging.getLogger("riskft").handlers.clear()


@pytest.fixture
def checkpoint(tmp_path):
    return tmp_path / "theirs.pt"


def test_another_number_of_classes(tmp_path, tiny_manifest, checkpoint, capsys):
    torch.save(unet(classes=5), checkpoint)
    lines = refused(tmp_path, tiny_manifest, "riskft", checkpoint, capsys)
    assert "'model.2.conv.weight': the file's head has 5 output channels, the network 2" in lines[1]
    assert "set out_channels / num_classes to 5" in lines[1]


@pytest.mark.parametrize("plain", [True, False])
def test_another_network(tmp_path, tiny_manifest, checkpoint, capsys, plain):
    torch.save(nets.SegResNet(3, 8, 1, 2, blocks_down=(1, 1), blocks_up=(1,)).state_dict(), checkpoint)
    # without phase 1 less than all would do, but not so little
    more = ["--trainer.callbacks", "[]", "--model.head_init", "random"] if plain else []
    lines = refused(tmp_path, tiny_manifest, "riskft", checkpoint, capsys, *more)
    assert "does not fit model.source.network (UNet)" in lines[0]
    assert "Give the network the class and options that it was trained with" in lines[0]
    assert "'model.0.conv.weight' is missing" in lines[1]
    assert ("model.source.min_loaded is 0.5" in lines[0]) == plain


def test_a_part_of_the_network_is_fine_tuned(tmp_path, tiny_manifest, checkpoint):
    """Without phase 1, another head is no hindrance: the new one starts anew anyway."""
    torch.save(unet(classes=5), checkpoint)
    main(
        ["fit", "--config", str(TINY), "--config", str(CONFIGS / "method/vanilla.yaml"),
         "--data.reader.init_args.csv", str(tiny_manifest), "--data.cache_dir", str(tmp_path / "cache"),
         "--run.root", str(tmp_path / "runs"), "--wandb.enabled", "false", "--model.source.checkpoint", str(checkpoint),
         "--trainer.callbacks", "[]", "--model.head_init", "random", "--model.source.min_loaded", "0.3",
         "--trainer.max_epochs", "1"]
    )  # fmt: skip
    rows = (tmp_path / "runs/tiny/vanilla/seed=0/adaptation.csv").read_text().splitlines()
    assert [row.rpartition(",")[2] for row in rows if row.startswith("model.2.conv")] == ["new", "new"]
    assert [row.rpartition(",")[2] for row in rows if row.startswith("model.0.conv")] == ["loaded", "loaded"]


def test_a_truncated_file(tmp_path, tiny_manifest, checkpoint, capsys):
    torch.save(unet(), checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    lines = refused(tmp_path, tiny_manifest, "riskft", checkpoint, capsys)
    assert "Is the file complete? Copy or download it again." in lines[0]


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_bomb(tmp_path, tiny_manifest, checkpoint, capsys, zipped):
    content = {"state_dict": unet(), "extra": Payload(tmp_path / "marker")}
    torch.save(content, checkpoint, _use_new_zipfile_serialization=zipped)
    lines = refused(tmp_path, tiny_manifest, "riskft", checkpoint, capsys)
    assert not (tmp_path / "marker").exists()
    assert f"riskft convert {checkpoint}" in lines[1]
    torch.load(checkpoint, weights_only=False)
    assert (tmp_path / "marker").exists()  # it was a real one


def test_a_folder_of_no_known_kind(tmp_path, tiny_manifest, capsys):
    (tmp_path / "theirs").mkdir()
    lines = refused(tmp_path, tiny_manifest, "riskft", tmp_path / "theirs", capsys)
    assert "is not a kind of folder that riskft knows. It holds: nothing." in lines[0]
