"""Copying the backbone with an account of every parameter."""

import csv

import pytest
import torch
from monai.networks import nets

from riskft.source.classes import with_classes
from riskft.source.input_channels import with_input_channels
from riskft.source.transfer import transfer_backbone

SIZE = (8, 8, 8)


def unet(classes=3, channels=1, **options):
    return nets.UNet(3, channels, classes, channels=(4, 8), strides=(2,), **options)


def test_what_the_checkpoint_lacked_is_reported_as_new():
    source, target = unet(), unet()
    report = transfer_backbone(
        target, source, ["model.2.conv"], (), "loaded", (), missing=["model.2.conv.bias", "model.0.conv.weight"]
    )
    assert {name for name, _, status in report.rows if status == "new"} == {"model.2.conv.bias", "model.0.conv.weight"}
    total = sum(parameter.numel() for parameter in target.parameters())
    assert report.fraction == pytest.approx(1 - (3 + 4 * 27) / total)


def test_what_is_fresh_keeps_the_target_s_values():
    source, target = unet(), unet()
    before = {key: value.clone() for key, value in target.state_dict().items()}
    fresh = {"model.1.submodule.conv.weight", "model.2.conv.weight"}
    report = transfer_backbone(target, source, ["model.2.conv"], (), "loaded", (), fresh=fresh)
    statuses = {name: status for name, _, status in report.rows}
    assert {name for name, status in statuses.items() if status == "new"} == {"model.1.submodule.conv.weight"}
    after = target.state_dict()
    assert torch.equal(after["model.1.submodule.conv.weight"], before["model.1.submodule.conv.weight"])
    assert torch.equal(after["model.0.conv.weight"], source.state_dict()["model.0.conv.weight"])


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
