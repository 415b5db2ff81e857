"""Phase 1 at the start of a real fit, and what is read back from its run folder."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from monai.inferers import SlidingWindowInferer
from monai.networks.nets import UNet
from torch import nn

from riskft.data.datamodule import RiskDataModule
from riskft.data.io.volumes import read_volume
from riskft.data.labels import LabelMap
from riskft.data.patches.sampling import UniformSampling
from riskft.data.readers import ManifestReader
from riskft.data.splits import ReaderSplit
from riskft.errors import InputError
from riskft.losses.distill import DistilledLoss
from riskft.losses.weighted import RiskWeightedLoss
from riskft.risk.mapping import RiskMapping
from riskft.risk.weighting import LinearWeight, MinMaxNormalise
from riskft.run.folder import RunFolder
from riskft.source.source import Source
from riskft.training.found_risk import find_risk
from riskft.training.module import RiskModule
from riskft.training.risk_maps import RiskMapCallback

EDGE = 16
TRAIN = ["case00", "case01", "case02"]
LINEAR = RiskMapping(MinMaxNormalise(), "volume", "hardness", LinearWeight(3.0), balance=False, temper=False)


class Contrast(nn.Module):
    """Class 1 where the image is dark: a head over the image and its negative."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.input = nn.Conv3d(1, 2, 1)
        self.head = nn.Conv3d(2, classes, 1)

    def forward(self, image):
        return self.head(self.input(image))

    def seeing(self, sign: float) -> "Contrast":
        with torch.no_grad():
            for value in self.parameters():
                value.zero_()
            self.input.weight[:, 0, 0, 0, 0] = torch.tensor([1.0, -1.0])
            self.head.weight[0, :, 0, 0, 0] = torch.tensor([-sign, sign])
            self.head.weight[1, :, 0, 0, 0] = torch.tensor([sign, -sign])
        return self


class Noting(RiskWeightedLoss):
    """Keeps what it was started with."""

    def take_phase_1(self, joint, knowledge):
        self.started = (joint, knowledge)


def save_source(path: Path, network: nn.Module, names=("background", "lesion", "edge", "rest")) -> Source:
    torch.save({"state_dict": network.state_dict(), "riskft": {"class_names": list(names), "in_channels": 1}}, path)
    return Source(network, str(path))


def unet(path: Path) -> Source:
    torch.manual_seed(3)
    network = UNet(3, 1, 4, (4, 8), (2,))
    with torch.no_grad():  # clear opinions: an untrained network's are all about the same
        for value in network.parameters():
            value.mul_(4)
    return save_source(path, network)


def data_of(manifest: Path, cache: Path, **options) -> RiskDataModule:
    return RiskDataModule(
        ManifestReader(str(manifest)),
        ["t2"],
        LabelMap({"shell": [1], "core": [2]}),
        ReaderSplit(),
        cache_dir=str(cache),
        patch_size=[EDGE] * 3,
        patches_per_volume=1,
        batch_size=2,
        sampling=UniformSampling(),
        **options,
    )


def module_of(source: Source, **options) -> RiskModule:
    inferer = SlidingWindowInferer([EDGE] * 3, sw_batch_size=4, overlap=0.25)
    return RiskModule(source, ["background", "shell", "core"], 1, inferer=inferer, **{"loss": Noting(), **options})


def fit(folder: Path, module: LightningModule, data: RiskDataModule, callback: RiskMapCallback) -> Trainer:
    trainer = Trainer(
        accelerator="cpu",
        max_steps=1,
        limit_val_batches=0,
        default_root_dir=folder,
        logger=CSVLogger(folder, name="", version=""),
        callbacks=[callback],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        log_every_n_steps=1,
    )
    trainer.fit(module, datamodule=data)
    return trainer


class Done:
    """A fit whose maps can be looked at."""

    def __init__(self, folder: Path, manifest: Path) -> None:
        self.folder = folder
        self.source = unet(folder / "source.pt")
        self.data = data_of(manifest, folder / "cache")
        self.module = module_of(self.source)
        self.callback = RiskMapCallback(LINEAR)
        fit(folder, self.module, self.data, self.callback)


@pytest.fixture(scope="module")
def done(tmp_path_factory, tiny_manifest):
    return Done(tmp_path_factory.mktemp("done"), tiny_manifest)


