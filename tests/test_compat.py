"""What other libraries do not promise to keep is as riskft needs it, and is used in one place."""

import ast
import importlib
import inspect
import os
import pkgutil
import signal
import subprocess
import sys
import warnings
from contextlib import contextmanager
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import wandb
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import combined_loader
from torch.nn.utils import parametrizations
from torch.utils.data import DataLoader

import riskft
from riskft import compat
from riskft.arguments.parser import CommandParser

#: Private names of other libraries' classes that classes of riskft override, set or call:
#: (our class, name): (its class, the method that calls it or "", its arguments, what it is needed for)
OVERRIDDEN = {
    ("Command", "_parse_ckpt_path"): (LightningCLI, "__init__", [], "to compare options with a checkpoint's"),
    ("Command", "_set_seed"): (LightningCLI, "__init__", [], "to seed when a command is built, not when it is parsed"),
    ("Command", "_run_subcommand"): (LightningCLI, "__init__", ["subcommand"], "to build a command without running it"),
    ("Command", "_parser"): (LightningCLI, "instantiate_trainer", ["subcommand"], "to check each option once"),
    ("Command", "_instantiate_trainer"): (
        *(LightningCLI, "instantiate_trainer", ["config", "callbacks"]),
        "to say which of the trainer's options are refused",
    ),
    ("RunCSVLogger", "_experiment"): (CSVLogger, "experiment", None, "to keep an earlier metrics.csv"),
    ("_LateWriter", "_check_log_dir_exists"): (ExperimentWriter, "__init__", [], "to keep an earlier metrics.csv"),
}


@contextmanager
def contract(library, name, purpose):
    """Says which library changed what, whatever goes wrong inside."""
    try:
        yield
    except Exception as error:
        pytest.fail(
            f"{library} {version(library)} no longer has {name} as riskft needs it {purpose} "
            f"({type(error).__name__}: {error}). Adapt riskft/compat.py, or the class that overrides it.",
            pytrace=False,
        )


@pytest.fixture(scope="module")
def trainer():
    return Trainer(accelerator="cpu", strategy="ddp", devices=2, logger=False, enable_progress_bar=False)


class Box(LightningModule):
    def __init__(self, width: int = 1):
        super().__init__()
        self.save_hyperparameters()
        self.width = width


def test_only_listed_warnings_are_hidden():
    shown = "`zip` is deprecated"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compat.hide_warnings()
        warnings.warn("The 'val_dataloader' does not have many workers which may be a bottleneck.", stacklevel=1)
        warnings.warn("`isinstance(treespec, LeafSpec)` is deprecated, use `is_leaf`", FutureWarning, stacklevel=1)
        warnings.warn(shown, FutureWarning, stacklevel=1)
    assert [str(one.message) for one in caught] == [shown]


def test_lazy_defaults():
    with contract("jsonargparse", "lazy_instance and its lazy_get_init_args", "for defaults that are objects"):
        lazy = compat.lazy_instance(Box)
        assert isinstance(lazy, Box)
        assert type(lazy) is type(compat.lazy_instance(Box))
        assert type(compat.made(lazy)) is Box
        assert compat.made(lazy).width == 1
    box = Box(2)
    assert compat.made(box) is box


def test_the_mark_of_the_command_line(monkeypatch):
    monkeypatch.setattr(sys, "argv", [""])
    with contract("lightning", "the hyperparameter _instantiator", "to keep checkpoints free of pickled objects"):
        assert compat.BUILT_BY in LightningCLI(Box, run=False, args=[], seed_everything_default=False).model.hparams
        assert compat.BUILT_BY not in Box(3).hparams


def test_the_trainer_of_a_module(trainer):
    with contract("lightning", "LightningModule._trainer", "to set up a module that has no trainer"):
        box = Box()
        assert compat.attached_trainer(box) is None
        box.trainer = trainer
        assert compat.attached_trainer(box) is trainer


