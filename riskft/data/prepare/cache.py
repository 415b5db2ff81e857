"""Preprocessed cases on disk, found by a fingerprint of everything that they depend on.

Our own, because MONAI's PersistentDataset identifies cases by their paths and does not notice changed files. It also
keeps pickles, which viewers of medical images do not open.
"""

import json
import logging
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torchio as tio

from riskft.data.io.damage import is_whole
from riskft.data.io.formats import parts
from riskft.data.io.memory import give_back
from riskft.data.io.volumes import write_nifti
from riskft.data.labels import IGNORE_INDEX, LabelMap
from riskft.data.prepare.preprocess import Preprocessing, preprocess
from riskft.data.records import Case
from riskft.errors import InputError, NoSpaceError
from riskft.files import file_digest, fingerprint, write_json
from riskft.progress import track
from riskft.run.places import why_not_writable

log = logging.getLogger(__name__)
CACHE_VERSION = 2


@dataclass(frozen=True)
class PreparedCase:
    """A preprocessed case on disk."""

    case: Case
    key: str  #: Fingerprint of its files' content, the label map and the preprocessing.
    folder: Path  #: Holds ``image.nii`` (X, Y, Z, C) float32, ``label.nii`` and ``mask.nii`` uint8, ``meta.json``.
    foreground_fraction: float  #: Fraction of the voxels, without ignored ones, in a foreground class; 0 without label.

    @property
    def subject(self) -> str:
        """The subject's identifier."""
        return self.case.subject

    @property
    def labelled(self) -> bool:
        """Whether there is a label."""
        return self.case.label is not None

    @property
    def files(self) -> list[Path]:
        """The volumes on disk."""
        return [self.folder / f"{name}.nii" for name in ("image", "mask", *(["label"] if self.labelled else []))]

    def to_subject(self, **maps: tio.Image) -> tio.Subject:
        """Returns a lazily loaded TorchIO subject, with further images on the prepared grid."""
        images = {"image": tio.ScalarImage(self.folder / "image.nii")}
        if self.labelled:
            images["label"] = tio.LabelMap(self.folder / "label.nii")
        fraction = torch.tensor(self.foreground_fraction, dtype=torch.float32)
        return tio.Subject(**images, **maps, name=self.subject, foreground_fraction=fraction)


