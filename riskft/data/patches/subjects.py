"""TorchIO subjects with the maps of phase 1, and with errors that name a damaged file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torchio as tio

from riskft.data.io.damage import files_named
from riskft.data.io.volumes import read_channels
from riskft.data.patches.augment import EEP, WEIGHT
from riskft.data.prepare.cache import PreparedCase
from riskft.errors import InputError


@dataclass(frozen=True)
class TrainingMaps:
    """Maps that phase 1 made for the training volumes: files on the prepared grid, by subject."""

    weights: Mapping[str, Path] | None = None  #: Weight volumes, or None to train without.
    #: EEP, see ``riskft.data.io.volumes.write_channels``, or None to train without.
    eeps: Mapping[str, Path] | None = None

    def subjects(self, cases: Sequence[PreparedCase]) -> list[tio.Subject]:
        """Returns the cases as lazily loaded subjects with their maps; raises InputError if a case has none."""
        for files, name in ((self.weights, "risk map"), (self.eeps, "EEP")):
            if files is not None and (missing := [case.subject for case in cases if case.subject not in files]):
                raise InputError(f"These training subjects have no {name}:", missing)
        return [case.to_subject(**self._images(case.subject)) for case in cases]

    def _images(self, subject: str) -> dict[str, tio.Image]:
        images = {}
        if self.weights is not None:
            images[WEIGHT] = tio.ScalarImage(self.weights[subject])
        if self.eeps is not None:
            images[EEP] = tio.ScalarImage(self.eeps[subject], reader=read_channels)
        return images


@runtime_checkable
class MapMaker(Protocol):
    """A callback that makes maps in its ``setup``, which Lightning runs before it asks for the training loader."""

    training_maps: TrainingMaps


def maps_made_for(trainer: Any) -> TrainingMaps:
    """Returns the maps made by a callback of the trainer; empty without such a callback or a trainer."""
    callbacks = [] if trainer is None else trainer.callbacks
    return next((each.training_maps for each in callbacks if isinstance(each, MapMaker)), TrainingMaps())


class NamedSubjects(tio.SubjectsDataset):  # type: ignore[misc]
    """A TorchIO dataset whose errors name the subject and the unreadable file."""

    def __getitem__(self, index: int) -> tio.Subject:
        """Loads and transforms a subject."""
        subject = self.dry_iter()[int(index)]
        with files_named(subject["name"], [Path(image.path) for image in subject.get_images(intensity_only=False)]):
            return super().__getitem__(index)