def probabilities(done: Done, case) -> np.ndarray:
    """(Z, X, Y, Z) of the source network on a prepared volume, without riskft."""
    image = torch.from_numpy(np.asarray(read_volume(case.folder / "image.nii")[0], np.float32))[None, None]
    network = UNet(3, 1, 4, (4, 8), (2,)).eval()
    network.load_state_dict(torch.load(done.source.checkpoint, weights_only=True)["state_dict"])
    with torch.no_grad():
        logits = SlidingWindowInferer([EDGE] * 3, sw_batch_size=4, overlap=0.25)(image, network)
    return logits.softmax(1)[0].double().numpy()


def test_the_joint_is_that_of_all_voxels_of_the_training_cases(done):
    joint = np.zeros((3, 4))
    for case in done.data.prepared("train"):
        states, label = probabilities(done, case), read_volume(case.folder / "label.nii")[0]
        for index in range(3):
            joint[index] += states[:, label == index].sum(1)
    np.testing.assert_allclose(done.callback.summary.joint, joint, rtol=1e-5)
    started, knowledge = done.module.loss.started
    torch.testing.assert_close(started, done.callback.summary.joint)
    conditional = joint / joint.sum(0)
    total = sum(
        np.log(np.einsum("z,zi->i", conditional[index], probabilities(done, case)[:, label == index])).sum()
        for case in done.data.prepared("train")
        for label in [read_volume(case.folder / "label.nii")[0]]
        for index in range(3)
    )
    prior = joint.sum(1) / joint.sum()
    assert knowledge == pytest.approx(1 + total / joint.sum() / -(prior * np.log(prior)).sum(), abs=1e-5)


def test_training_patches_carry_the_weights_of_the_given_mapping(done):
    store = done.callback.store
    assert [case.subject for case in done.data.prepared("train")] == TRAIN
    batch = next(iter(done.data.train_dataloader()))
    weights = {name: read_volume(store.weight_path(name))[0] for name in TRAIN}
    for name, patch in zip(batch.subjects, batch.weight, strict=True):
        assert np.isin(patch.numpy(), weights[name]).all()
    for name in TRAIN:  # 1 + 3 n with n from 0 to 1 in each volume
        hardness = np.asarray(store.read_hardness(name)[0], np.float64)
        scaled = (hardness - hardness.min()) / (hardness.max() - hardness.min())
        np.testing.assert_allclose(weights[name], 1 + 3 * scaled, atol=2e-2)


def test_validation_cases_have_maps_that_do_not_count(done):
    assert done.callback.store.has_hardness("case03")
    assert not done.callback.store.has_hardness("case04")  # a test case
    voxels = sum(read_volume(case.folder / "label.nii")[0].size for case in done.data.prepared("train"))
    assert done.callback.summary.joint.sum() == pytest.approx(voxels, rel=1e-6)


def test_the_run_folder_says_what_was_found(done):
    risk = done.folder / "risk"
    summary = json.loads((risk / "summary.json").read_text())
    assert Path(summary["maps"]) == done.callback.store.weights_folder.resolve()
    rows = csv.DictReader((risk / "classes.csv").open())
    assert [row["class_name"] for row in rows] == ["background", "shell", "core"]
    assert (risk / "conditional.png").stat().st_size > 0
    assert json.loads((risk / "manifest.json").read_text())["inverted"] is False
    logged = next(csv.DictReader((done.folder / "metrics.csv").open()))
    assert float(logged["risk/leep"]) == pytest.approx(done.callback.summary.leep)


def test_what_was_found_is_read_back(done):
    found = find_risk(RunFolder(done.folder), done.module)
    torch.testing.assert_close(found.joint, done.callback.summary.joint)
    assert not found.use_mask
    assert found.source.digest == json.loads((done.folder / "risk/manifest.json").read_text())["source"]
    assert found.summary["leep"] == done.callback.summary.leep
    assert found.stale(done.module, done.data) == []
    assert not any(parameter.requires_grad for parameter in found.source.network.parameters())


def test_a_run_with_other_training_cases_is_told(done):
    other = data_of(Path(done.data.reader.csv), done.folder / "cache", train_limit=1)
    other.setup("fit")
    (problem,) = find_risk(RunFolder(done.folder), done.module).stale(done.module, other)
    assert "training data" in problem


def test_a_run_with_another_inferer_is_told(done):
    other = RiskModule(done.source, ["background", "shell", "core"], 1)
    found = find_risk(RunFolder(done.folder), other)
    (problem,) = found.stale(other, done.data)
    assert "another inference" in problem
    assert found.stale(other, done.data, ("source", "classes")) == []


