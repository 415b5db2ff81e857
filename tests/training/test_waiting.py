"""A training step does not make the host wait for the GPU.

On the meta device, whatever needs a value (``item``, ``cpu``, ``bool``, boolean indexing) is an error. Copies from the
host are looked for by hand.
"""

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from monai.inferers import SlidingWindowInferer
from monai.networks.nets import DynUNet, UNet
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

from riskft.data.patches.batch import PatchBatch
from riskft.losses.distill import DistilledLoss
from riskft.losses.hard_voxels import FocalLoss, TopKLoss
from riskft.losses.refresh import RefreshedLoss
from riskft.losses.weighted import RiskWeightedLoss
from riskft.source.source import Source
from riskft.training.finite import FiniteLossGuard
from riskft.training.module import RiskModule

EDGE, CLASSES = 8, ["background", "shell", "core"]


class Watch(TorchDispatchMode):
    """Collects the operations that read a value, or copy between host and device."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        devices = {value.device for value in (*args, result) if isinstance(value, torch.Tensor)}
        copies = func.overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.copy_) and len(devices) > 1
        if copies or func.overloadpacket in (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero):
            self.found.append(str(func))
        return result


def batch(seed=0, count=2):
    generator = torch.Generator().manual_seed(seed)
    shape = (count, 1, EDGE, EDGE, EDGE)
    label = torch.randint(0, 3, shape, generator=generator).to(torch.uint8)
    label[:, :, 0] = 255
    eep = torch.rand((count, 3, *shape[2:]), generator=generator).softmax(1)
    weight = torch.rand(shape, generator=generator) + 0.5
    image = torch.randn(shape, generator=generator)
    return PatchBatch(("a", "b")[:count], image, label, torch.full((count,), 0.2), weight, eep)


def moved(patches):
    return PatchBatch(patches.subjects, *(value.to("meta") for value in patches[1:]))


def module(loss, network=None):
    torch.manual_seed(0)
    made = RiskModule(
        Source(network or unet(), None),
        CLASSES,
        1,
        loss=loss,
        inferer=SlidingWindowInferer([EDGE] * 3),
        optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1),
    )
    return made.train()


def unet():
    return UNet(3, 1, 3, (4, 8), (2,))


def deep():
    kernels, strides = [[3] * 3] * 3, [[1] * 3, [2] * 3, [2] * 3]
    return DynUNet(3, 1, 3, kernels, strides, strides[1:], filters=(4, 8, 8), deep_supervision=True, deep_supr_num=1)


@pytest.mark.parametrize("network", [unet, deep])
@pytest.mark.parametrize(
    "loss",
    [
        RiskWeightedLoss,
        lambda: RiskWeightedLoss(divisor="foreground"),
        lambda: RefreshedLoss(RiskWeightedLoss(), start=0, every=4),
        lambda: DistilledLoss(RiskWeightedLoss()),
        FocalLoss,
        TopKLoss,
    ],
    ids=["weighted", "foreground", "refreshed", "distilled", "focal", "top-k"],
)
def test_a_step_neither_reads_a_value_nor_copies_from_the_host(loss, network):
    made = loss()
    trained = module(made, network())
    trained.log = lambda *_, **__: None
    made.take_phase_1(torch.rand(3, 3), 0.5)
    for step in range(5):  # checks that only the first steps make, and the first table of refreshed weights
        trained.training_step(batch(step), step)
    trained.to("meta")
    trained.training_step(moved(batch(5)), 5)  # brings what the loss holds to the device
    guard = FiniteLossGuard()
    patches = moved(batch(6))
    with Watch() as watch:
        found = trained.training_step(patches, 6)
        guard.on_before_backward(None, trained, found)
        found.backward()
    assert found.device.type == "meta"
    assert watch.found == []
    assert all(parameter.grad is not None for parameter in trained.parameters())


def test_the_watch_sees_what_makes_the_host_wait():
    with Watch() as watch:
        bool(torch.ones(()) > 0)
        torch.ones(2).to("meta")
        torch.ones(2).nonzero()
    assert watch.found == ["aten._local_scalar_dense.default", "aten._to_copy.default", "aten.nonzero.default"]


class Watched(Callback):
    """Watches the steps after the first one, which checks the outputs."""

    def __init__(self):
        self.watch, self.shown = Watch(), []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx:
            self.watch.__enter__()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx:
            self.watch.__exit__(None, None, None)
        self.shown.append(trainer.progress_bar_metrics.get("train/loss"))


def watched_steps(folder, every):
    watched = Watched()
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        log_every_n_steps=every,
        callbacks=[watched],
        default_root_dir=folder,
    )
    patches = [batch(seed) for seed in range(8)]
    trainer.fit(module(RiskWeightedLoss()), DataLoader(patches, batch_size=None))
    return watched


def test_lightning_reads_the_loss_only_when_it_is_logged(tmp_path):
    watched = watched_steps(tmp_path, 3)
    assert watched.watch.found == []
    # the callback looks before the module shows the loss of the third step
    assert watched.shown[:3] == [None] * 3
    assert watched.shown[3] == watched.shown[5] != watched.shown[6]


def test_without_logs_the_loss_is_never_read(tmp_path):
    watched = watched_steps(tmp_path, 0)
    assert watched.watch.found == []
    assert watched.shown == [None] * 8
