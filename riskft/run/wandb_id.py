"""The W&B id of a run, which stays the same when the run is resumed."""

import re
import uuid

from riskft.files import read_text, write_text
from riskft.run.folder import RunFolder, recorded_folder


def run_id(run: RunFolder, renew: bool) -> str:
    """Returns the W&B id kept in the run folder, or one for a new run (``renew``).

    A moved folder keeps its id. A copy gets a new one, so that it does not write into the original's W&B run. With
    ``renew`` the old one stays in the folder until ``keep_run_id``, because the command may still be refused.
    """
    if renew and run.wandb_id.is_file():
        return _new_id(run)
    if not run.wandb_id.is_file() or _is_copy(run):
        write_text(run.wandb_id, _new_id(run))
    return read_text(run.wandb_id).strip()


def keep_run_id(run: RunFolder, name: str) -> None:
    """Writes the W&B id of a new run into its folder, replacing that of the previous run."""
    if not run.wandb_id.is_file() or run_id(run, renew=False) != name:
        write_text(run.wandb_id, name)


def _new_id(run: RunFolder) -> str:
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", "-".join(run.path.parts[-3:]))[-40:].strip("-")
    return f"{readable}-{uuid.uuid4().hex[:8]}"


def _is_copy(run: RunFolder) -> bool:
    """Whether the run that the folder's config was written for still exists elsewhere with the same W&B id."""
    recorded = recorded_folder(run.read_config())
    if recorded is None:
        return False
    original = RunFolder(recorded)
    if not original.wandb_id.is_file() or original.path.samefile(run.path):
        return False
    return original.wandb_id.read_bytes() == run.wandb_id.read_bytes()
