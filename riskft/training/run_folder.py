"""The run folder of a trainer."""

from pathlib import Path

from lightning.pytorch import Trainer

from riskft.run.folder import RunFolder


def run_folder(trainer: Trainer) -> RunFolder:
    """Returns the folder of the run that the trainer works on."""
    return RunFolder(Path(trainer.default_root_dir))
