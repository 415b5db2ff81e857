"""Names and arguments of the candidates."""

import json

import pytest

from riskft.errors import InputError
from riskft.rank.candidates import (
    from_scratch,
    names_of,
    source_candidates,
    with_own_network,
    without_phase_1,
)

AUTO = "--config={model: {source: {invert: auto}}}"


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["a/t1.ckpt", "b/t2.pt"], ["t1.ckpt", "t2.pt"]),
        (["runs/x/t1/seed=0/checkpoints/best", "runs/x/t2/seed=0/checkpoints/best"], ["t1", "t2"]),
        (["runs/x/t1/seed=0/best", "runs/x/t1/seed=1/best", "other"], ["seed=0", "seed=1", "other"]),
        (["runs/x/t1/seed=0/checkpoints/best.ckpt", "t2"], ["t1", "t2"]),
        (["runs/x/t1/seed=0/checkpoints/best.ckpt", "runs/x/t1/seed=1/checkpoints/best.ckpt"], ["seed=0", "seed=1"]),
        (["a/p/best", "a/q/best", "b/q/best"], ["a-p", "a-q", "b-q"]),
        (["scratch", "x/a b", "y/a-b"], ["scratch-2", "a-b", "a-b-2"]),
    ],
)
def test_names_are_unique_and_readable(sources, expected):
    assert names_of(sources) == expected


def test_a_file_is_named_without_its_ending_and_a_folder_in_full(tmp_path):
    (tmp_path / "Dataset001__nnUNetTrainer__3d.fullres").mkdir()
    (tmp_path / "t1.safetensors").touch()
    sources = [str(path) for path in sorted(tmp_path.iterdir())]
    assert names_of(sources) == ["Dataset001__nnUNetTrainer__3d.fullres", "t1"]


def test_inversion_is_decided_by_the_same_means():
    plain = source_candidates(["--x=1"], ["a", "b", "a"])
    assert [(each.name, each.arguments) for each in plain] == [
        ("a", ["--x=1", "--model.source.checkpoint=a"]),
        ("b", ["--x=1", "--model.source.checkpoint=b"]),
    ]
    both = source_candidates([AUTO], ["a"])
    assert [each.name for each in both] == ["a", "a-inverted"]
    assert [each.arguments[-1] for each in both] == ["--model.source.invert=false", "--model.source.invert=true"]
    clash = source_candidates([AUTO], ["a", "a-inverted"])
    assert [each.name for each in clash] == ["a", "a-inverted-2", "a-inverted", "a-inverted-inverted"]
    fixed = source_candidates([AUTO, "--model.source.invert", "true"], ["a"])
    assert [each.name for each in fixed] == ["a"]


def test_scratch_has_neither_phase_1_nor_what_follows_a_source():
    candidate = from_scratch(["--x=1"])
    assert candidate.name == "scratch"
    assert "--model.source.load=none" in candidate.arguments
    assert "--model.loss=riskft.RiskWeightedLoss" in candidate.arguments
    dropped = json.loads(candidate.arguments[-1].removeprefix("--trainer.drop_callbacks="))
    assert {"riskft.RiskMapCallback", "riskft.L2SP", "riskft.BackboneFreeze"} <= set(dropped)
    assert "--model.source.checkpoint=m" in from_scratch([], "m").arguments


@pytest.mark.parametrize(
    ("loss", "replaced"),
    [
        ("riskft.FocalLoss", False),
        ("{class_path: riskft.TopKLoss, init_args: {share: 0.2}}", False),
        ("riskft.RefreshedLoss", True),
        ("{class_path: riskft.DistilledLoss}", True),
    ],
)
def test_only_a_loss_that_needs_phase_1_is_replaced(loss, replaced):
    fit = [f"--config={{model: {{loss: {loss}}}}}", "--model.loss.init_args.dice_weight=0.5"]
    for candidate in (from_scratch(fit), without_phase_1(source_candidates(fit, ["a"])[0])):
        assert ("--model.loss=riskft.RiskWeightedLoss" in candidate.arguments) is replaced


def test_a_source_without_a_head_keeps_its_inversion():
    inverted = without_phase_1(source_candidates([AUTO], ["a"])[1]).arguments
    switches = [part for part in inverted if part.startswith("--model.source.invert=")]
    assert switches[-1] == "--model.source.invert=true"
    assert "--model.source.min_loaded=0" in inverted
    assert not any("L2SP" in part for part in inverted)


def test_a_model_that_describes_itself_brings_its_network(tmp_path):
    layer = {"in_channels": 1, "out_channels": 3, "kernel_size": 3, "stride": 1, "padding": 1, "dilation": 1}
    (tmp_path / "mesh.json").write_text(json.dumps({"layers": [layer]}))
    (tmp_path / "mesh.safetensors").touch()
    unet = "--config={model: {source: {network: {class_path: monai.networks.nets.UNet}}}}"
    given = source_candidates([unet], [str(tmp_path / "mesh.json"), "other.pt"])
    mesh, other = map(with_own_network, given)
    assert mesh.arguments[1] == "--model.source.network=null"
    own = json.loads(mesh.arguments[2].removeprefix("--config="))
    assert own["model"]["source"]["network"]["class_path"] == "riskft.MeshNet"
    assert mesh.arguments[3:] == given[0].arguments[1:]
    assert other == given[1]
    alone = source_candidates([], [str(tmp_path / "mesh.json")])[0]
    assert with_own_network(alone) == alone  # its defaults are enough
    (tmp_path / "mesh.safetensors").unlink()
    with pytest.raises(InputError, match=r"mesh\.safetensors"):
        with_own_network(given[0])
