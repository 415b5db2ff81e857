"""Loading with an account of every parameter."""

import csv
from pathlib import Path

import pytest
import torch
from monai.networks import nets

from riskft.errors import InputError
from riskft.source.checkpoint import Checkpoint
from riskft.source.load import fill
from riskft.source.surgery import with_classes, with_input_channels
from riskft.source.transfer import transfer_backbone

SIZE = (8, 8, 8)


def unet(classes=3, channels=1, **options):
    return nets.UNet(3, channels, classes, channels=(4, 8), strides=(2,), **options)


def checkpoint(state):
    return Checkpoint(Path("net.pt"), {"": dict(state)})


def test_fill_loads_everything_and_returns_the_rest():
    source, network = unet(), unet()
    state = {f"net.{key}": value for key, value in source.state_dict().items()}
    missing, unused = fill(network, checkpoint({**state, "net.aux.weight": torch.ones(1), "ema": torch.ones(2)}), SIZE)
    assert (missing, unused) == ((), ("aux.weight", "ema"))
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in network.state_dict().items())


def refusal(network, state, **options):
    """Returns the message lines of a refused checkpoint, of which the network must not have taken anything."""
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(InputError) as caught:
        fill(network, checkpoint(state), SIZE, **options)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    lines = str(caught.value).splitlines()
    assert len(lines) <= 3
    assert "net.pt" in lines[0]
    return lines


def test_missing_keys_with_the_nearest_and_wrong_shapes():
    state = unet(classes=2).state_dict()
    state["model.0.conv.weights"] = state.pop("model.0.conv.weight")
    title, *problems = refusal(unet(classes=3), state)
    assert title == (
        f"net.pt: does not fit model.source.network (UNet): 3 of {len(unet().state_dict())} entries, and the risk map "
        "needs all. Give the network the class and options that it was trained with."
    )
    assert problems == [
        "  - 'model.0.conv.weight' is missing; the nearest in the file is 'model.0.conv.weights'",
        "  - 'model.2.conv.weight' has shape (12, 2, 3, 3, 3) in the file, the network expects (12, 3, 3, 3, 3); "
        "and 1 more",
    ]


def test_another_network():
    network = unet()
    lines = refusal(network, {"other": torch.ones(1)}, min_loaded=0.5)
    assert "it fills 0 % of the parameters, and model.source.min_loaded is 0.5" in lines[0]
    assert lines[2].endswith(f"; and {len(network.state_dict()) - 2} more")
    assert "nearest" not in lines[1]


@pytest.mark.parametrize("options", [{}, {"num_res_units": 2, "norm": "batch"}])
def test_only_the_number_of_classes_differs(options):
    title, problem = refusal(unet(classes=2, **options), unet(classes=5, **options).state_dict())
    assert title == "net.pt: fits model.source.network (UNet) but for its numbers of channels:"
    assert "the file's head has 5 output channels, the network 2: set out_channels / num_classes to 5" in problem
    assert problem.startswith("  - 'model.2.0.conv.weight'" if options else "  - 'model.2.conv.weight'")


def test_classes_and_channels_differ():
    _, classes, channels = refusal(unet(classes=2, channels=1), unet(classes=3, channels=4).state_dict())
    assert "set out_channels / num_classes to 3" in classes
    assert "'model.0.conv.weight': the file takes 4 input channels, the network 1: set in_channels to 4" in channels


def test_other_inner_widths_are_not_taken_for_another_number_of_classes():
    wider = nets.UNet(3, 1, 3, channels=(6, 8), strides=(2,)).state_dict()
    title, *_ = refusal(unet(), wider)
    assert "does not fit model.source.network (UNet)" in title


