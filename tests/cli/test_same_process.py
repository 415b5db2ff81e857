"""Several commands of one trainer in one process, as in a notebook: each leaves the trainer as it found it."""

import shutil

import pytest
import torch
from monai.inferers import SlidingWindowInferer
from monai.networks.nets import UNet

from riskft import ManifestReader, ReaderSplit, RiskDataModule, RiskMapCallback, RiskModule, RiskTrainer, Source
from riskft.data.labels import LabelMap
from riskft.errors import InputError
from riskft.losses.weighted import RiskWeightedLoss

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_pictures")]


@pytest.fixture
def session(tmp_path, tiny_manifest):
    """A trainer, a module with a source and a data module, as a notebook has them."""
    torch.manual_seed(0)
    torch.save(UNet(3, 1, 3, (4, 8), (2,)).state_dict(), tmp_path / "source.pt")
    data = RiskDataModule(
        ManifestReader(str(tiny_manifest)),
        ["t2"],
        LabelMap({"shell": [1], "core": [2]}),
        split=ReaderSplit(),
        cache_dir=str(tmp_path / "cache"),
        patch_size=[16, 16, 16],
        patches_per_volume=2,
    )
    module = RiskModule(
        Source(UNet(3, 1, 3, (4, 8), (2,)), str(tmp_path / "source.pt")),
        data.class_names,
        1,
        loss=RiskWeightedLoss(),
        inferer=SlidingWindowInferer([16, 16, 16], sw_batch_size=4),
    )
    trainer = RiskTrainer(
        accelerator="cpu", max_epochs=2, default_root_dir=tmp_path / "run", logger=False, use_distributed_sampler=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[RiskMapCallback()],
    )  # fmt: skip
    return trainer, module, data


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_maps_then_training_then_predictions_of_two_folders_and_of_the_test_cases(session, tmp_path, tiny_manifest):
    trainer, module, data = session
    callbacks = list(trainer.callbacks)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    shutil.copy(tiny_manifest.parent / "case00_t2.nii.gz", tmp_path / "a/first.nii.gz")
    for number in (1, 2):
        shutil.copy(tiny_manifest.parent / f"case0{number}_t2.nii.gz", tmp_path / f"b/next{number}.nii.gz")

    trainer.riskmap(module, data, out=str(tmp_path / "maps"))
    assert len(list((tmp_path / "maps").glob("*_weight.nii.gz"))) == 3
    assert trainer.callbacks == callbacks
    assert trainer.max_epochs == 2
    before = next(module.network.parameters()).clone()
    trainer.fit(module, data)
    assert trainer.callbacks == callbacks
    assert trainer.global_step == 2 * 3  # epochs, and steps of each: three cases, two patches each, two a step
    assert not torch.equal(before, next(module.network.parameters()))

    checkpoint = str(tmp_path / "trained.ckpt")
    trainer.save_checkpoint(checkpoint)
    for name in ("a", "b"):
        trainer.predict(module, data, checkpoint, out=str(tmp_path / f"{name}_out"), images=str(tmp_path / name))
    assert names(tmp_path / "a_out") == ["first.nii.gz"]
    assert names(tmp_path / "b_out") == ["next1.nii.gz", "next2.nii.gz"]
    trainer.predict(module, data, checkpoint, out=str(tmp_path / "own"), probabilities=True)
    assert [name for name in names(tmp_path / "own") if "prob" not in name] == ["case04.nii.gz", "case05.nii.gz"]
    assert names(tmp_path / "a_out") == ["first.nii.gz"]  # whose writer is gone
    assert not module.keep_probabilities
    assert trainer.callbacks == callbacks
    scores = trainer.test(module, data, checkpoint)
    assert {score.subject for score in module.tested} == {"case04", "case05"}
    assert scores


def test_a_folder_that_cannot_be_read_is_not_remembered(session, tmp_path, tiny_manifest):
    trainer, module, data = session
    checkpoint = str(tmp_path / "untrained.ckpt")
    trainer.strategy.connect(module)
    trainer.save_checkpoint(checkpoint)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/scan.nii.gz").write_bytes(b"no image")
    with pytest.raises(InputError):
        trainer.predict(module, data, checkpoint, out=str(tmp_path / "out"), images=str(tmp_path / "bad"))
    trainer.predict(module, data, checkpoint, out=str(tmp_path / "out"))
    assert names(tmp_path / "out") == ["case04.nii.gz", "case05.nii.gz"]
