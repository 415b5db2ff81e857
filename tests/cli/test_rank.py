"""``riskft rank`` on tiny volumes: two sources, bad ones and scratch, the race, and what a second call costs."""

import csv
import json
import multiprocessing
import re
import sys
from pathlib import Path

import pytest
import torch
import yaml
from monai.networks.nets import UNet

import riskft.run.lock
import riskft.sweep.local
from riskft.cli import main
from riskft.commands.rank import _parser
from riskft.rank import passes
from riskft.rank import run as run_file
from riskft.rank.race import RaceOptions

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
TINY = Path(__file__).parent / "tiny.yaml"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Sources of two channels and three classes, an encoder without a head, and files that are none."""
    folder = tmp_path_factory.mktemp("rank")
    for seed, name in enumerate(("t1", "t2")):
        torch.manual_seed(seed)
        torch.save(UNet(3, 2, 3, (4, 8), (2,)).state_dict(), folder / f"{name}.pt")
    state = torch.load(folder / "t1.pt", weights_only=True)
    torch.save({name: value for name, value in state.items() if "model.2" not in name}, folder / "encoder.pt")
    (folder / "broken.pt").write_bytes(b"nothing")
    torch.save(UNet(3, 2, 3, (4, 6), (2,)).state_dict(), folder / "wider.pt")
    return folder


@pytest.fixture
def rank(root, tiny_manifest, monkeypatch):
    context = multiprocessing.get_context("fork")  # everything is imported here already
    monkeypatch.setattr(riskft.sweep.local, "prepared_processes", lambda: context)

    def run(*sources, out="out", method="vanilla", more=()):
        main(
            [
                *("rank", "--config", str(TINY), "--config", str(CONFIGS / f"method/{method}.yaml")),
                *("--data.reader.init_args.csv", str(tiny_manifest), "--data.cache_dir", str(root / "cache")),
                *("--sources", *(str(root / name) for name in sources), "--out", str(root / out)),
                *("--model.source.network.init_args.out_channels", "3"),
                *("--model.source.network.init_args.in_channels", "2", "--wandb.enabled", "false"),
                *("--bootstrap", "50"),
                *("--trainer.drop_callbacks", "[riskft.RiskPanelCallback]"),
                *more,
            ]
        )
        return root / out

    return run


def rows(path):
    with path.open(newline="") as stream:
        return {row["candidate"]: row for row in csv.DictReader(stream)}


def test_sources_and_scratch_race_and_bad_sources_are_listed(rank, root, monkeypatch, capsys, tmp_path):
    bad = ("broken.pt", "wider.pt", "missing.pt")
    config = tmp_path / "winner.yaml"
    more = ("--rungs", "[0.5]", "--config-out", str(config), "--finish", "false")
    out = rank("t1.pt", *bad, "encoder.pt", more=more)
    printed = capsys.readouterr().out
    found = rows(out / "rank.csv")
    assert list(found) == ["t1", "encoder", "scratch", "broken", "wider", "missing.pt"]
    assert [row["takes_part"] for row in found.values()] == ["yes"] * 3 + ["no"] * 3
    assert "cannot be read as a checkpoint" in found["broken"]["reason"]
    assert "does not fit" in found["wider"]["reason"]
    assert "there is no such checkpoint" in found["missing.pt"]["reason"]
    assert all(f"Left out: {name}" in printed for name in ("broken", "wider", "missing.pt"))
    for name in ("t1", "encoder"):
        assert found[name]["cases"] == "3"
        assert float(found[name]["pass_seconds"]) > 0
        for score in ("logme.encoder", "probe_dice.bottleneck"):
            assert float(found[name][f"{score}_low"]) <= float(found[name][f"{score}_high"])
            assert float(found[name][score]) == float(found["t1"][score])  # the same weights down to there
    # an encoder has no head, and the features before the head are the bottleneck's in this small network
    assert float(found["t1"]["leep"]) < 0
    assert (found["encoder"]["has_head"], found["encoder"]["leep"], found["scratch"]["leep"]) == ("False", "", "")

    result = json.loads((out / "rank.json").read_text())
    assert {each["name"]: each["outcome"] for each in result["race"]["candidates"]} == {
        name: "won" if name == result["race"]["winner"] else "dropped after 1/2 of the steps"
        for name in ("t1", "encoder", "scratch")
    }
    assert not (out / "race/encoder/risk").exists()
    assert "model.0.conv.weight" in (out / "race/encoder/adaptation.csv").read_text()
    winner = result["race"]["winner"]
    assert f"{winner}: validation Dice" in printed

    written = yaml.safe_load(config.read_text())
    assert written["run"]["folder"] == str(out / "race" / winner)
    checkpoint = out / "race" / winner / "checkpoints/last.ckpt"
    steps = torch.load(checkpoint, weights_only=True)["global_step"]
    main(["fit", "--config", str(config)])  # goes on where the race stopped
    assert torch.load(checkpoint, weights_only=True)["global_step"] == 2 * steps

    # a second call runs no source, and another source costs only its own passes
    made = []
    real = passes.voxel_sample
    monkeypatch.setattr(passes, "voxel_sample", lambda *given: made.append(given[1].subject) or real(*given))
    rank("t1.pt", "encoder.pt", more=("--race", "off"))
    assert made == []
    assert rows(out / "rank.csv")["t1"] == found["t1"]
    rank("t1.pt", "t2.pt", more=("--race", "off", "--config-out", str(config)))
    assert made == ["case00", "case01", "case02"]
    assert "There was no race. The best linear probe is that of t" in capsys.readouterr().out
    assert yaml.safe_load(config.read_text())["run"]["folder"] is None
    monkeypatch.setattr(run_file, "run_race", lambda *_: sys.exit(0))
    with pytest.raises(SystemExit):
        rank("t1.pt", "t2.pt", more=("--finalists", "1"))
    assert "Not in the race (--finalists 1): t" in capsys.readouterr().out
    assert (out / "race" / winner / "checkpoints/last.ckpt").exists()  # nothing has changed


def test_the_ways_to_use_a_single_source_train(rank, root, monkeypatch, capsys):
    """Races them without training first, to see how they are called; then trains in both ways at once."""
    called = []
    monkeypatch.setattr(run_file, "run_race", lambda candidates, *_: called.append(candidates) or sys.exit(0))
    with pytest.raises(SystemExit):
        rank("t1.pt", out="ways", method="vanilla", more=("--depths", "true", "--trainer.max_epochs", "1"))
    (candidates,) = called
    ways = ["t1", "t1-encoder", "t1-not_first", "t1-l2sp=10", "t1-l2sp=1"]
    assert [each.name for each in candidates] == [*ways, "scratch"]
    listed = rows(root / "ways/rank.csv")
    assert {listed[name]["logme.encoder"] for name in ways} == {listed["t1"]["logme.encoder"]}
    assert [float(listed[name]["pass_seconds"]) > 0 for name in ways] == [True, *[False] * 4]
    both = [*candidates[1].arguments, *candidates[3].arguments[-2:]]
    main(["fit", *both, "--run.folder", str(root / "ways/run")])
    with (root / "ways/run/adaptation.csv").open(newline="") as stream:
        statuses = {row["parameter"]: row["status"] for row in csv.DictReader(stream)}
    assert statuses["model.0.conv.weight"] == "adapted"  # two channels in the source, one in the target
    assert statuses["model.1.submodule.conv.weight"] == "loaded"
    assert statuses["model.2.conv.weight"] == "new"
    with pytest.raises(SystemExit):  # before anything is trained
        main(["fit", *candidates[2].arguments, "--run.folder", str(root / "ways/run"), "--ckpt_path", "last"])
    assert "model.source.load: encoder in the checkpoint, not_first in this command" in capsys.readouterr().err


def test_another_question_and_only_bad_sources_are_refused(rank, root, capsys, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(riskft.run.lock, "_taken", lambda *_: False)
        with pytest.raises(SystemExit):
            rank("t1.pt", out="other")
    assert re.search(r"is in use by .*, or choose another --out\.", capsys.readouterr().err)
    config = root / "other.yaml"
    with pytest.raises(SystemExit):  # a probe needs a second case
        rank("t1.pt", out="other", more=("--race", "off", "--data.train_limit", "1", "--config-out", str(config)))
    found = capsys.readouterr()
    assert "no linear probe could be fitted" in found.out
    assert "nothing says which source is best" in found.err
    assert not config.exists()
    rank("t1.pt", out="other", more=("--race", "off", "--overwrite"))
    with pytest.raises(SystemExit):
        rank("t1.pt", out="other", more=("--race", "off", "--data.modalities", "[t1]"))
    assert "data.modalities: [t2] there, [t1] here" in capsys.readouterr().err
    rank("t1.pt", out="other", more=("--race", "off", "--data.modalities", "[t1]", "--overwrite"))
    with pytest.raises(SystemExit):
        rank("broken.pt", "missing.pt", out="none", more=("--race", "off"))
    message = capsys.readouterr().err
    assert "No source can take part" in message
    assert "broken" in message
    assert "missing.pt: " in message
    assert not (root / "none/question.json").exists()  # it would refuse the corrected call
    with pytest.raises(SystemExit) as stopped:
        rank("t1.pt", out="none", more=("--data.modalitys", "[t1]"))
    assert stopped.value.code == 2
    with pytest.raises(SystemExit):
        rank("t1.pt", out="other", more=("--data.modalities", "[t1]", "--trainer.limit_val_batches", "0"))
    assert "trainer.limit_val_batches is 0" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        rank("t1.pt", more=("--voxels", "0"))
    assert "--voxels is 0, expected 1 or more" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        rank("t1.pt", "t2.pt", more=("--depths", "true"))
    assert "--depths is for one source, but --sources has 2" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        rank("t1.pt", more=("--rungs", "[0.5, 0.25]"))
    assert "expected ascending fractions" in capsys.readouterr().err


def test_the_race_s_defaults_are_those_of_its_options():
    options, race = _parser().get_defaults(), RaceOptions(Path())
    assert (options.rungs, options.budget, options.finish, options.jobs) == (
        race.rungs, race.budget, race.finish, race.jobs,
    )  # fmt: skip
