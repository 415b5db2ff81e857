"""The command line: ``riskft {fit,validate,test,predict,riskmap,data,convert,sweep,compare,validity}``."""

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from jsonargparse import set_parsing_settings
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import SIGTERMException

from riskft.building import refuse_as_input, refused_by
from riskft.callback_lists import with_callbacks_merged
from riskft.data.datamodule import RiskDataModule
from riskft.distributed import is_first_rank
from riskft.finetune.checkpoint_io import WholeCheckpointIO
from riskft.finetune.checkpoints import run_checkpoints
from riskft.finetune.finite import FiniteLoss
from riskft.finetune.module import RiskModule
from riskft.flags import with_values
from riskft.interruptions import again, ending_with, go_on, sigterm_raised
from riskft.messages import message
from riskft.moved import bring_along, moved_run, place_is_given, settle
from riskft.parser import BriefParser, config_faults
from riskft.places import places_of, refuse_unwritable, why_not_writable
from riskft.record.options import trained_options
from riskft.report.loggers import logs_to_wandb, run_loggers, staging_undone
from riskft.report.wandb_online import refuse_unreachable, refuse_unusable_settings
from riskft.requeue import Requeue, in_slurm_task
from riskft.run_folder import (
    RunOptions,
    WandbOptions,
    refuse_finished,
)
from riskft.run_lock import locked
from riskft.save_run import SaveRun
from riskft.source.packages.defaults import with_package_defaults
from riskft.trainer import RiskTrainer

log = logging.getLogger(__name__)

DESCRIPTION = """Transfer risk maps and risk-weighted fine-tuning of segmentation networks.

`riskft fit` makes the risk maps and fine-tunes; `riskft riskmap` makes the maps alone. `riskft data phantom` writes a
cohort to try it on, and `riskft data check` looks for faults in a data set (see `riskft data --help`).
`riskft convert` takes the weights out of a checkpoint that holds more than weights. `riskft sweep` starts many runs
from one file, here or on a SLURM cluster (see `riskft sweep --help`). `riskft compare` compares tested runs, paired by
case and seed, and writes a report (see `riskft compare --help`). `riskft validity` asks the test cases whether the risk
map finds what fine-tuning gets wrong (see `riskft validity --help`)."""

#: Defaults that a constructor cannot state: one refers to another option, the other depends on the run's length.
PATCHWISE = {
    "model.inferer": {
        "class_path": "monai.inferers.SlidingWindowInferer",
        "init_args": {"roi_size": "${....data.patch_size}", "sw_batch_size": 4, "overlap": 0.5, "mode": "gaussian"},
    },
    "model.schedule": {"class_path": "torch.optim.lr_scheduler.PolynomialLR", "init_args": {"power": 0.9}},
}


