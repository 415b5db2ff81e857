"""Builds the network that looks at the scans: that of a run, or a source that has not been fine-tuned."""

from collections.abc import Sequence
from pathlib import Path

from riskft.arguments.given import Option, last_file, options_of
from riskft.build import Command
from riskft.errors import InputError
from riskft.label_next.look import Viewer
from riskft.run.folder import RunFolder
from riskft.training.case_estimates import CaseEstimates
from riskft.training.checkpoint_io import WholeCheckpointIO
from riskft.training.checkpoints import find_checkpoint
from riskft.training.record.check import check_checkpoint, recorded_in
from riskft.training.trainer import weights_made_with

#: One process, and a network whose layers can be watched.
ALONE = (
    *("--trainer.strategy", "auto", "--trainer.devices", "1", "--trainer.num_nodes", "1", "--model.compile", "false"),
)


def open_run(path: Path, scans: Path, arguments: Sequence[str]) -> Viewer:
    """Returns the fine-tuned network of a run in a folder; raises InputError if it cannot be opened.

    ``scans`` is the folder of unlabelled scans; ``arguments`` are further options, which override the run's. Without
    ``ckpt_path`` among them, the best checkpoint is used.
    """
    run = RunFolder(path)
    if not run.config.is_file():
        raise InputError(f"{path} has no config.yaml. Give --run the folder of a run that `riskft fit` made.")
    checkpoint = find_checkpoint(run, last_file(options_of(arguments), "ckpt_path"))
    command = _built(["--config", str(run.config), *arguments, "--trainer.default_root_dir", str(path)])
    with command.datamodule.reading_folder(scans):
        check_checkpoint(checkpoint, command.model, command.datamodule, "predict")
    content = WholeCheckpointIO().load_checkpoint(checkpoint, map_location="cpu", weights_only=True)
    command.model.load_state_dict(content["state_dict"], strict=command.model.strict_loading)
    command.model.setup("predict")
    made_with = weights_made_with(checkpoint, command.trainer, command.model, command.datamodule)
    estimates = CaseEstimates(path, command.datamodule, recorded_in(checkpoint), made_with)
    return Viewer.of_module(command.trainer, command.model, command.datamodule, estimates)


def open_source(scans: Path, arguments: Sequence[str]) -> Viewer:
    """Returns the source network of options as for ``riskft fit``; raises InputError if they name none.

    The options need not name a data set: by default it is ``scans``, the folder of unlabelled scans.
    """
    options = options_of(arguments)
    if not _set(options, "model.source.checkpoint"):
        raise InputError(
            "No network is given to look at the scans with. Give --run with the folder of a fine-tuned run, or, "
            "before the first label, --model.source.checkpoint and the --config of a trained network of another task."
        )
    given = list(arguments)
    if not _set(options, "data.reader"):
        given += ["--data.reader", "riskft.UnlabelledReader", "--data.reader.init_args.root", str(scans)]
        if not _set(options, "data.labels"):
            given += ["--data.labels.classes", "{foreground: [1]}"]  # nothing depends on them
    command = _built(given)
    return Viewer.of_source(command.trainer, command.model.load_source(), command.datamodule)


def _built(arguments: Sequence[str]) -> Command:
    command = Command(["predict", *arguments, *ALONE])
    command.build_apart()
    return command


def _set(options: Sequence[Option], wanted: str) -> bool:
    """Whether an option, or a part of it, is given."""
    return any(True for option in options for _ in option.values(wanted))