def test_sigterm(trainer):
    seen = []
    with contract("lightning", "Trainer._signal_connector", "to stop all processes at a SIGTERM"):
        connector = trainer._signal_connector
        compat.handle_sigterm(trainer, lambda signum, frame: seen.append(signum))
        connector.register_signal_handlers()
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            connector.teardown()
        assert seen == [signal.SIGTERM]
        assert not trainer.received_sigterm
        compat.note_sigterm(trainer)
        assert trainer.received_sigterm


def test_the_next_epoch():
    trainer = Trainer(accelerator="cpu", max_steps=4, logger=False, enable_progress_bar=False)
    with contract("lightning", "the states of its loops", "to resume at the end of an epoch with max_steps"):
        loop = trainer.fit_loop
        ended = {"ready": 1, "started": 1, "processed": 1, "completed": 0}
        loop.epoch_progress.load_state_dict({"total": ended, "current": ended})
        loop.epoch_loop.batch_progress.is_last_batch = True
        loop.restarting = True
        loop.update_restart_stage()
        assert loop.restarted_on_epoch_end
        compat.start_next_epoch(trainer)
        assert [loop.restarting, loop.epoch_loop.restarting, loop.restarted_on_epoch_end] == [False] * 3
        assert trainer.current_epoch == 1


def test_option_names():
    parser = CommandParser()
    with contract("jsonargparse", "a parser's actions", "to tell a command's options from those of fit"):
        parser.add_argument("-k", "--count", type=int)
        assert {"-h", "--help", "-k", "--count"} <= compat.option_names(parser)


def test_launched_processes(trainer):
    with contract("lightning", "the launcher's procs", "to end the processes of a failed run"):
        assert compat.launched_processes(trainer) == []
        with subprocess.Popen([sys.executable, "-c", ""]) as process:
            trainer.strategy.launcher.procs.append(process)
            assert compat.launched_processes(trainer) == [process]
        trainer.strategy.launcher.procs.clear()


def test_ddp_options():
    with contract("lightning", "DDPStrategy._ddp_kwargs", "to refuse BackboneFreeze with a DDP that would fail"):
        assert compat.finds_unused_parameters(DDPStrategy(find_unused_parameters=True))
        assert not compat.finds_unused_parameters(DDPStrategy())


def test_the_decay_of_an_average():
    with contract("lightning", "WeightAveraging._kwargs", "to say how much of the first weights an average holds"):
        mean = compat.averaging_function(EMAWeightAveraging(decay=0.75))(torch.tensor(1.0), torch.tensor(0.0), 1)
        assert mean.item() == 0.75


@pytest.mark.parametrize(
    ("norm", "names"), [("weight_norm", compat.WEIGHT_NORM), ("spectral_norm", compat.SPECTRAL_NORM)]
)
def test_the_names_of_parametrised_weights(norm, names):
    with contract("torch", f"the entries of parametrizations.{norm}", "to read checkpoints of the old one"):
        state = getattr(parametrizations, norm)(torch.nn.Conv3d(1, 2, 1)).state_dict()
        assert set(names.values()) == state.keys() - {"bias"}


def test_the_timeout_of_the_process_group():
    with contract("torch", "ProcessGroup._get_backend(...).options._timeout", "to wait as long as the strategy says"):
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1, timeout=timedelta(seconds=77))
        try:
            assert compat.group_timeout(torch.device("cpu")) == timedelta(seconds=77)
        finally:
            dist.destroy_process_group()


@pytest.mark.parametrize(("axis", "found"), [(1, 1), (-4, 1), (-1, 4), (0, 0)])
def test_the_axis_of_a_softmax(axis, found):
    with contract("torch", "SoftmaxBackward0._saved_dim", "to see whether a network ends in a softmax over classes"):
        node = torch.ones(1, 2, 3, 3, 3, requires_grad=True).softmax(axis).grad_fn
        assert node.name() == "SoftmaxBackward0"
        assert compat.softmax_axis(node, 5) == found


def test_an_assertion_that_does_not_wait_for_the_device():
    with contract("torch", "torch._assert_async", "to refuse labels that are not classes"):
        compat.assert_on_device(torch.tensor(True), "all is well")
        with pytest.raises(RuntimeError, match="a label"):
            compat.assert_on_device(torch.tensor(False), "a label")


