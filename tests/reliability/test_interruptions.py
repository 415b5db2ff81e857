"""Ctrl-C and SIGTERM: the status, and one line on how to go on."""

import os
import signal
import time

import pytest
from forked_runs import STEPS_AN_EPOCH, Study, before_step, forked
from lightning.pytorch.utilities.exceptions import SIGTERMException

from riskft.commands.interruptions import again, ending_with, go_on, sigterm_raised


def exit_like_lightning():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
    except KeyboardInterrupt:
        raise SystemExit(1)  # noqa: B904


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt, 130), (SIGTERMException, 143)])
def test_status_and_line(error, status, capsys):
    with pytest.raises(SystemExit) as stopped, ending_with(lambda: "outer"), ending_with(lambda: "Do this."):
        raise error
    assert stopped.value.code == status
    assert capsys.readouterr().err == "riskft: stopped. Do this.\n"  # once


def test_the_status_of_lightning_after_ctrl_c_is_replaced(capsys):
    with pytest.raises(SystemExit) as stopped, ending_with(lambda: "Do this."):
        exit_like_lightning()
    assert stopped.value.code == 130
    with pytest.raises(SystemExit) as stopped, ending_with(lambda: "Do this."):
        raise SystemExit(1)
    assert stopped.value.code == 1


def test_sigterm_outside_of_a_loop_ends_the_command(capsys):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped, sigterm_raised(), ending_with(lambda: "Do this."):
        signal.raise_signal(signal.SIGTERM)
    assert stopped.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_how_to_go_on(tmp_path):
    given = ["fit", "--config", "a b.yaml", "--run.overwrite", "true", "--ckpt_path=x.ckpt"]
    assert go_on(given, tmp_path).endswith(": riskft fit --config 'a b.yaml' --ckpt_path last")
    assert "There is no checkpoint yet" in go_on(given, tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/last.ckpt").touch()
    assert "To go on from the last checkpoint" in go_on(given, tmp_path)
    assert go_on(["test", "--config", "c"], tmp_path).endswith("again: riskft test --config c")
    maps = ["riskmap", "--out", "o"]
    assert go_on(maps, tmp_path).endswith("riskft riskmap --out o")
    (tmp_path / "a_weight.nii.gz").touch()
    assert go_on(maps, tmp_path).endswith("riskft riskmap --out o --overwrite true")
    assert again(["sweep", "s.yaml", "--local"]).endswith("riskft sweep s.yaml --local")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_fit(tmp_path, tiny_manifest, number, status):
    study = Study(tmp_path, tiny_manifest)
    stop = before_step(STEPS_AN_EPOCH, lambda: os.kill(os.getpid(), number))
    stopped = forked(study.arguments(), tmp_path / "stopped", stop)
    assert stopped.wait() == status, stopped.text
    assert "Traceback" not in stopped.text
    (line,) = (line for line in stopped.text.splitlines() if line.startswith("riskft: stopped."))
    assert line.endswith("--ckpt_path last")
    assert "To go on from the last checkpoint: riskft fit" in line