def test_a_folder_without_phase_1(tmp_path, done):
    with pytest.raises(InputError, match="no phase 1"):
        find_risk(RunFolder(tmp_path), done.module)
    (tmp_path / "risk").mkdir()
    (tmp_path / "risk/summary.json").write_text("{")
    with pytest.raises(InputError, match=r"summary\.json"):
        find_risk(RunFolder(tmp_path), done.module)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_source_is_shown_what_tells_it_more(tmp_path, tiny_manifest, sign, caplog):
    """Lesions are dark in t2: inversion makes a source that looks for bright ones more informative."""
    source = save_source(tmp_path / "source.pt", Contrast().seeing(sign), ("background", "lesion"))
    source.invert = "auto"
    module, data, callback = module_of(source), data_of(tiny_manifest, tmp_path / "cache"), RiskMapCallback()
    with caplog.at_level("INFO", logger="riskft"):
        fit(tmp_path, module, data, callback)
    assert "the source explains" in caplog.text
    inverted = json.loads((tmp_path / "risk/manifest.json").read_text())["inverted"]
    plain, negative = (float(part) for part in _percentages(caplog.text))
    assert inverted == (negative > plain + 5)
    found = find_risk(RunFolder(tmp_path), module)
    assert found.source.inverted is inverted
    assert found.stale(module, data) == []
    expected = -1.0 if inverted else 1.0  # the sign of the first convolution
    assert found.source.network.input.weight[0].item() == expected
    assert module.adaptation is not None


def _percentages(text: str) -> list[str]:
    line = next(line for line in text.splitlines() if "with inverted images" in line)
    return [word for word in line.split() if word.replace(".", "").isdigit() and "." in word][-2:]


def test_without_attaching_the_maps_are_made_and_not_used(tmp_path, tiny_manifest):
    data, callback = data_of(tiny_manifest, tmp_path / "cache"), RiskMapCallback(attach=False, use_mask=True)
    module = module_of(unet(tmp_path / "source.pt"), loss=DistilledLoss())
    fit(tmp_path, module, data, callback)
    batch = next(iter(data.train_dataloader()))
    assert batch.weight is None
    assert batch.eep.shape[1:] == (3, EDGE, EDGE, EDGE)  # which the loss needs all the same
    torch.testing.assert_close(batch.eep.sum(1), torch.ones(2, EDGE, EDGE, EDGE), atol=2e-3, rtol=0)
    inside = sum(read_volume(case.folder / "mask.nii")[0].sum() for case in data.prepared("train"))
    assert callback.summary.joint.sum() == pytest.approx(inside, rel=1e-6)
    assert find_risk(RunFolder(tmp_path), module).use_mask
    assert callback.store.root == tmp_path / "cache/risk"


def test_maps_of_a_store_of_ones_own(tmp_path, tiny_manifest):
    callback = RiskMapCallback(store=str(tmp_path / "maps"))
    fit(tmp_path, module_of(unet(tmp_path / "source.pt")), data_of(tiny_manifest, tmp_path / "cache"), callback)
    assert callback.store.weight_path("case00").is_relative_to(tmp_path / "maps")
    assert not (tmp_path / "cache/risk").exists()


def test_other_stages_and_other_modules(tmp_path, done):
    callback = RiskMapCallback()
    callback.setup(done.module.trainer, done.module, "test")
    assert callback.summary is None
    with pytest.raises(InputError, match="RiskModule"):
        callback.setup(done.module.trainer, LightningModule(), "fit")


def test_it_says_why_maps_are_made_again(tmp_path, tiny_manifest, caplog):
    source = unet(tmp_path / "source.pt")
    with caplog.at_level("INFO", logger="riskft"):
        fit(tmp_path, module_of(source), data_of(tiny_manifest, tmp_path / "cache"), RiskMapCallback())
        assert "Changed" not in caplog.text
        fit(tmp_path, module_of(source), data_of(tiny_manifest, tmp_path / "cache"), RiskMapCallback(LINEAR))
        assert "other options of the map" in caplog.text
        fit(tmp_path, module_of(source), data_of(tiny_manifest, tmp_path / "cache", train_limit=2), RiskMapCallback())
        assert "Changed: training data and preprocessing" in caplog.text
        fit(
            tmp_path / "b",
            module_of(source),
            data_of(tiny_manifest, tmp_path / "cache"),
            RiskMapCallback(use_mask=True),
        )
        assert "differ from the latest ones in the store in: mask, training data" in caplog.text
