"""The results of a run's phase 1, to apply to other cases."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from riskft.data.datamodule import RiskDataModule
from riskft.errors import InputError
from riskft.files import read_mapping
from riskft.risk.summary import RiskSummary
from riskft.run.folder import RunFolder
from riskft.source.network import SourceNetwork
from riskft.training.module import RiskModule
from riskft.training.risk_maps import phase_inputs

log = logging.getLogger(__name__)

#: What P(y|z) depends on, except the mask setting, which is read from the run.
CHECKED = ("source", "source architecture", "training data and preprocessing", "classes", "inference")


@dataclass(frozen=True)
class FoundRisk:
    """The results of phase 1 and its source network."""

    source: SourceNetwork  #: The source network on the CPU, with inversion if phase 1 used it.
    joint: Tensor  #: (Y, Z) float64, unnormalised.
    use_mask: bool  #: Whether voxels outside the body are ignored.
    summary: Mapping[str, Any]  #: The run folder's ``risk/summary.json``.
    manifest: Mapping[str, Any]  #: The run folder's ``risk/manifest.json``.

    def stale(self, module: RiskModule, data: RiskDataModule, checked: tuple[str, ...] = CHECKED) -> list[str]:
        """Returns one line per ``checked`` input of phase 1 that has changed since, given data with prepared splits."""
        now = json.loads(json.dumps(phase_inputs(module, data, self.source, self.use_mask)))
        return [
            f"P(y|z) in risk/summary.json was made with another {name} than config.yaml gives now"
            for name in checked
            if now[name] != self.manifest.get(name)
        ]


def find_risk(run: RunFolder, module: RiskModule) -> FoundRisk:
    """Reads the results of phase 1 from a run folder, and loads the source network.

    Raises InputError if the run had no phase 1, or the source network can no longer be loaded.
    """
    summary, manifest = (_json(path) for path in (run.risk.summary, run.risk.manifest))
    source = module.load_source()
    if manifest.get("inverted") and not source.inverted:  # phase 1 found that inversion makes it more informative
        source = source.with_inversion()
    joint = RiskSummary.from_json(summary).joint
    return FoundRisk(source, joint, bool(manifest.get("mask")), summary, manifest)


def usable_risk(run: RunFolder, module: RiskModule, data: RiskDataModule, without: str) -> FoundRisk | None:
    """Returns the results of a run's phase 1 for cases outside it.

    Returns None, after a warning that begins with ``without``, if they cannot be used.
    """
    try:
        found = find_risk(run, module)
    except InputError as error:
        log.warning("%s. %s", without, error)
        return None
    if stale := found.stale(module, data, ("source", "source architecture", "classes", "inference")):
        log.warning("%s: %s.", without, "; ".join(stale))
        return None
    return found


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"There is no {path}: this run had no phase 1.")
    return read_mapping(path)
