"""What a network found in each scan, kept so that an interrupted choice goes on and new scans cost only their own."""

import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from riskft.errors import InputError
from riskft.files import atomic_path, fingerprint, without_addresses
from riskft.label_next.look import Viewer
from riskft.source.checkpoint import state_digest
from riskft.source.network import options_as_text

VERSION = 1  #: Raise it when a look gives other numbers.


class Glance(NamedTuple):
    """What is kept of a ``Look``."""

    risk: float
    dice: float
    features: npt.NDArray[np.float64]


@dataclass(frozen=True)
class LookStore:
    """What was found in scans, by a scan's fingerprint, in one small file each."""

    folder: Path

    @classmethod
    def of(cls, cache: Path, viewer: Viewer) -> "LookStore":
        """Returns the store of a network in a cache of prepared cases."""
        parts = {
            "version": VERSION,
            "weights": state_digest(viewer.network.state_dict()),
            "network": without_addresses(repr(viewer.network)),
            "classes": viewer.names,
            "inference": options_as_text(viewer.inferer),
            "precision": viewer.trainer.precision,
            "estimate": [viewer.estimates.key, viewer.estimates.estimator.to_json()] if viewer.estimates else None,
        }
        return cls(cache / "looks" / fingerprint(parts))

    def read(self, key: str) -> Glance | None:
        """Returns what is kept of a scan, or None if nothing is, or it is damaged."""
        try:
            with np.load(self._path(key), allow_pickle=False) as content:
                return Glance(float(content["risk"]), float(content["dice"]), content["features"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def write(self, key: str, glance: Glance) -> None:
        """Keeps what was found in a scan, unless the folder is read-only."""
        with suppress(InputError), atomic_path(self._path(key)) as temporary:
            np.savez(temporary, risk=glance.risk, dice=glance.dice, features=glance.features)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.npz"