class RiskCLI(LightningCLI):
    """LightningCLI with a run folder, its loggers and checkpoints, and the links between data and model."""

    config: Any
    folder: Path

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        given = sys.argv[1:]

        def advice() -> str:
            return go_on(given, self.folder) if hasattr(self, "folder") else again(given)

        # LightningCLI runs the command when it is made
        with ending_with(advice), ExitStack() as self._held:
            super().__init__(*args, **kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds ``run`` and ``wandb``; links what must agree."""
        parser.add_class_arguments(RunOptions, "run")
        parser.add_class_arguments(WandbOptions, "wandb")
        parser.add_argument(
            "--trainer.drop_callbacks",
            type=list[str],
            default=[],
            help="Classes of callbacks to leave out although a config lists them, such as riskft.RiskPanelCallback. "
            "Lists of trainer.callbacks add up; a class that is listed again takes the later options.",
        )
        parser.set_defaults(PATCHWISE)
        parser.link_arguments("data.class_names", "model.class_names", apply_on="instantiate")
        parser.link_arguments("data.num_channels", "model.in_channels", apply_on="instantiate")
        parser.link_arguments("data.regions", "model.regions", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses the arguments, after what the source model says of itself; paths inside a moved run follow it."""
        arguments = list(sys.argv[1:] if args is None else args)
        with config_faults(arguments):
            self.config = parser.parse_args(with_callbacks_merged(with_package_defaults(arguments)))
        self.moved = moved_run(arguments)
        self.place_is_given = place_is_given(arguments)
        if self.moved is not None:
            bring_along(self.config[self.config.subcommand], self.moved)

    def _parse_ckpt_path(self) -> None:
        """Does nothing: Lightning would replace the command's options by the checkpoint's, which are compared here."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Returns Lightning's commands and ``riskmap``, each with the arguments that it does not show."""
        skipped = {"model", "datamodule"}
        return {name: set(skipped) for name in ("fit", "validate", "test", "predict", "riskmap")}

    def before_instantiate_classes(self) -> None:
        """Settles the run folder, and refuses what cannot be written to before anything is read."""
        command = str(self.subcommand)
        config = self.config[command]
        options = RunOptions(**config.run.as_dict())
        folder = config.out if command == "riskmap" else config.trainer.default_root_dir
        self.folder = Path(folder) if folder else options.path(config.seed_everything)
        stays = self.moved is None or self.place_is_given or self.moved.before != self.folder.absolute()
        if self.moved is not None and not stays:
            log.info("The run is not at %s, as its config says, but at %s.", self.moved.before, self.moved.now)
            self.folder = self.moved.now
            settle(config.run, self.moved, config.seed_everything)
        refuse_unwritable(places_of(command, config, self.folder))
        if logs_to_wandb(config):
            refuse_unusable_settings()
        if command == "fit":
            if is_first_rank():
                self._held.enter_context(locked(self.folder))
            refuse_finished(self.folder, options.overwrite, resuming=config.ckpt_path is not None)
        if is_first_rank() and logs_to_wandb(config) and not config.wandb.offline:
            refuse_unreachable()

    def instantiate_classes(self) -> None:
        """Builds the parts, and tells what a class of another library refuses as bad input."""
        refuse_as_input(self.parser)
        super().instantiate_classes()
        if isinstance(self.model, RiskModule):
            self.model.try_out()

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        config.pop("drop_callbacks", None)  # the parser has dropped them
        with refused_by("trainer", {}):
            return super()._instantiate_trainer(config, callbacks)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Adds the run folder with its loggers (where the config names none) and checkpoints."""
        config = self.config_init[self.subcommand]
        self.model.options = trained_options(self.config_dump)
        self.starts_anew = self.subcommand == "fit" and config.ckpt_path is None
        kwargs["default_root_dir"] = str(self.folder)
        if config.trainer.logger is None:
            # a run that others share need not be written to be used
            logs = self.subcommand not in ("predict", "validate") or why_not_writable(self.folder) is None
            kwargs["logger"] = logs and run_loggers(self.folder, str(self.subcommand), config, self.starts_anew)
        if self.subcommand != "fit":
            # Lightning adds none of its own then, and refuses to be without if the training's config has some
            kwargs["enable_checkpointing"] = any(
                isinstance(one, Checkpoint) for one in _listed(config.trainer.callbacks)
            )
            self.save_config_callback = None  # the run folder keeps the record of the training
        elif config.trainer.enable_checkpointing is not False:
            checkpoints = run_checkpoints(str(self.folder / "checkpoints"))
            kwargs["callbacks"] = [*_listed(config.trainer.callbacks), *checkpoints]
        if self.subcommand == "fit":
            given = _listed(kwargs.get("callbacks", config.trainer.callbacks))
            guarded = any(isinstance(callback, FiniteLoss) for callback in given)
            kwargs["callbacks"] = given if guarded else [*given, FiniteLoss()]
        trainer: Trainer = super().instantiate_trainer(**kwargs)
        if in_slurm_task(os.environ):
            trainer.callbacks.append(Requeue(self.folder, str(self.subcommand)))  # type: ignore[attr-defined]
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # none that the config names
            trainer.strategy.checkpoint_io = WholeCheckpointIO()
        return trainer


def _listed(callbacks: Any) -> list[Any]:
    return list(callbacks) if isinstance(callbacks, list) else [callbacks] if callbacks else []


def main(args: Sequence[str] | None = None) -> None:
    """Runs a command.

    Args:
        args: Command line arguments; by default those of the process.

    Raises:
        SystemExit: With 1 for bad input, a full disk or a lost process, after a message without a traceback; with 2 for
            a wrong command line; with 130 after a Ctrl-C and 143 after a SIGTERM.
    """
    arguments = with_values(sys.argv[1:] if args is None else args)
    _set_up_logging()
    with staging_undone(), sigterm_raised(), ending_with(lambda: again(arguments)):
        _run_command(arguments)


def _run_command(arguments: list[str]) -> None:
    try:
        if arguments[:1] == ["data"]:
            from riskft.data.cli import main as data_main

            data_main(arguments[1:])
        elif arguments[:1] == ["convert"]:
            from riskft.source.cli import main as convert_main

            convert_main(arguments[1:])
        elif arguments[:1] == ["sweep"]:
            from riskft.sweep.cli import main as sweep_main

            sweep_main(arguments[1:])
        elif arguments[:1] == ["compare"]:
            from riskft.compare.cli import main as compare_main

            compare_main(arguments[1:])
        elif arguments[:1] == ["validity"]:
            from riskft.validity.cli import main as validity_main

            validity_main(arguments[1:])
        else:
            run(arguments)
    except Exception as error:
        if isinstance(error, SIGTERMException) or (reason := message(error)) is None:
            raise
        print(f"riskft: {reason}", file=sys.stderr)  # noqa: T201
        raise SystemExit(1) from None
    finally:
        _finish_wandb()


def run(arguments: Sequence[str], cli_class: type[RiskCLI] = RiskCLI) -> RiskCLI:
    """Parses the arguments of a Lightning command and runs it."""
    set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
    # through sys.argv, from which Lightning makes the command of the other processes of a DDP run
    saved, sys.argv = sys.argv, [sys.argv[0], *arguments]
    try:
        return cli_class(
            RiskModule,
            RiskDataModule,
            trainer_class=RiskTrainer,
            parser_class=BriefParser,
            # the data module shards its loaders; Lightning would shard them a second time
            trainer_defaults={"use_distributed_sampler": False, "log_every_n_steps": 10},
            save_config_callback=SaveRun,
            save_config_kwargs={"save_to_log_dir": False},  # but to the run folder, whatever the loggers
            seed_everything_default=0,
            parser_kwargs={"parser_mode": "omegaconf+", "description": DESCRIPTION},
            auto_configure_optimizers=False,
        )
    finally:
        sys.argv = saved


def _finish_wandb() -> None:
    """Ends the W&B run, so that a second command in the same process does not go on with it."""
    if (wandb := sys.modules.get("wandb")) is not None and wandb.run is not None:
        wandb.finish()


def _set_up_logging() -> None:
    logger = logging.getLogger("riskft")
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        logger.addHandler(handler)
    # on other ranks than the first only warnings
    logger.setLevel(logging.INFO if is_first_rank() else logging.WARNING)
    for ignored in (
        ".*does not have many workers.*",
        ".*logged.* sync_dist.*",
        ".*recommended to use `self.log.*sync_dist=True.*",
        ".*number of training batches.*smaller than the logging interval.*",
        ".*callbacks used to create the checkpoint need to be provided.*",
        ".*always_return_as_numpy.*",  # of MONAI's own call
        "Experiment logs directory .* exists and is not empty.*",  # an earlier metrics.csv has been moved aside
        ".*isinstance\\(treespec, LeafSpec\\).*",
    ):
        warnings.filterwarnings("ignore", message=ignored)


if __name__ == "__main__":
    main()
