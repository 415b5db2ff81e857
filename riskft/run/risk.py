"""The files of phase 1: the ``risk`` folder of a run, and its maps in the risk store."""

import os
from pathlib import Path

from riskft.files import read_mapping, safe_name


def default_store(cache: Path) -> Path:
    """Returns the root of the risk store shared by all runs that use a cache of prepared cases."""
    return cache / "risk"


class StoreFiles:
    """The files of one phase 1 in the risk store.

    There are two levels, so that runs with other options of the map reuse the forward passes::

        <root>/<source, data, preprocessing, inference>/manifest.json
            knowledge.json  (if the source was compared with its inverted self)
            <subject>/joint.json  hardness.nii  expected_class.nii
                probabilities.npy  (until the hardness is computed)
                eep.npz  (training cases of runs that distil)
            <options of the map>/manifest.json  summary.json  <subject>_weight.nii

    Args:
        maps: The folder of the weights, which is the second level.
    """

    def __init__(self, maps: Path) -> None:
        self.weights_folder, self.folder, self.root = maps, maps.parent, maps.parent.parent
        self.inputs_manifest, self.options_manifest = self.folder / "manifest.json", maps / "manifest.json"
        self.summary_path = maps / "summary.json"
        self.knowledge_path = self.folder / "knowledge.json"

    def joint_path(self, subject: str) -> Path:
        """A subject's part of the joint of target class and source state."""
        return self._subject(subject) / "joint.json"

    def probabilities_path(self, subject: str) -> Path:
        """The source probabilities, (X, |Z|, Y, Z) float32, kept until the hardness is computed."""
        return self._subject(subject) / "probabilities.npy"

    def hardness_path(self, subject: str) -> Path:
        """Hardness in nats on the prepared grid, float32."""
        return self._subject(subject) / "hardness.nii"

    def expected_class_path(self, subject: str) -> Path:
        """The source's expected target class (argmax of the EEP) on the prepared grid, uint8."""
        return self._subject(subject) / "expected_class.nii"

    def eep_path(self, subject: str) -> Path:
        """The EEP on the prepared grid, (Y, X, Y, Z) float16; see ``riskft.data.io.volumes.read_channels``."""
        return self._subject(subject) / "eep.npz"

    def weight_path(self, subject: str) -> Path:
        """Weights on the prepared grid, float32."""
        return self.weights_folder / f"{safe_name(subject)}_weight.nii"

    def _subject(self, subject: str) -> Path:
        return self.folder / safe_name(subject)


class RunRisk:
    """The results of phase 1 in a run folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest = path / "manifest.json"  #: What the hardness depends on, as in the risk store.
        self.summary = path / "summary.json"  #: The findings of phase 1, and where the maps are.
        self.classes = path / "classes.csv"  #: The table of hardness and weight by class.

    def figure(self, name: str) -> Path:
        """A figure of phase 1."""
        return self.path / f"{name}.png"

    def places(self, maps: Path) -> dict[str, str]:
        """Returns where the maps are, for the summary: absolute, and relative to the run's ``risk`` folder."""
        maps = maps.resolve()
        return {"maps": str(maps), "maps_from_here": os.path.relpath(maps, self.path.resolve())}

    def store(self) -> StoreFiles | None:
        """Returns the files of the run's phase 1 in the risk store, or None if the summary does not say where.

        The relative path counts first: the store may have moved together with the run. If only one moved, the absolute
        path may still hold.
        """
        summary = read_mapping(self.summary) if self.summary.is_file() else {}
        beside = self.path.resolve() / str(summary.get("maps_from_here", "nowhere"))
        if beside.is_dir():
            return StoreFiles(beside.resolve())
        return StoreFiles(Path(summary["maps"])) if summary.get("maps") else None