def test_the_workers_of_a_loader():
    with contract("lightning", "_shutdown_workers_and_reset_iterator", "to end the workers of the patch loader"):
        assert "_iterator" in names_in(combined_loader._shutdown_workers_and_reset_iterator)
    with contract("torch", "DataLoader._iterator", "to end the workers of the patch loader"):
        loader = DataLoader([1, 2], num_workers=1, persistent_workers=True)
        assert compat.workers_of(loader) is None
        assert len(list(loader)) == 2
        assert compat.workers_of(loader) is not None
        combined_loader._shutdown_workers_and_reset_iterator(loader)
        assert compat.workers_of(loader) is None
        compat.set_workers(loader, loader)
        assert compat.workers_of(loader) is loader


@pytest.mark.parametrize(("owner", "name"), OVERRIDDEN)
def test_what_is_overridden(owner, name):
    base, caller, arguments, purpose = OVERRIDDEN[owner, name]
    with contract("lightning", f"{base.__name__}.{name}", f"({owner}) {purpose}"):
        if arguments is None:
            assert hasattr(CSVLogger("", name="", version=""), name)
        else:
            assert list(inspect.signature(getattr(base, name)).parameters) == ["self", *arguments]
        callers = {called for part in base.__mro__ if caller in vars(part) for called in names_in(vars(part)[caller])}
        assert name in callers, f"{caller} does not use it"


@pytest.fixture(scope="module")
def modules():
    """All modules of riskft but the one that may use private names, with their code as a tree."""
    names = [found.name for found in pkgutil.walk_packages(riskft.__path__, "riskft.")]
    kept = [importlib.import_module(name) for name in names if name not in ("riskft.__main__", "riskft.compat")]
    return [(module, ast.parse(Path(module.__file__).read_text(encoding="utf-8"))) for module in kept]


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def test_no_private_name_is_used_elsewhere(modules):
    found = []
    for module, tree in modules:
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                found += [f"{module.__name__}: {name.name}" for name in node.names if is_private(name.name)]
            # those of `self` and `super()` may be the class's own: see below
            if isinstance(node, ast.Attribute) and is_private(node.attr):
                value = node.value.func if isinstance(node.value, ast.Call) else node.value
                if not (isinstance(value, ast.Name) and value.id in ("self", "cls", "super")):
                    found.append(f"{module.__name__}: {ast.unparse(node)}")
    assert not found, "Take these from riskft/compat.py"


def test_no_other_private_name_is_overridden(modules):
    found = set()
    for module, tree in modules:
        for node in (node for node in tree.body if isinstance(node, ast.ClassDef)):
            kind = getattr(module, node.name)
            foreign = [
                base
                for base in kind.__mro__
                if base.__module__.partition(".")[0] not in {"riskft", *sys.stdlib_module_names}
            ]
            used = {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute) and is_private(part.attr)}
            used |= {name for name in vars(kind) if is_private(name)}
            found |= {(node.name, name) for name in used for base in foreign if name in names_of(base)}
    assert found == set(OVERRIDDEN)


def names_of(base):
    """Returns the names that a class has or uses."""
    return (set(vars(base)) - {"_abc_impl", "_backward_cls"}).union(*map(names_in, vars(base).values()))


def names_in(member):
    """Returns the names that the code of a method or property uses."""
    function = member.fget if isinstance(member, property) else member
    code = getattr(inspect.unwrap(function) if callable(function) else None, "__code__", None)
    return set(code.co_names) if code is not None else set()


def test_what_every_run_of_wandb_imports():
    with contract("wandb", "sdk.launch.inputs.internal", "to import it before torch, which takes a tenth of the time"):
        assert "wandb.sdk.launch.inputs.internal" in inspect.getsource(wandb.Run._detect_and_apply_job_inputs)
    compat.import_wandb()
    assert "wandb.sdk.launch.inputs.internal" in sys.modules
