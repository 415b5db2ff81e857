"""Passes: the voxels are those of phase 1, and each cell is made once."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from monai.inferers import SlidingWindowInferer
from monai.networks.nets import UNet

from riskft.data.labels import LabelMap
from riskft.data.prepare.cache import PreparedCache
from riskft.data.prepare.preprocess import Preprocessing
from riskft.data.records import Case
from riskft.errors import InputError
from riskft.rank import passes as passes_file
from riskft.rank.candidates import Candidate
from riskft.rank.opening import OpenSource
from riskft.rank.passes import Passes, voxel_sample
from riskft.risk.forward import counted_target, source_probabilities
from riskft.source.features import find_depths
from riskft.source.load import load_source
from riskft.source.source import Source

SIZE = (16, 16, 16)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def cases(tiny_manifest, tmp_path_factory):
    labels = LabelMap({"shell": [1], "core": [2]})
    folder = tiny_manifest.parent
    listed = [
        Case(name, {"t1": folder / f"{name}_t1.nii.gz"}, folder / f"{name}_label.nii.gz")
        for name in ("case00", "case01", "case02")
    ]
    return PreparedCache(tmp_path_factory.mktemp("cache"), labels, Preprocessing()).prepare(listed)


@pytest.fixture(scope="module")
def opened(tmp_path_factory, cases):
    torch.manual_seed(0)
    network = UNet(3, 1, 3, (4, 8), (2,), num_res_units=1)
    path = tmp_path_factory.mktemp("source") / "source.pt"
    torch.save(network.state_dict(), path)
    source = load_source(
        Source(network, str(path)), 1, SIZE, SlidingWindowInferer(SIZE, 4, overlap=0.5, mode="gaussian")
    )
    return OpenSource(
        candidate=Candidate("source", []),
        checkpoint=str(path),
        source=source,
        places=find_depths(source.network, ["model.2.0.conv"], SIZE),
        lacks="",
        data=SimpleNamespace(prepared=lambda split: cases[:2]),
        device=CPU,
        use_mask=False,
        inputs={"source": source.digest},
    )


def test_probabilities_are_those_of_phase_1_at_voxels_of_each_class(opened, cases):
    sample = voxel_sample(opened, cases[0], 20, 0)
    target = counted_target(cases[0], use_mask=False)
    counts = torch.bincount(target.flatten().long())
    assert torch.bincount(sample.classes).tolist() == [20, 20, 20]
    for label, count in enumerate(counts.tolist()):
        assert float(sample.weights[sample.classes == label].sum()) == pytest.approx(count)
    with torch.no_grad():
        whole = source_probabilities(cases[0], opened.source.predictor(), CPU)[0]
    for label in range(3):
        there = set(map(tuple, whole[:, target == label].T.tolist()))
        rows = list(map(tuple, sample.probabilities[sample.classes == label].tolist()))
        assert len(set(rows)) > 10
        assert set(rows) <= there
    assert {depth: values.shape for depth, values in sample.features.items()} == {
        "encoder": (60, 4), "bottleneck": (60, 12), "decoder": (60, 12),
    }  # fmt: skip
    again = voxel_sample(opened, cases[0], 20, 0)
    assert torch.equal(again.features["decoder"], sample.features["decoder"])
    assert not torch.equal(voxel_sample(opened, cases[0], 20, 1).probabilities, sample.probabilities)


def test_a_source_without_a_head_has_the_same_features_of_its_encoder(opened, cases):
    whole = voxel_sample(opened, cases[0], 20, 0)
    encoder = OpenSource(**{**vars(opened), "lacks": "no head", "places": {"encoder": opened.places["encoder"]}})
    sample = voxel_sample(encoder, cases[0], 20, 0)
    assert sample.probabilities is None
    assert list(sample.features) == ["encoder"]
    torch.testing.assert_close(sample.features["encoder"], whole.features["encoder"], rtol=0, atol=0)


def test_each_cell_is_made_once(opened, cases, tmp_path, monkeypatch):
    made = []
    real = passes_file.voxel_sample
    monkeypatch.setattr(passes_file, "voxel_sample", lambda *given: made.append(given[1].subject) or real(*given))
    passes = Passes(tmp_path, per_class=10)
    samples, seconds = passes.run(opened)
    assert made == [sample.subject for sample in samples] == ["case00", "case01"]
    again, same = passes.run(opened)
    assert (len(made), same) == (2, seconds)
    assert torch.equal(again[1].probabilities, samples[1].probabilities)
    # another case costs one cell, another source its column, and a broken file is made again by hand
    more = OpenSource(**{**vars(opened), "data": SimpleNamespace(prepared=lambda split: cases)})
    assert len(passes.run(more)[0]) == 3
    assert made[2:] == ["case02"]
    other = OpenSource(**{**vars(opened), "inputs": {"source": "another"}})
    passes.run(other)
    assert made[3:] == ["case00", "case01"]
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 2
    passes.cell(opened, cases[0]).write_bytes(b"half")
    with pytest.raises(InputError, match="Remove it"):
        passes.run(opened)


def test_a_stopped_pass_keeps_what_it_has(opened, tmp_path, monkeypatch):
    real = passes_file.voxel_sample

    def stops(opened, case, *others):
        if case.subject == "case01":
            raise KeyboardInterrupt
        return real(opened, case, *others)

    monkeypatch.setattr(passes_file, "voxel_sample", stops)
    with pytest.raises(KeyboardInterrupt):
        Passes(tmp_path).run(opened)
    assert [path.name[:6] for path in sorted(Path(tmp_path).glob("*/*.npz"))] == ["case00"]


def test_values_that_are_not_finite_are_the_source_s_fault(opened, cases):
    weight = opened.source.network.get_parameter("model.2.0.conv.weight")
    kept = weight.detach().clone()
    weight.data[0] = torch.nan
    try:
        with pytest.raises(InputError, match="NaN or infinite values for case00"):
            voxel_sample(opened, cases[0], 5, 0)
    finally:
        weight.data.copy_(kept)