def test_a_part_is_enough_for_plain_fine_tuning():
    """Head of 12 * 3 * 27 + 3 = 975 elements among 4 * 27 + 4 + 8 * 4 * 27 + 8 + 975, with two PReLUs of 1."""
    trained, network = unet(classes=5), unet(classes=3)
    total = sum(parameter.numel() for parameter in network.parameters())
    share = 1 - 975 / total
    before = network.state_dict()["model.2.conv.weight"].clone()
    missing, _ = fill(network, checkpoint(trained.state_dict()), SIZE, min_loaded=share - 1e-6)
    assert missing == ("model.2.conv.weight", "model.2.conv.bias")
    assert torch.equal(network.state_dict()["model.2.conv.weight"], before)
    assert torch.equal(network.state_dict()["model.0.conv.weight"], trained.state_dict()["model.0.conv.weight"])
    assert "fits model.source.network" in refusal(unet(classes=3), trained.state_dict(), min_loaded=share + 1e-6)[0]


def test_what_the_checkpoint_lacked_is_reported_as_new():
    source, target = unet(), unet()
    report = transfer_backbone(
        target, source, ["model.2.conv"], (), "loaded", (), missing=["model.2.conv.bias", "model.0.conv.weight"]
    )
    assert {name for name, _, status in report.rows if status == "new"} == {"model.2.conv.bias", "model.0.conv.weight"}
    total = sum(parameter.numel() for parameter in target.parameters())
    assert report.fraction == pytest.approx(1 - (3 + 4 * 27) / total)


@pytest.mark.parametrize(("head_status", "options"), [("new", {}), ("adapted", {"num_res_units": 2, "norm": "batch"})])
def test_transfer_backbone_reports_each_status(tmp_path, head_status, options):
    torch.manual_seed(0)
    source, adapted = with_input_channels(unet(channels=1, **options), 2, SIZE)
    target, head = with_classes(unet(channels=2, **options), 5, SIZE)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    report = transfer_backbone(target, source, head, adapted, head_status, ["aux.weight"])
    statuses = {name: status for name, _, status in report.rows}
    assert statuses.keys() == {*target.state_dict(), "aux.weight"}
    firsts = {f"{name}.weight" for name in adapted}
    assert {name for name, status in statuses.items() if status == "adapted"} - firsts == (
        {name for name in target.state_dict() if name.rpartition(".")[0] in head} if head_status == "adapted" else set()
    )
    assert {statuses[name] for name in firsts} == {"adapted"}
    assert statuses["aux.weight"] == "unused"
    for name, value in target.state_dict().items():
        expected = before[name] if name.rpartition(".")[0] in head else source.state_dict()[name]
        assert torch.equal(value, expected), name
    shapes = {name: shape for name, shape, _ in report.rows}
    assert shapes[f"{head[0]}.bias"] == "(5,)"

    report.write(tmp_path / "run" / "adaptation.csv")
    with (tmp_path / "run" / "adaptation.csv").open(newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == ["parameter", "shape", "status"]
    assert [tuple(row) for row in rows[1:]] == list(report.rows)
    counts = {status: list(statuses.values()).count(status) for status in ("loaded", "adapted", "new", "unused")}
    new = sum(target.get_parameter(name).numel() for name, status in statuses.items() if status == "new")
    share = 100 * (1 - new / sum(parameter.numel() for parameter in target.parameters()))
    assert report.summary() == (
        ", ".join(f"{count} {status}" for status, count in counts.items())
        + f" ({share:.1f} % of the parameters from the checkpoint)"
    )
    assert counts["unused"] == 1


def test_heads_under_several_names_are_one_head():
    def build(classes):
        return nets.DynUNet(
            3, 1, classes, [3] * 3, [1, 2, 2], [2, 2], [4, 8, 8], deep_supervision=True, deep_supr_num=1
        )

    source = build(3)
    target, head = with_classes(build(3), 2, (16, 16, 16))
    report = transfer_backbone(target, source, head, (), "new", ())
    new = {name for name, _, status in report.rows if status == "new"}
    assert new == {
        name for name in target.state_dict() if "output_block" in name or "super_head" in name or "heads" in name
    }
    assert any(name.startswith("skip_layers") for name in new)
