"""Runs of the command line in forked processes, which start at once because everything is imported already."""

import logging
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_only
from made_parsers import make_parsers, use_made_parsers
from monai.networks.nets import UNet

import riskft.build  # noqa: F401  (which the command line would import in each process)
from riskft.cli import main
from riskft.training.module import RiskModule

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
TINY = Path(__file__).resolve().parents[1] / "cli/tiny.yaml"
STEPS_AN_EPOCH = 3  # three subjects, two patches each, two a batch


class Study:
    """A folder of runs, with its cache and a source network of three classes."""

    def __init__(self, root: Path, manifest: Path) -> None:
        self.root, self.manifest = root, manifest
        root.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        torch.save(UNet(3, 1, 3, (4, 8), (2,)).state_dict(), root / "source.pt")

    def arguments(self, command: str = "fit", *more: str, name: str = "run", method: str = "riskft") -> list[str]:
        source = [
            *("--model.source.checkpoint", str(self.root / "source.pt")),
            *("--model.source.network.init_args.out_channels", "3"),
            # no comparison with inverted images before the phase 1 whose passes and files are counted
            *("--model.source.invert", "false"),
        ]
        return [
            *(command, "--config", str(TINY), "--config", str(CONFIGS / f"method/{method}.yaml")),
            *("--data.reader.init_args.csv", str(self.manifest), "--data.cache_dir", str(self.root / "cache")),
            *("--trainer.drop_callbacks", "[riskft.RiskPanelCallback]"),
            *("--run.folder", str(self.folder(name)), "--wandb.enabled", "false", "--trainer.max_epochs", "3"),
            *([] if method == "scratch" else source),
            *more,
        ]

    def folder(self, name: str = "run") -> Path:
        return self.root / "runs" / name

    def checkpoint(self, name: str = "run") -> dict[str, Any]:
        return torch.load(self.folder(name) / "checkpoints/last.ckpt", weights_only=True)


class Forked:
    """A process that does something and ends, its output in a file."""

    def __init__(self, action: Callable[[], object], log: Path, rank: int | None = None, size: int = 1, port: int = 0):
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        self.pid = os.fork()
        if self.pid == 0:
            _become(log)
            if rank is not None:
                os.environ.update(LOCAL_RANK=str(rank), NODE_RANK="0", WORLD_SIZE=str(size))
                os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
                rank_zero_only.rank = rank
            _end(action)

    def wait(self, seconds: float = 60) -> int:
        """Returns the exit status, negative for a signal; a process that has not ended by then is a failure."""
        deadline = time.monotonic() + seconds
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                sys.stdout.write(self.text)  # which pytest shows if the test fails
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise AssertionError(f"still running after {seconds} s:\n{self.text}")
            time.sleep(0.02)

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")


def _become(log: Path) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(descriptor, number)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    logging.getLogger("riskft").handlers.clear()  # which write where the parent's messages go
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end(action: Callable[[], object]) -> None:
    code = 0
    try:
        action()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 70
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def forked(arguments: Sequence[str], log: Path, before: Callable[[], object] = lambda: None) -> Forked:
    """Starts a command; ``before`` runs in its process first."""

    def action() -> None:
        use_made_parsers()
        before()
        main(arguments)

    make_parsers(arguments[0])
    return Forked(action, log)


def ranks(
    arguments: Sequence[str],
    log: Path,
    before: Callable[[int], object] = lambda rank: None,
    size: int = 2,
    timeout: str = "0:01:00",
) -> list[Forked]:
    """Starts the processes of one command, as torchrun would, with a process group that times out."""
    options = [
        *("--trainer.devices", str(size), "--trainer.strategy", "lightning.pytorch.strategies.DDPStrategy"),
        *("--trainer.strategy.init_args.timeout", timeout),
    ]

    def work(rank: int) -> Callable[[], None]:
        def action() -> None:
            use_made_parsers()
            before(rank)
            main([*arguments, *options])

        return action

    make_parsers(arguments[0])
    port = free_port()
    return [Forked(work(rank), log.with_suffix(f".{rank}"), rank, size, port) for rank in range(size)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def before_step(step: int, action: Callable[[], object]) -> Callable[[], None]:
    """Returns what makes the process do something before a training step (counted from 0)."""

    def patch() -> None:
        original = RiskModule.training_step

        def training_step(self: RiskModule, batch: Any, batch_idx: int) -> Any:
            if self.global_step == step:
                action()
            return original(self, batch, batch_idx)

        RiskModule.training_step = training_step  # type: ignore[method-assign]

    return patch


def kill() -> None:
    """Dies as by ``kill -9``."""
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def assert_same_weights(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one["global_step"] == other["global_step"]
    assert one["state_dict"].keys() == other["state_dict"].keys()
    for key, value in one["state_dict"].items():
        torch.testing.assert_close(other["state_dict"][key], value, atol=1e-6, rtol=0)
