"""The module: starting from a source, optimizer, schedule, steps, checkpoints, freezing, averaging."""

import copy
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchio as tio
from lightning.pytorch import Callback, Trainer
from monai.inferers import SlidingWindowInferer
from monai.networks import nets
from monai.networks.nets import UNet
from torch.optim.lr_scheduler import PolynomialLR
from torch.utils.data import DataLoader

from riskft.data.patches.batch import patch_batch, volume_loader
from riskft.errors import InputError
from riskft.evaluation.metrics import class_means, overall, score_case
from riskft.losses.weighted import RiskWeightedLoss
from riskft.source.checkpoint import read_checkpoint
from riskft.source.load import load_source
from riskft.source.network import SourceNetwork
from riskft.source.output import SigmoidOutput
from riskft.source.source import Source
from riskft.training.average import AveragedWeights
from riskft.training.freeze import BackboneFreeze
from riskft.training.module import RiskModule
from riskft.training.schedule import schedule_length, schedule_over
from riskft.training.segmentation import window_size

CLASSES = ["background", "shell", "core"]
EDGE = 8


def unet(classes=3, channels=1, **options):
    return nets.UNet(3, channels, classes, channels=(4, 8), strides=(2,), **options)


def module(network=None, checkpoint=None, seed=0, **options):
    torch.manual_seed(seed)
    defaults = {
        "class_names": CLASSES,
        "in_channels": 1,
        "loss": RiskWeightedLoss(),
        "inferer": SlidingWindowInferer(roi_size=[EDGE] * 3, sw_batch_size=2, overlap=0.25),
        "optimizer": lambda groups: torch.optim.AdamW(groups, lr=1e-2),
    }
    source = Source(unet() if network is None else network, checkpoint)
    return RiskModule(source, **{**defaults, **options})


def sample(seed: int, risk: float | None = None, channels=1) -> tio.Subject:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(channels, EDGE, EDGE, EDGE, generator=generator)
    label = (image[:1] > 0).to(torch.uint8) + (image[:1] > 1).to(torch.uint8)
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    images = {"image": tio.ScalarImage(tensor=image, affine=affine), "label": tio.LabelMap(tensor=label, affine=affine)}
    if risk is not None:
        images["weight"] = tio.ScalarImage(tensor=torch.full((1, EDGE, EDGE, EDGE), risk), affine=affine)
    return tio.Subject(**images, foreground_fraction=torch.tensor(0.5), name=f"p{seed}")


def loader(count=4, batch_size=2, **options):
    return DataLoader([sample(seed, **options) for seed in range(count)], batch_size, collate_fn=patch_batch)


def trainer(folder: Path, epochs=1, **options) -> Trainer:
    return Trainer(
        **{
            "accelerator": "cpu",
            "max_epochs": epochs,
            "default_root_dir": folder,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            **options,
        }
    )


def state(network):
    return {key: value.clone() for key, value in network.state_dict().items()}


def same(first, second):
    return {key for key in first if torch.equal(first[key], second[key])}


@pytest.fixture
def loaded(tmp_path):
    """A source of the classes that it is asked for, with or without names."""

    def build(classes=3, names=None) -> SourceNetwork:
        torch.manual_seed(5)
        network = unet(classes)
        content = {"state_dict": network.state_dict()}
        if names is not None:
            content["riskft"] = {"class_names": names, "in_channels": 1}
        torch.save(content, tmp_path / "source.ckpt")
        return load_source(Source(unet(classes), str(tmp_path / "source.ckpt")), 1, [EDGE] * 3)

    return build


# -- start ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "network", [unet, lambda: unet(num_res_units=2), lambda: nets.BasicUNet(3, 2, 5, (4, 4, 4, 4, 8, 4))]
)
@pytest.mark.parametrize("channels", [1, 2])
def test_the_network_fits_the_task(network, channels):
    edge = 32 if isinstance(network(), nets.BasicUNet) else EDGE
    made = module(network(), in_channels=channels, inferer=SlidingWindowInferer([edge] * 3))
    assert made(torch.zeros(2, channels, edge, edge, edge)).shape == (2, 3, edge, edge, edge)


def test_the_source_is_neither_a_submodule_nor_changed():
    network = unet(classes=5)
    before = state(network)
    made = module(network)
    assert all(key.startswith("network.") for key in made.state_dict())
    assert same(before, network.state_dict()) == set(before)


