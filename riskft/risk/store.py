"""Where risk maps are kept: under a fingerprint of all that they depend on, each file whole or absent."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import torch
from torch import Tensor

from riskft.data.io.damage import is_whole
from riskft.data.io.volumes import Affine, read_volume, write_channels, write_nifti
from riskft.errors import InputError
from riskft.files import atomic_path, fingerprint, write_json
from riskft.run.places import why_not_writable

STORE_VERSION = 3


class RiskStore:
    """Files of one phase 1.

    Two levels, so that other map options reuse the forward passes::

        <root>/<source, data, preprocessing, inference>/manifest.json
            knowledge.json, where it was compared with another
            <subject>/joint.json  hardness.nii  prediction.nii
                probabilities.npy, until the hardness is made
                expectation.npz, for training cases of runs that distil
            <options of the map>/manifest.json  summary.json  <subject>.nii

    All processes must see the same folder.

    Args:
        root: Folder shared by the runs of a study.
        inputs: What the hardness depends on, by name: JSON-serialisable.
        options: What the weights depend on besides.
    """

    def __init__(self, root: Path, inputs: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        self.inputs = {"version": STORE_VERSION, **inputs}
        self.options = dict(options)
        self.root = root
        self.folder = root / fingerprint(self.inputs)
        self.weights_folder = self.folder / fingerprint(self.options)

    @staticmethod
    def safe_name(subject: str) -> str:
        """Returns the subject as a file name."""
        name = quote(subject, safe=" ()+,=@")
        return name.replace(".", "%2E") if set(name) == {"."} else name

    def changes(self, previous: Path | None = None) -> list[str]:
        """Says which inputs differ from an earlier phase 1; empty if this one exists already or none came before.

        Args:
            previous: Manifest of the phase 1 to compare with; by default the latest in the store.
        """
        if (self.folder / "manifest.json").is_file():
            return []
        manifests = (
            [previous]
            if previous and previous.is_file()
            else sorted(self.root.glob("*/manifest.json"), key=lambda path: path.stat().st_mtime)
        )
        if not manifests:
            return []
        before = _json(manifests[-1]) or {}
        return sorted(key for key in {*before, *self.inputs} if before.get(key) != _plain(self.inputs.get(key)))

    def other_options(self) -> bool:
        """Whether the inputs are known but maps with these options are not made yet, and ones with others are."""
        manifests = list(self.folder.glob("*/manifest.json"))
        return bool(manifests) and not (self.weights_folder / "manifest.json").is_file()

    def refuse_unwritable(self) -> None:
        """Raises InputError if maps cannot be written; to be called before hours of passes that could not be kept."""
        if (reason := why_not_writable(self.folder)) is not None:
            raise InputError(
                f"{self.root}: does not hold the risk maps that this run needs, and cannot be written: {reason}. "
                "Choose another --data.cache_dir, or another store of riskft.RiskMapCallback."
            )

    def write_manifests(self) -> None:
        """Records the inputs and options next to what is made from them."""
        write_json(self.folder / "manifest.json", self.inputs)
        write_json(self.weights_folder / "manifest.json", self.options)

    def hardness_path(self, subject: str) -> Path:
        """Hardness in nats on the prepared grid, float32."""
        return self._subject(subject) / "hardness.nii"

    def prediction_path(self, subject: str) -> Path:
        """The source's expected target class (argmax of the EEP) on the prepared grid, uint8."""
        return self._subject(subject) / "prediction.nii"

    def expectation_path(self, subject: str) -> Path:
        """The EEP on the prepared grid, (Y, X, Y, Z) float16; see ``riskft.data.io.volumes.read_channels``."""
        return self._subject(subject) / "expectation.npz"

    def weight_path(self, subject: str) -> Path:
        """Weights on the prepared grid, float32."""
        return self.weights_folder / f"{self.safe_name(subject)}.nii"

    def _subject(self, subject: str) -> Path:
        return self.folder / self.safe_name(subject)

    def has_forward(self, subject: str) -> bool:
        """Whether the subject's forward pass need not be done (again); a damaged file is none."""
        kept = self.has_hardness(subject) or _is_whole_npy(self._subject(subject) / "probabilities.npy")
        return kept and _json(self._subject(subject) / "joint.json") is not None

    def has_hardness(self, subject: str) -> bool:
        """Whether the subject's hardness is made; a damaged file is none."""
        return is_whole(self.hardness_path(subject)) and is_whole(self.prediction_path(subject))

    def write_forward(self, subject: str, probabilities: Tensor, joint: Tensor) -> None:
        """Keeps a subject's part of the joint, and until P(y|z) is known its probabilities (Z, X, Y, Z)."""
        folder = self._subject(subject)
        with atomic_path(folder / "probabilities.npy") as temporary:
            np.save(temporary, probabilities.cpu().float().numpy())
        write_json(folder / "joint.json", joint.tolist())
        self._drop_spent(subject)

    def read_joint(self, subject: str) -> Tensor:
        """Returns a subject's unnormalised joint, (Y, Z) float64.

        Raises:
            InputError: If it is not there, because processes do not share the folder.
        """
        path = self._subject(subject) / "joint.json"
        if not path.is_file():
            raise InputError(f"{path}: not there after phase 1. All processes must see the same risk store.")
        return torch.tensor(json.loads(path.read_text()), dtype=torch.float64)

    def read_probabilities(self, subject: str) -> Tensor:
        """Returns the kept source probabilities, (Z, X, Y, Z) float32."""
        return torch.from_numpy(np.load(self._subject(subject) / "probabilities.npy"))

    def write_hardness(self, subject: str, hardness: Tensor, prediction: Tensor, affine: Affine) -> None:
        """Writes a subject's hardness and expected class, (X, Y, Z) each, and drops its probabilities."""
        write_nifti(self.prediction_path(subject), prediction.cpu().numpy().astype(np.uint8), affine)
        write_nifti(self.hardness_path(subject), hardness.cpu().float().numpy(), affine)
        self._drop_spent(subject)

    def has_expectation(self, subject: str) -> bool:
        """Whether the subject's EEP is kept; a damaged file is none."""
        return is_whole(self.expectation_path(subject))

    def write_expectation(self, subject: str, expectation: Tensor, affine: Affine) -> None:
        """Keeps a subject's EEP, (Y, X, Y, Z)."""
        write_channels(self.expectation_path(subject), expectation, affine)

    def write_knowledge(self, value: float) -> None:
        """Keeps what the source knows of the labels, as ``RiskPhase.knowledge`` found it."""
        write_json(self.folder / "knowledge.json", value)

    def read_knowledge(self) -> float | None:
        """Returns what ``write_knowledge`` kept, or None."""
        value = _json(self.folder / "knowledge.json")
        return None if value is None else float(value)

    def drop_probabilities(self, subject: str) -> None:
        """Removes the kept source probabilities, if there are any."""
        path = self._subject(subject) / "probabilities.npy"
        if path.exists():
            with suppress(OSError):  # a store that can only be read keeps them
                path.unlink()

    def _drop_spent(self, subject: str) -> None:
        """Removes probabilities that are not needed any more, by this run or by another that shares the store."""
        if self.has_hardness(subject):
            self.drop_probabilities(subject)

    def read_hardness(self, subject: str) -> tuple[Tensor, Affine]:
        """Returns a subject's hardness, (X, Y, Z) float32 in nats, and its affine."""
        array, affine = read_volume(self.hardness_path(subject))
        return torch.from_numpy(np.asarray(array, dtype=np.float32)), affine

    def write_weights(self, subject: str, weights: Tensor, affine: Affine) -> None:
        """Writes a subject's weights, (X, Y, Z)."""
        write_nifti(self.weight_path(subject), weights.cpu().float().numpy(), affine)

    def write_summary(self, summary: Mapping[str, Any], subjects: Sequence[str]) -> None:
        """Declares the maps of the subjects complete."""
        sizes = {subject: self.weight_path(subject).stat().st_size for subject in subjects}
        write_json(self.weights_folder / "summary.json", {**summary, "bytes": sizes})

    def read_summary(self, subjects: Sequence[str]) -> dict[str, Any] | None:
        """Returns the summary if the maps of all subjects are complete and of the size they had, else None."""
        summary: dict[str, Any] | None = _json(self.weights_folder / "summary.json")
        if summary is None:
            return None
        sizes = summary["bytes"]
        for subject in subjects:
            file = self.weight_path(subject)
            if not is_whole(file) or sizes.get(subject) != file.stat().st_size or not self.has_hardness(subject):
                return None
        return summary


def _json(path: Path) -> Any:
    """Returns a JSON file's value, or None where it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _is_whole_npy(path: Path) -> bool:
    try:
        np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return False
    return True


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))
