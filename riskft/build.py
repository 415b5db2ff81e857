"""Builds trainer, module and data from a command's arguments, with or without running them."""

import logging
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from jsonargparse import Namespace, set_parsing_settings
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

import riskft
from riskft.arguments.given import options_of
from riskft.arguments.merging import merged_callbacks, warn_of_two_methods
from riskft.arguments.moved import bring_along, moved_run, place_is_given, settle
from riskft.arguments.objects import refused_by, refused_objects
from riskft.arguments.package_defaults import package_defaults
from riskft.arguments.parser import CommandParser, config_faults
from riskft.data.datamodule import RiskDataModule
from riskft.distributed import is_first_rank
from riskft.errors import InputError
from riskft.run.folder import RunFolder, RunOptions, WandbOptions
from riskft.run.places import listed, places_of, refuse_unwritable, why_not_writable
from riskft.training.checkpoint_io import WholeCheckpointIO
from riskft.training.checkpoints import run_checkpoints
from riskft.training.finite import FiniteLossGuard
from riskft.training.loggers import logs_to_wandb, run_loggers
from riskft.training.module import RiskModule
from riskft.training.record.options import trained_options
from riskft.training.requeue import Requeue, in_slurm_task
from riskft.training.save_run import SaveRun
from riskft.training.trainer import RiskTrainer
from riskft.training.wandb_online import refuse_unreachable, refuse_unusable_settings

log = logging.getLogger(__name__)

#: Defaults that a constructor cannot have: one refers to another option, the other depends on the run's length.
DEFAULTS = {
    "model.inferer": {
        "class_path": "monai.inferers.SlidingWindowInferer",
        "init_args": {"roi_size": "${....data.patch_size}", "sw_batch_size": 4, "overlap": 0.5, "mode": "gaussian"},
    },
    "model.schedule": {"class_path": "torch.optim.lr_scheduler.PolynomialLR", "init_args": {"power": 0.9}},
}


#: The whole public API, imported because the parser accepts short class names only from imported modules.
OFFERED = [getattr(riskft, name) for name in riskft.__all__]


class _Parser(CommandParser, LightningArgumentParser):
    """The parser of the commands with a trainer."""


