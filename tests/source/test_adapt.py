"""Loading with an account of every parameter."""

import csv
from pathlib import Path

import pytest
import torch
from monai.networks import nets

from riskft.errors import InputError
from riskft.source.adapt import load_source, transfer_backbone
from riskft.source.checkpoint import Checkpoint
from riskft.source.surgery import with_classes, with_input_channels

SIZE = (8, 8, 8)


def unet(classes=3, channels=1, **options):
    return nets.UNet(3, channels, classes, channels=(4, 8), strides=(2,), **options)


def checkpoint(state):
    return Checkpoint(Path("net.pt"), dict(state))


def test_load_source_loads_everything_and_returns_the_rest():
    source, network = unet(), unet()
    state = {f"net.{key}": value for key, value in source.state_dict().items()}
    unused = load_source(network, checkpoint({**state, "net.aux.weight": torch.ones(1), "ema": torch.ones(2)}))
    assert unused == ["aux.weight", "ema"]
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in network.state_dict().items())


def test_load_source_lists_missing_keys_with_the_nearest_and_wrong_shapes():
    state = unet(classes=2).state_dict()
    state["model.0.conv.weights"] = state.pop("model.0.conv.weight")
    network = unet(classes=3)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(InputError) as caught:
        load_source(network, checkpoint(state))
    assert caught.value.title.startswith(
        f"net.pt: does not fit model.source.network (UNet): 3 of {len(before)} entries"
    )
    assert caught.value.problems == (
        "'model.0.conv.weight' is missing; the nearest in the file is 'model.0.conv.weights'",
        "'model.2.conv.weight' has shape (12, 2, 3, 3, 3) in the file, the network expects (12, 3, 3, 3, 3)",
        "'model.2.conv.bias' has shape (2,) in the file, the network expects (3,)",
    )
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_load_source_shows_a_few_and_counts_the_rest():
    network = unet()
    with pytest.raises(InputError) as caught:
        load_source(network, checkpoint({"other": torch.ones(1)}))
    assert len(caught.value.problems) == 6
    assert caught.value.problems[-1] == f"and {len(network.state_dict()) - 5} more"
    assert "nearest" not in caught.value.problems[0]


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
    assert report.summary() == ", ".join(f"{count} {status}" for status, count in counts.items())
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
