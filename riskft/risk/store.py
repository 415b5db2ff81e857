"""Keeps risk maps under a fingerprint of everything that they depend on; files are written atomically."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from riskft.data.io.damage import is_whole
from riskft.data.io.memory import planes_at_once
from riskft.data.io.volumes import Affine, read_volume, write_channels, write_nifti
from riskft.errors import InputError
from riskft.files import atomic_path, fingerprint, json_or_none, write_json
from riskft.run.places import why_not_writable
from riskft.run.risk import StoreFiles

STORE_VERSION = 5


class RiskStore(StoreFiles):
    """Writes and reads the files of one phase 1; all processes must see the same folder.

    Args:
        root: Folder shared by the runs of a study.
        inputs: Everything that the hardness depends on, by name: JSON-serialisable.
        options: Everything else that the weights depend on.
    """

    def __init__(self, root: Path, inputs: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        self.inputs = {"version": STORE_VERSION, **inputs}
        self.options = dict(options)
        super().__init__(root / fingerprint(self.inputs) / fingerprint(self.options))

    @classmethod
    def of(cls, files: StoreFiles) -> "RiskStore":
        """Returns the store of a run's maps, with the recorded inputs and options."""
        inputs, options = (json_or_none(manifest) or {} for manifest in (files.inputs_manifest, files.options_manifest))
        return cls(files.root, inputs, options)

    def changes(self, previous: Path | None = None) -> list[str]:
        """Returns the inputs that differ from an earlier phase 1, by default the latest; empty if this one exists."""
        if self.inputs_manifest.is_file():
            return []
        manifests = (
            [previous]
            if previous and previous.is_file()
            else sorted(self.root.glob(f"*/{self.inputs_manifest.name}"), key=lambda path: path.stat().st_mtime)
        )
        if not manifests:
            return []
        before = json_or_none(manifests[-1]) or {}
        return sorted(key for key in {*before, *self.inputs} if before.get(key) != _plain(self.inputs.get(key)))

    def other_options(self) -> bool:
        """Whether there are maps for these inputs, but only with other options."""
        manifests = list(self.folder.glob(f"*/{self.options_manifest.name}"))
        return bool(manifests) and not self.options_manifest.is_file()

    def refuse_unwritable(self) -> None:
        """Raises InputError if maps cannot be written. Call it before the passes, which may take hours."""
        if (reason := why_not_writable(self.folder)) is not None:
            raise InputError(
                f"{self.root}: does not hold the risk maps that this run needs, and is not writable: {reason}. "
                "Choose another --data.cache_dir, or another store of riskft.RiskMapCallback."
            )

    def write_manifests(self) -> None:
        """Records the inputs and options beside the maps."""
        write_json(self.inputs_manifest, self.inputs)
        write_json(self.options_manifest, self.options)

    def has_forward(self, subject: str) -> bool:
        """Whether the subject's forward pass is done; damaged files do not count."""
        kept = self.has_hardness(subject) or _is_whole_npy(self.probabilities_path(subject))
        return kept and json_or_none(self.joint_path(subject)) is not None

    def has_hardness(self, subject: str) -> bool:
        """Whether the subject's hardness exists; damaged files do not count."""
        return is_whole(self.hardness_path(subject)) and is_whole(self.expected_class_path(subject))

    def write_probabilities(self, subject: str, parts: Iterable[Tensor], depth: int) -> None:
        """Keeps a subject's probabilities until P(y|z) is known.

        Args:
            subject: The subject.
            parts: (depth of the part, Z, Y, Z) each, one after another along x.
            depth: Planes along x of all parts together.
        """
        with atomic_path(self.probabilities_path(subject)) as temporary, temporary.open("wb") as stream:
            for part in parts:
                planes = part.cpu().float().contiguous().numpy()
                if not stream.tell():
                    header = {"descr": planes.dtype.str, "fortran_order": False, "shape": (depth, *planes.shape[1:])}
                    np.lib.format.write_array_header_1_0(stream, header)
                planes.tofile(stream)

    def write_joint(self, subject: str, joint: Tensor) -> None:
        """Keeps a subject's part of the joint, which marks its forward pass as done."""
        write_json(self.joint_path(subject), joint.tolist())
        self._drop_spent(subject)

    def read_joint(self, subject: str) -> Tensor:
        """Returns a subject's unnormalised joint, (Y, Z) float64; raises InputError if processes share no folder."""
        path = self.joint_path(subject)
        if not path.is_file():
            raise InputError(f"{path}: missing after phase 1. All processes must see the same risk store.")
        return torch.tensor(json.loads(path.read_text()), dtype=torch.float64)

    def read_probabilities(self, subject: str) -> Iterator[Tensor]:
        """Returns the parts of the stored source probabilities, (depth, Z, Y, Z) float32 each."""
        return _planes(self.probabilities_path(subject).open("rb"))

    def write_hardness(self, subject: str, hardness: Tensor, expected_class: Tensor, affine: Affine) -> None:
        """Writes a subject's hardness, float32, and expected class, uint8, (X, Y, Z) each; drops its probabilities."""
        write_nifti(self.expected_class_path(subject), expected_class.numpy(), affine)
        write_nifti(self.hardness_path(subject), hardness.numpy(), affine)
        self._drop_spent(subject)

    def has_eep(self, subject: str) -> bool:
        """Whether the subject's EEP exists; a damaged file does not count."""
        return is_whole(self.eep_path(subject))

    def write_eep(self, subject: str, eep: Tensor, affine: Affine) -> None:
        """Keeps a subject's EEP, (Y, X, Y, Z)."""
        write_channels(self.eep_path(subject), eep, affine)

    def write_knowledge(self, value: float) -> None:
        """Keeps the source's knowledge of the labels, see ``source_knowledge``."""
        write_json(self.knowledge_path, value)

    def read_knowledge(self) -> float | None:
        """Returns what ``write_knowledge`` kept, or None."""
        value = json_or_none(self.knowledge_path)
        return None if value is None else float(value)

    def drop_probabilities(self, subject: str) -> None:
        """Removes the stored source probabilities, if there are any."""
        path = self.probabilities_path(subject)
        if path.exists():
            with suppress(OSError):  # a read-only store keeps them
                path.unlink()

    def _drop_spent(self, subject: str) -> None:
        """Removes probabilities that no run needs any more."""
        if self.has_hardness(subject):
            self.drop_probabilities(subject)

    def read_hardness(self, subject: str) -> tuple[Tensor, Affine]:
        """Returns a subject's hardness, (X, Y, Z) float32 in nats, and its affine."""
        array, affine = read_volume(self.hardness_path(subject))
        return torch.from_numpy(np.asarray(array, dtype=np.float32)), affine

    def write_weights(self, subject: str, weights: Tensor, affine: Affine) -> None:
        """Writes a subject's weights, (X, Y, Z) float32."""
        write_nifti(self.weight_path(subject), weights.numpy(), affine)

    def write_summary(self, summary: Mapping[str, Any], subjects: Sequence[str]) -> None:
        """Marks the maps of the subjects as complete."""
        sizes = {subject: self.weight_path(subject).stat().st_size for subject in subjects}
        write_json(self.summary_path, {**summary, "bytes": sizes})

    def read_summary(self, subjects: Sequence[str]) -> dict[str, Any] | None:
        """Returns the summary if the maps of all subjects are complete and have their recorded size, else None."""
        summary: dict[str, Any] | None = json_or_none(self.summary_path)
        if summary is None:
            return None
        sizes = summary["bytes"]
        for subject in subjects:
            file = self.weight_path(subject)
            if not is_whole(file) or sizes.get(subject) != file.stat().st_size or not self.has_hardness(subject):
                return None
        return summary


def _planes(stream: BinaryIO) -> Iterator[Tensor]:
    """Yields an open .npy file's content, some planes of the first axis at a time, and closes it."""
    with stream:
        np.lib.format.read_magic(stream)
        (depth, *shape), _, dtype = np.lib.format.read_array_header_1_0(stream)
        for start in range(0, depth, step := planes_at_once(shape)):
            planes = min(step, depth - start)
            yield torch.from_numpy(np.fromfile(stream, dtype, planes * math.prod(shape)).reshape(planes, *shape))


def _is_whole_npy(path: Path) -> bool:
    try:
        np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return False
    return True


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))