class PreparedCache:
    """Preprocesses each case once.

    Args:
        root: Cache folder; runs and processes may share it.
        labels: The label map.
        options: The preprocessing.
    """

    def __init__(self, root: Path, labels: LabelMap, options: Preprocessing) -> None:
        self.root = root
        self.labels = labels
        self.options = options
        self._digests = _Digests(root / "digests.json")

    def prepare(self, cases: Sequence[Case], workers: int = 0) -> list[PreparedCase]:
        """Preprocesses the cases that are not in the cache yet, in ``workers`` threads; returns all in their order.

        Raises:
            InputError: Naming every case that cannot be preprocessed.
        """
        keys = self.keys(cases)
        missing = [(case, key) for case, key in zip(cases, keys, strict=True) if not self._is_whole(key)]
        if missing and (reason := why_not_writable(self.root)) is not None:
            raise InputError(
                f"{self.root}: {len(missing)} of {len(cases)} cases are not in the cache, which is not writable: "
                f"{reason}. Choose another folder (--data.cache_dir)."
            )
        problems: list[str] = []
        full: list[NoSpaceError] = []

        def build(item: tuple[Case, str]) -> None:
            try:
                if not full:
                    self._build(*item)
                    give_back()  # the next case needs blocks of other sizes
            except NoSpaceError as error:  # the others cannot be written either
                full.append(error)
            except InputError as error:
                problems.append(str(error))

        with _ending_soon(ThreadPoolExecutor(max(1, workers))) as pool:
            for _ in track(pool.map(build, missing), total=len(missing), description="Preprocessing"):
                pass
        if full:
            raise full[0]
        if problems:
            raise InputError(f"{len(problems)} of {len(cases)} cases cannot be preprocessed:", sorted(problems))
        self._digests.save()
        return [self._load(case, key) for case, key in zip(cases, keys, strict=True)]

    def holds(self, case: Case) -> bool:
        """Whether a case is in the cache, with its label if it has one."""
        try:
            (key,) = self.keys([case])
        except InputError:  # a file that cannot be read
            return False
        return self._meta(key).is_file()

    def keys(self, cases: Sequence[Case]) -> list[str]:
        """Returns each case's fingerprint; raises InputError naming every case with a file that cannot be read."""
        labels = asdict(self.labels)
        del labels["regions"]  # these affect only the scores
        common = {
            "version": CACHE_VERSION,
            "preprocessing": self.options.describe(),
            # a list keeps the order of the classes, which is their index
            "labels": {**labels, "classes": list(self.labels.classes.items())},
        }
        problems: list[str] = []

        def read(case: Case) -> list[str]:
            try:
                return [self._digests.of(path) for path in case.files]
            except InputError as error:
                problems.append(str(error))
                return []

        with _ending_soon(ThreadPoolExecutor()) as pool:
            digests = list(pool.map(read, cases))
        if problems:
            raise InputError(f"{len(problems)} of {len(cases)} cases have files that cannot be read:", sorted(problems))
        self._digests.save()
        return [
            fingerprint({**common, **_content(case), "files": files})
            for case, files in zip(cases, digests, strict=True)
        ]

    def _meta(self, key: str) -> Path:
        return self.root / "cases" / key / "meta.json"

    def _is_whole(self, key: str) -> bool:
        """Whether a case is in the cache with complete files; removes a damaged one."""
        folder = self._meta(key).parent
        if not folder.exists():
            return False
        try:
            counts = json.loads(self._meta(key).read_text())["voxels_per_class"]
        except (OSError, ValueError, KeyError):
            counts = None
        names = ["image.nii", "mask.nii", *(["label.nii"] if counts else [])]
        if counts is not None and all(is_whole(folder / name) for name in names):
            return True
        log.warning("%s: damaged; the case is preprocessed again.", folder)
        aside = folder.with_name(f".tmp-{uuid.uuid4().hex[:8]}-{key}")
        with suppress(OSError):  # another process has done it
            os.rename(folder, aside)
        shutil.rmtree(aside, ignore_errors=True)
        return False

    def _build(self, case: Case, key: str) -> None:
        volumes = preprocess(case, self.labels, self.options)
        final = self._meta(key).parent
        folder = final.with_name(f".tmp-{uuid.uuid4().hex[:8]}-{key}")
        folder.mkdir(parents=True)
        try:
            write_nifti(folder / "image.nii", volumes.image.movedim(0, -1).numpy(), volumes.affine)
            write_nifti(folder / "mask.nii", volumes.mask[0].numpy().view(np.uint8), volumes.affine)
            counts: list[int] = []
            if volumes.label is not None:
                write_nifti(folder / "label.nii", volumes.label[0].numpy(), volumes.affine)
                histogram = np.bincount(volumes.label.numpy().ravel(order="K"), minlength=IGNORE_INDEX)
                counts = histogram[: len(self.labels.names)].tolist()
            write_json(folder / "meta.json", {"subject": case.subject, "voxels_per_class": counts})
            try:
                os.rename(folder, final)
            except OSError:
                if not self._meta(key).is_file():  # else another process was faster, with the same content
                    raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _load(self, case: Case, key: str) -> PreparedCase:
        counts = json.loads(self._meta(key).read_text())["voxels_per_class"]
        fraction = sum(counts[1:]) / max(1, sum(counts))
        return PreparedCase(case=case, key=key, folder=self._meta(key).parent, foreground_fraction=fraction)


@contextmanager
def _ending_soon(pool: ThreadPoolExecutor) -> Iterator[ThreadPoolExecutor]:
    """Lets an interruption wait for running tasks, but not for queued ones."""
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _content(case: Case) -> dict[str, object]:
    """Returns what the fingerprint covers of a case besides its files' content."""
    content: dict[str, object] = {"modalities": list(case.images), "labelled": case.label is not None}
    if case.channels:  # otherwise keep the fingerprint of cases without channels
        files = {path: number for number, path in enumerate(case.files)}
        content["channels"] = [[files[path], case.channels.get(name)] for name, path in case.images.items()]
    return content


class _Digests:
    """Digests of files' content, remembered by path, size and time, so that only new files are read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, str] = {}
        self._new = False
        with suppress(OSError, ValueError, TypeError):  # if the file is missing or damaged, the scans are read
            known = json.loads(path.read_text(encoding="utf-8"))
            self._known = {key: known[key] for key in known if isinstance(known[key], str)}

    def of(self, path: Path) -> str:
        """Returns the digest of an image, including all files of, for example, an Analyze pair."""
        return "+".join(self._single(part) for part in [part for part in parts(path) if part.is_file()] or [path])

    def _single(self, path: Path) -> str:
        try:
            status = path.stat()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
        key = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}"
        if key not in self._known:
            try:
                self._known[key] = file_digest(path)
            except OSError as error:
                raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
            self._new = True
        return self._known[key]

    def save(self) -> None:
        """Writes the file if there is something new; a read-only cache is left as it is."""
        if self._new:
            try:
                write_json(self.path, self._known)
            except InputError as error:
                log.info("The scans will be read again at the next start: %s", error)
            self._new = False