@pytest.mark.parametrize(
    ("inferer", "size"),
    [(SlidingWindowInferer(7), [7] * 3), (SlidingWindowInferer([4, 5, 6]), [4, 5, 6]), (object(), [64] * 3)],
)
def test_window_size(inferer, size):
    assert window_size(inferer) == size


@pytest.mark.parametrize(
    ("head_init", "source_classes", "names", "how"),
    [
        ("auto", 3, CLASSES, "copy"),
        ("auto", 3, ["background", "core", "shell"], "leep"),
        ("auto", 3, None, "leep"),
        ("auto", 2, ["background", "whole"], "leep"),
        ("copy", 3, None, "copy"),
        ("leep", 3, CLASSES, "leep"),
        ("random", 3, CLASSES, "random"),
        ("random", 4, None, "random"),
    ],
)
def test_how_the_head_starts(loaded, head_init, source_classes, names, how):
    source = loaded(source_classes, names)
    made = module(unet(source_classes), head_init=head_init)
    before = state(made.network)
    joint = torch.rand(3, source_classes, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    made.start_from(source, joint)
    old, new = source.network.state_dict(), made.network.state_dict()
    assert made.head == ["model.2.conv"]
    head = {"model.2.conv.weight", "model.2.conv.bias"}
    assert all(torch.equal(new[key], old[key]) for key in old.keys() - head)
    given = (joint / joint.sum(1, keepdim=True)).float()
    expected = {"copy": old, "random": before}.get(how) or {
        "model.2.conv.bias": given @ old["model.2.conv.bias"],
        "model.2.conv.weight": torch.einsum("yz,fz...->fy...", given, old["model.2.conv.weight"]),
    }
    for key in head:
        torch.testing.assert_close(new[key], expected[key])
    status = {"copy": "loaded", "random": "new", "leep": "adapted"}[how]
    assert {row[2] for row in made.adaptation.rows if row[0] in head} == {status}


def test_a_sigmoid_head_with_the_target_s_names_is_not_copied(loaded):
    """Its channels are labels that may overlap: equal names do not make them classes that exclude each other."""
    source = replace(loaded(3, CLASSES), output=SigmoidOutput())
    made = module(head_init="auto")
    with pytest.raises(InputError, match="needs phase 1"):
        made.start_from(source, None)
    made.start_from(source, torch.rand(3, 8, dtype=torch.float64))
    assert {row[2] for row in made.adaptation.rows if row[0].startswith("model.2.conv.")} == {"adapted"}
    with pytest.raises(InputError, match="sigmoid"):
        module(head_init="copy").start_from(source, None)


@pytest.mark.parametrize(
    ("head_init", "source_classes", "names", "message"),
    [
        ("leep", 3, CLASSES, "needs phase 1: add riskft.RiskMapCallback"),
        ("auto", 2, ["background", "whole"], "needs phase 1"),
        ("copy", 2, ["background", "whole"], "different numbers of classes: use 'leep' or 'random'"),
    ],
)
def test_a_head_that_cannot_start(loaded, head_init, source_classes, names, message):
    source = loaded(source_classes, names)
    with pytest.raises(InputError, match=message):
        module(unet(source_classes), head_init=head_init).start_from(source, None)


def test_setup_starts_from_the_checkpoint_where_no_phase_1_did(loaded, tmp_path):
    source = loaded(3, CLASSES)
    made = module(checkpoint=str(tmp_path / "source.ckpt"), optimizer=lambda groups: torch.optim.SGD(groups, lr=0.0))
    trainer(tmp_path).fit(made, loader())
    assert same(state(source.network), state(made.network)) == set(source.network.state_dict())
    rows = (tmp_path / "adaptation.csv").read_text().splitlines()
    assert rows[0] == "parameter,shape,status"
    assert all(row.endswith(",loaded") for row in rows[1:])
    # without a checkpoint it is trained from scratch
    scratch = module()
    scratch.setup("fit")
    assert scratch.adaptation is None


def test_the_head_s_learning_rate_must_be_positive():
    with pytest.raises(InputError, match=r"model\.head_lr_factor is 0, expected a positive number"):
        module(head_lr_factor=0)


# -- training ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("residual_units", [0, 2])
def test_optimizer_groups(residual_units):
    made = module(unet(num_res_units=residual_units), head_lr_factor=5.0)
    optimizer = made.configure_optimizers()
    backbone, head = optimizer.param_groups
    assert (backbone["name"], head["name"]) == ("backbone", "head")
    assert (backbone["lr"], head["lr"]) == (pytest.approx(0.01), pytest.approx(0.05))
    own = {id(parameter) for name in made.head for parameter in made.network.get_submodule(name).parameters()}
    assert {id(parameter) for parameter in head["params"]} == own
    everything = [id(parameter) for group in (backbone, head) for parameter in group["params"]]
    assert sorted(everything) == sorted(id(parameter) for parameter in made.network.parameters())


class Rates(Callback):
    def __init__(self):
        self.rates = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.rates.append([group["lr"] for group in trainer.optimizers[0].param_groups])


def test_the_schedule_ends_with_the_last_step(tmp_path):
    totals = []

    def schedule(optimizer, total):
        totals.append(total)
        return PolynomialLR(optimizer, total, power=1.0)

    rates = Rates()
    run = trainer(tmp_path, epochs=2, callbacks=[rates])
    made = module(schedule=schedule, head_lr_factor=10.0)
    run.fit(made, loader(count=4, batch_size=2))
    assert totals == [4]
    # 2 epochs of 2 steps: 1, 3/4, 1/2, 1/4 of the rate, and 0 after the last
    assert [rate[0] for rate in rates.rates] == pytest.approx([0.01, 0.0075, 0.005, 0.0025])
    assert [rate[1] for rate in rates.rates] == pytest.approx([0.1, 0.075, 0.05, 0.025])
    assert [group["lr"] for group in run.optimizers[0].param_groups] == pytest.approx([0, 0])


def test_the_schedule_counts_optimizer_steps(tmp_path):
    totals = []
    run = trainer(tmp_path, epochs=3, accumulate_grad_batches=2)
    run.fit(
        module(schedule=lambda optimizer, total: totals.append(total) or PolynomialLR(optimizer, total)),
        loader(count=8, batch_size=2),
    )
    assert totals == [3 * 4 / 2]
    assert run.optimizers[0].param_groups[0]["lr"] == pytest.approx(0)


@pytest.mark.parametrize("divisor", ["voxels", "foreground"])
def test_without_a_map_it_is_as_with_ones(divisor):
    made = module(loss=RiskWeightedLoss(divisor))
    plain, ones, twos = (
        made.training_step(next(iter(loader(risk=risk))), 0) for risk in (None, 1.0, 2.0)
    )  # fmt: skip
    assert plain.item() == ones.item()
    assert twos > ones
    (gradient,) = torch.autograd.grad(plain, made.network.get_submodule("model.2.conv").bias)
    assert gradient.abs().sum() > 0


def test_deep_supervision_is_trained_and_not_used_for_inference():
    network = nets.DynUNet(3, 1, 3, [3] * 3, [1, 2, 2], [2, 2], [4, 8, 8], deep_supervision=True, deep_supr_num=1)
    made = module(network, inferer=SlidingWindowInferer([16] * 3))
    batch = next(iter(loader()))
    batch = batch._replace(image=batch.image.repeat(1, 1, 2, 2, 2), label=batch.label.repeat(1, 1, 2, 2, 2))
    made.training_step(batch, 0).backward()
    heads = [made.network.get_submodule(name) for name in made.head]
    assert len(heads) == 2
    assert all(head.weight.grad.abs().sum() > 0 for head in heads)
    assert made(batch.image).shape == (2, 3, 16, 16, 16)
    assert made.eval().infer(batch.image[:1]).shape == (1, 3, 16, 16, 16)


def test_channels_last_gives_the_same_logits():
    plain, fast = module(), module(channels_last=True)
    fast.setup("fit")
    image = torch.randn(2, 1, EDGE, EDGE, EDGE)
    first = fast.network.get_submodule("model.2.conv").weight
    assert first.is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(fast(image), plain(image), atol=1e-5, rtol=1e-4)
    batch = next(iter(loader(risk=1.5)))
    torch.testing.assert_close(fast.training_step(batch, 0), plain.training_step(batch, 0), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_a_step_is_finite(tmp_path, precision):
    made = module()
    before = state(made.network)
    run = trainer(tmp_path, precision=precision)
    run.fit(made, loader(risk=3.0))
    assert math.isfinite(run.callback_metrics["train/loss"].item())
    after = state(made.network)
    assert all(value.isfinite().all() and value.dtype == torch.float32 for value in after.values())
    assert not same(before, after) & {name for name, _ in made.network.named_parameters()}


def test_training_lowers_the_loss(tmp_path):
    made = module()
    batch = next(iter(loader()))

    @torch.no_grad()
    def loss():
        return made.loss(made(batch.image), batch.label).item()

    before = loss()
    trainer(tmp_path, epochs=10).fit(made, loader())
    assert loss() < 0.9 * before


# -- whole volumes -------------------------------------------------------------------------------------------------


def test_validation_scores_each_case_once(tmp_path):
    made = module(validation_surface=True)
    volumes = [sample(seed) for seed in (0, 1, 2, 1)]  # a rank without a share repeats a case
    (metrics,) = trainer(tmp_path).validate(made, volume_loader(volumes, range(4)), verbose=False)
    made.eval()
    scores = []
    with torch.no_grad():
        for volume in volumes[:3]:
            prediction = made.infer(volume["image"].data[None]).argmax(1)[0]
            scores += score_case(
                volume["name"], prediction, volume["label"].data[0], CLASSES, (1.0, 2.0, 3.0)
            )  # fmt: skip
    for metric in ("dice", "hd95_mm"):
        means = class_means(scores, metric)
        assert metrics[f"val/{metric}"] == pytest.approx(overall(means), rel=1e-5)
        for name, mean in means.items():
            assert metrics[f"val/{metric}/{name}"] == pytest.approx(mean.value, rel=1e-5)
    assert metrics["val/n/core"] == 3


def test_inference_in_windows_by_any_network(loaded):
    made = module().eval()
    image = torch.randn(1, 1, 12, 9, 8)
    constant = torch.nn.Conv3d(1, 5, 1)
    torch.nn.init.zeros_(constant.weight)
    torch.nn.init.constant_(constant.bias[2], 3.0)
    with torch.no_grad():
        assert made.infer(image).shape == (1, 3, 12, 9, 8)
        found = replace(loaded(), network=constant, inferer=made.inferer).predictor()(image)
        probabilities = torch.cat(list(found), 1)
    torch.testing.assert_close(probabilities, constant.bias.softmax(0).view(5, 1, 1, 1).expand(5, 12, 9, 8))


# -- checkpoints ---------------------------------------------------------------------------------------------------


def test_a_checkpoint_holds_no_objects_and_can_be_a_source(tmp_path):
    made = module(schedule=PolynomialLR)
    run = trainer(tmp_path)
    run.fit(made, loader())
    run.save_checkpoint(tmp_path / "last.ckpt")
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    made_with = content["riskft"]
    assert (made_with["class_names"], made_with["in_channels"]) == (CLASSES, 1)
    assert made_with["parts"]["optimizer"] == "torch.optim.adamw.AdamW"
    assert content["hyper_parameters"]["head_init"] == "auto"
    checkpoint = read_checkpoint(tmp_path / "last.ckpt")
    assert checkpoint.class_names == tuple(CLASSES)
    # |Z| and the channels are the file's, whatever the config's architecture says
    again = load_source(Source(unet(classes=2, channels=3), str(tmp_path / "last.ckpt")), 1, [EDGE] * 3)
    image = torch.randn(1, 1, EDGE, EDGE, EDGE)
    with torch.no_grad():
        torch.testing.assert_close(again.network(image), made.eval()(image))


def test_a_resumed_run_goes_on(tmp_path):
    whole = module(schedule=PolynomialLR)
    trainer(tmp_path, epochs=2).fit(whole, loader())
    first = trainer(tmp_path, epochs=2)

    class Stop(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.save_checkpoint(tmp_path / "last.ckpt")
            trainer.should_stop = True

    first.callbacks.append(Stop())
    first.fit(module(schedule=PolynomialLR), loader())
    resumed = module(seed=1, schedule=PolynomialLR)
    run = trainer(tmp_path, epochs=2)
    run.fit(resumed, loader(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert run.global_step == 4
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[key], value, atol=1e-6, rtol=1e-5)


# -- callbacks -----------------------------------------------------------------------------------------------------


class Watch(Callback):
    """Notes, for each epoch, which entries of the network changed."""

    def __init__(self):
        self.changed = {}

    def on_train_epoch_start(self, trainer, pl_module):
        self.before = state(pl_module.network)

    def on_train_epoch_end(self, trainer, pl_module):
        after = state(pl_module.network)
        self.changed[trainer.current_epoch] = set(after) - same(self.before, after)


@pytest.mark.parametrize("options", [{}, {"num_res_units": 2, "norm": "batch"}])
def test_backbone_freeze(tmp_path, options):
    made, watch = module(unet(**options)), Watch()
    run = trainer(tmp_path, epochs=3, callbacks=[watch, BackboneFreeze(unfreeze_at_epoch=2)])
    run.fit(made, loader(count=8))
    head = {key for key in made.network.state_dict() if key.rpartition(".")[0] in made.head}
    parameters = {key for key, _ in made.network.named_parameters()}
    statistics = {key for key in made.network.state_dict() if "running" in key}
    for epoch in (0, 1):
        assert watch.changed[epoch] & (parameters | statistics) <= head
        assert head & parameters <= watch.changed[epoch]
    assert parameters | statistics <= watch.changed[2]
    assert len(run.optimizers[0].param_groups) == 2


@pytest.mark.parametrize(("stopped", "frozen"), [(1, {1}), (2, set()), (3, set())])
def test_a_resumed_run_is_frozen_until_the_same_epoch(tmp_path, stopped, frozen):
    def build(epochs, watch):
        return trainer(tmp_path, epochs=epochs, callbacks=[watch, BackboneFreeze(unfreeze_at_epoch=2)])

    first = build(stopped, Watch())
    first.fit(module(), loader())
    first.save_checkpoint(tmp_path / "last.ckpt")
    watch, made = Watch(), module(seed=1)
    build(4, watch).fit(made, loader(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    backbone = {key for key, _ in made.network.named_parameters() if key.rpartition(".")[0] not in made.head}
    assert set(watch.changed) == set(range(stopped, 4))
    assert {epoch for epoch, changed in watch.changed.items() if not changed & backbone} == frozen


@pytest.mark.parametrize("epoch", [0, -1])
def test_backbone_freeze_wants_an_epoch(epoch):
    with pytest.raises(InputError, match="`unfreeze_at_epoch` to be at least 1"):
        BackboneFreeze(epoch)


def test_backbone_freeze_needs_ddp_to_look_for_unused_parameters(tmp_path):
    run = trainer(tmp_path, devices=2, strategy="ddp")
    with pytest.raises(InputError, match="ddp_find_unused_parameters_true"):
        BackboneFreeze().setup(run, module(), "fit")
    BackboneFreeze().setup(trainer(tmp_path, devices=2, strategy="ddp_find_unused_parameters_true"), module(), "fit")


def test_averaged_weights(tmp_path):
    made, watch = module(), Watch()
    start = copy.deepcopy(made.state_dict())
    run = trainer(tmp_path, epochs=2, callbacks=[AveragedWeights(span=2), watch])
    losses = []

    class Save(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            losses.append(copy.deepcopy(pl_module.state_dict()))
            trainer.save_checkpoint(tmp_path / f"{trainer.current_epoch}.ckpt")

    run.callbacks.append(Save())
    run.fit(made, loader(count=2), volume_loader([sample(0), sample(1)], range(2)))
    content = torch.load(tmp_path / "1.ckpt", weights_only=True)
    assert content["riskft"]["class_names"] == CLASSES
    # one step an epoch; the first update takes the weights as they are, the second the mean of both
    for key, value in content["state_dict"].items():
        torch.testing.assert_close(value, (losses[0][key] + losses[1][key]) / 2)
        torch.testing.assert_close(made.state_dict()[key], value)  # what is left in the end
    assert not torch.equal(start["network.model.2.conv.bias"], losses[0]["network.model.2.conv.bias"])
    # and what a later fine-tuning starts from
    read = read_checkpoint(tmp_path / "1.ckpt").state
    assert all(torch.equal(read[key], value) for key, value in content["state_dict"].items())


@pytest.mark.parametrize(
    ("schedule", "steps", "message"),
    [
        (torch.optim.lr_scheduler.ExponentialLR, 6, "second argument"),
        (torch.optim.lr_scheduler.LinearLR, 6, "second argument"),
        (torch.optim.lr_scheduler.PolynomialLR, float("inf"), "max_epochs"),
    ],
)
def test_a_schedule_that_does_not_take_the_steps_is_refused(schedule, steps, message):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    with pytest.raises(InputError, match=message):
        schedule_over(schedule, optimizer, steps)


def test_a_cosine_schedule_takes_the_steps():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = schedule_over(torch.optim.lr_scheduler.CosineAnnealingLR, optimizer, 6)
    assert schedule_length(schedule) == 6


def test_it_is_built_from_python_with_defaults():
    module = RiskModule(Source(UNet(3, 1, 2, (4, 8), (2,))), ["background", "core"], 1)
    assert list(window_size(module.inferer)) == [64, 64, 64]