class Command(LightningCLI):
    """``fit``, ``validate``, ``test``, ``predict`` or ``riskmap``: parsed by the constructor, then built, then run.

    Its context holds the lock of the run folder.

    Args:
        arguments: The command and its options.

    Raises:
        UsageError: If the parser refuses them.
        InputError: If a file that they name cannot be read.
    """

    config: Any
    folder: Path | None = None

    def __init__(self, arguments: Sequence[str]) -> None:
        self._held = ExitStack()
        self._given = arguments[0]
        set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
        super().__init__(
            RiskModule,
            RiskDataModule,
            trainer_class=RiskTrainer,
            parser_class=_Parser,
            # the data module shards its loaders; Lightning would shard them a second time
            trainer_defaults={"use_distributed_sampler": False, "log_every_n_steps": 10},
            save_config_callback=SaveRun,
            save_config_kwargs={"save_to_log_dir": False},  # but to the run folder, whichever loggers there are
            seed_everything_default=0,
            parser_kwargs={"parser_mode": "omegaconf+"},
            auto_configure_optimizers=False,
            args=list(arguments),
        )

    def __enter__(self) -> "Command":
        return self

    def __exit__(self, *error: object) -> None:
        self._held.close()

    # -- parsed ------------------------------------------------------------------------------------------------------

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Returns the command with the trainer arguments that are not options; building five parsers takes a second."""
        return {self._given: {"model", "datamodule"}}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds ``run`` and ``wandb``, and links options that must agree."""
        parser.add_class_arguments(RunOptions, "run")
        parser.add_class_arguments(WandbOptions, "wandb")
        parser.add_argument(
            "--trainer.drop_callbacks",
            type=list[str],
            default=[],
            help="Callback classes to leave out although a config lists them, such as riskft.RiskPanelCallback. The "
            "lists of trainer.callbacks in several configs are merged; for a class listed again, later options win.",
        )
        parser.set_defaults(DEFAULTS)
        parser.link_arguments("data.class_names", "model.class_names", apply_on="instantiate")
        parser.link_arguments("data.num_channels", "model.in_channels", apply_on="instantiate")
        parser.link_arguments("data.regions", "model.regions", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses the arguments, preceded by the source model's defaults; paths inside a moved run follow it."""
        given = options_of(args)
        warn_of_two_methods(given)
        with config_faults(given):
            options = [*package_defaults(given), *args[1:], *merged_callbacks(given)]
            if any(argument.startswith("--print_config") for argument in args):
                parser.parse_args([self._given, *options])  # prints and exits
            # by the command's own parser: the outer one would check every option a second time
            parsed = self._parser(self._given).parse_args(options)
        self.config = Namespace({"subcommand": self._given, self._given: parsed})  # type: ignore[no-untyped-call]
        self.moved = moved_run(given)
        self.place_is_given = place_is_given(given)
        if self.moved is not None:
            bring_along(self.config[self.config.subcommand], self.moved)

    def _parse_ckpt_path(self) -> None:
        """Does nothing: Lightning would replace options with the checkpoint's, which riskft only compares."""

    def _set_seed(self) -> None:
        """Does nothing: ``build`` does."""

    def instantiate_classes(self) -> None:
        """Does nothing: ``build`` does."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Does nothing: ``run`` does."""

    @property
    def options(self) -> Any:
        """The command's options."""
        return self.config[str(self.subcommand)]

    @property
    def run_options(self) -> RunOptions:
        """Where the run goes and what it is called."""
        return RunOptions(**self.options.run.as_dict())

    # -- built -------------------------------------------------------------------------------------------------------

    def build(self) -> None:
        """Seeds this process, chooses and locks the run folder, and builds trainer, module and data.

        Raises:
            InputError: If the options cannot be built, or a folder cannot be written to.
        """
        try:
            super()._set_seed()
        except ValueError as error:
            raise InputError(f"seed_everything: {error}.") from error
        self.folder = self._settled_folder()
        self._refuse_places(self.folder)
        self._instantiate()
        self.model.try_out()

    def build_apart(self) -> None:
        """Builds trainer, module and data to look at a run: nothing is locked or written."""
        self._instantiate()

    def run(self) -> None:
        """Runs the command after ``build``."""
        super()._run_subcommand(str(self.subcommand))

    def _settled_folder(self) -> Path:
        given = self.options.out if self.subcommand == "riskmap" else self.options.trainer.default_root_dir
        folder = Path(given) if given else self.run_options.path(self.options.seed_everything)
        if self.moved is None or self.place_is_given or self.moved.before != folder.absolute():
            return folder
        log.info("The run's config names %s, but the run is now in %s.", self.moved.before, self.moved.now)
        settle(self.options.run, self.moved, self.options.seed_everything)
        return self.moved.now

    def _refuse_places(self, folder: Path) -> None:
        """Refuses folders that cannot be written to before anything is read; locks the run folder for ``fit``."""
        refuse_unwritable(places_of(str(self.subcommand), self.options, folder))
        if logs_to_wandb(self.options):
            refuse_unusable_settings()
        if self.subcommand == "fit":
            if is_first_rank():
                self._held.enter_context(RunFolder(folder).held())
            resuming = self.options.ckpt_path is not None
            RunFolder(folder).refuse_finished(self.run_options.overwrite, resuming)
        if is_first_rank() and logs_to_wandb(self.options) and not self.options.wandb.offline:
            refuse_unreachable()

    def _instantiate(self) -> None:
        """Builds the objects; what a class of another library refuses is an InputError."""
        with refused_objects(self.parser):
            super().instantiate_classes()

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        config.pop("drop_callbacks", None)  # the parser has dropped them
        with refused_by("trainer", {}):
            return super()._instantiate_trainer(config, callbacks)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Adds the run folder, its checkpoints and, unless the config names any, its loggers."""
        if self.folder is None:
            self.save_config_callback = None
            return super().instantiate_trainer(logger=False, callbacks=[], enable_checkpointing=False)
        config = self.config_init[self.subcommand]
        self.model.options = trained_options(self.config_dump)
        kwargs["default_root_dir"] = str(self.folder)
        if config.trainer.logger is None:
            # predict and validate also work in a run folder that is read-only
            logs = self.subcommand not in ("predict", "validate") or why_not_writable(self.folder) is None
            is_new = self.subcommand == "fit" and config.ckpt_path is None
            kwargs["logger"] = logs and run_loggers(self.folder, str(self.subcommand), config, is_new)
        callbacks = listed(config.trainer.callbacks)
        if self.subcommand != "fit":
            # without checkpoint callbacks Lightning must not add its own; with some it refuses False
            kwargs["enable_checkpointing"] = any(isinstance(one, Checkpoint) for one in callbacks)
            self.save_config_callback = None  # the run folder keeps the config of its training
        else:
            if config.trainer.enable_checkpointing is not False:
                callbacks += run_checkpoints(RunFolder(self.folder))
            if not any(isinstance(callback, FiniteLossGuard) for callback in callbacks):
                callbacks.append(FiniteLossGuard())
            kwargs["callbacks"] = callbacks
        trainer: Trainer = super().instantiate_trainer(**kwargs)
        if in_slurm_task(os.environ):
            trainer.callbacks.append(Requeue(self.folder, str(self.subcommand)))  # type: ignore[attr-defined]
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # the config names no other
            trainer.strategy.checkpoint_io = WholeCheckpointIO()
        return trainer


def build_data(arguments: Sequence[str]) -> RiskDataModule:
    """Builds the data module alone from the options of ``fit``; options of other parts are accepted and discarded.

    Args:
        arguments: ``--config`` files and options as for ``fit``; a data config by itself is enough.
    """
    set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
    parser = CommandParser(prog="riskft data check", parser_mode="omegaconf+")
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(RiskDataModule, "data", fail_untyped=False)
    for other in ("model", "trainer", "run", "wandb"):
        parser.add_argument(f"--{other}", type=dict[str, Any], default={})
    parser.add_argument("--seed_everything", type=Any, default=0)
    with config_faults(options_of(arguments)):
        options = parser.parse_args(list(arguments))
    with refused_objects(parser):
        data: RiskDataModule = parser.instantiate_classes(options).data
    return data
