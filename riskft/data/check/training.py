"""Unusable options of the data module, by themselves or with the data that was checked."""

import math
from collections.abc import Iterable, Mapping, Sequence

from riskft.data.check.report import CheckRow
from riskft.data.findings import FaultKind, Finding
from riskft.data.io.grid import times
from riskft.errors import refuse

MAX_VOXELS = 10**9  #: Largest number of voxels of a case after resampling, unless it had more before.


def refuse_unusable(counts: Mapping[str, int], patch_size: Sequence[int], modalities: Sequence[str]) -> None:
    """Raises InputError naming every option that is invalid whatever the data; ``counts`` must be 1 or more."""
    problems = [f"data.{name} is {value}, expected 1 or more" for name, value in counts.items() if value < 1]
    if len(patch_size) != 3 or min(patch_size) < 1:
        problems.append(f"data.patch_size is {patch_size}, expected three positive numbers of voxels")
    if not modalities or len(set(modalities)) < len(modalities):
        problems.append(f"data.modalities is {modalities}, expected at least one modality, each once")
    refuse("The data configuration is not usable:", problems)


def too_few_patches(cases: int, per_volume: int, batch_size: int, world_size: int = 1) -> list[Finding]:
    """Returns a fault if an epoch has fewer patches on a process than a batch; the processes share the cases."""
    patches = math.ceil(cases / world_size) * per_volume
    if not cases or patches >= batch_size:
        return []
    message = (
        f"an epoch has {patches} patches{' per process' if world_size > 1 else ''}, fewer than data.batch_size "
        f"({batch_size}). Raise data.patches_per_volume ({per_volume}) or lower the batch size."
    )
    return [Finding(FaultKind.TOO_FEW_PATCHES, "train", None, message)]


def huge_grids(rows: Iterable[CheckRow], spacing: Sequence[float] | None) -> list[Finding]:
    """Returns one fault per case that resampling to a spacing (mm) would make too large for memory."""
    if spacing is None:
        return []
    found = []
    for row in rows:
        if row.shape is None or row.spacing is None:
            continue
        voxels = math.prod(row.shape) * math.prod(row.spacing) / math.prod(spacing)
        if voxels > max(MAX_VOXELS, math.prod(row.shape)):
            message = (
                f"resampled from {times(row.spacing)} mm to data.preprocessing.spacing ({times(spacing)} mm), "
                f"{times(row.shape)} voxels become {voxels:.1e}, expected at most {MAX_VOXELS:.0e}. Correct the header "
                "if its numbers are not in mm, or choose a larger spacing."
            )
            found.append(Finding(FaultKind.TOO_LARGE, row.subject, None, message))
    return found
