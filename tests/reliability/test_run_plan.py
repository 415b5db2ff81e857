"""What `fit` says before its first step, and that saying it changes nothing in the run."""

import logging
import re

import pytest
import torch
from forked_runs import CONFIGS, Study

from riskft.cli import main
from riskft.training.module import RiskModule

pytestmark = pytest.mark.slow


def test_steps_refresh_average_and_time_are_said_before_the_first_step(tmp_path, tiny_manifest, monkeypatch, caplog):
    study = Study(tmp_path, tiny_manifest)
    step, before = RiskModule.training_step, []

    def noted(self, *arguments):
        before.append(caplog.text)
        return step(self, *arguments)

    monkeypatch.setattr(RiskModule, "training_step", noted)
    caplog.set_level(logging.INFO, "riskft")
    more = ["--config", str(CONFIGS / "trainer/ema.yaml")]
    main([*study.arguments("fit", *more), "--trainer.max_epochs", "4"])
    said = before[0]
    # three subjects, two patches each, two a batch: three batches an epoch
    assert "The run: 12 steps, 4 epochs of 3 batches, each of 2 patches of 16 x 16 x 16 voxels; 4 validations." in said
    assert "The risk map is static for 3 steps, then refreshed every 1 steps." in said
    assert "averaged over about 1 steps" in said
    assert re.search(r"Expected time: about \d+ s \(\S+ s a batch and 4 validations of \d+ s\)", said)
    assert "The first epoch took" in caplog.text
    assert "never" not in caplog.text


def test_a_run_that_is_too_short_says_what_never_happens(tmp_path, tiny_manifest, caplog):
    study = Study(tmp_path, tiny_manifest)
    options = ["--model.loss.init_args.start", "75", "--model.loss.init_args.every", "25"]
    main([*study.arguments("fit", *options), "--trainer.max_epochs", "1", "--trainer.check_val_every_n_epoch", "10"])
    assert (
        "riskft.RefreshedLoss never refreshes: the run has 3 steps, and the first refreshed map comes after 75"
        in caplog.text
    )
    assert "Nothing is validated, and there will be no best.ckpt: the run has 3 steps in 1 epochs" in caplog.text


def test_measuring_the_time_leaves_no_trace_in_the_weights(tmp_path, tiny_manifest, monkeypatch):
    weights = []
    for name in ("timed", "not_timed"):
        study = Study(tmp_path / name, tiny_manifest)
        main([*study.arguments(), "--trainer.max_epochs", "1", "--model.source.network.init_args.dropout", "0.3"])
        weights.append(study.checkpoint()["state_dict"])
        monkeypatch.setattr("riskft.training.plan.time_batch", lambda *arguments: None)
    assert weights[0].keys() == weights[1].keys()
    tensors = {key: value for key, value in weights[0].items() if isinstance(value, torch.Tensor)}
    assert tensors
    assert all(torch.equal(value, weights[1][key]) for key, value in tensors.items())
