"""The folder layout of the Medical Segmentation Decathlon."""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from riskft.data.formats import stem
from riskft.data.labels import LabelMap
from riskft.data.readers.base import Reader
from riskft.data.readers.dataset_json import DatasetJson, read_dataset_json
from riskft.data.readers.naming import either_nifti, is_subject
from riskft.data.readers.persons import People
from riskft.data.records import Case
from riskft.errors import InputError

log = logging.getLogger(__name__)


class MsdReader(Reader):
    r"""Medical Segmentation Decathlon: ``dataset.json`` with ``imagesTr``, ``labelsTr`` and ``imagesTs`` beside it.

    The cases are those that ``dataset.json`` lists under "training" and "test"; hidden files (``._x.nii.gz``) are
    passed over. Modalities are called as there (``FLAIR``, ``t1gd``), in upper or lower case, or by their numbers.
    Where there are several, they lie in one 4-D file, and ``Case.channels`` says where. A file that is listed as
    ``.nii.gz`` may be there as ``.nii``, and the other way round.

    Training cases belong to no split, so that ``riskft.FractionSplit`` or ``riskft.ListSplit`` makes one; test images
    have no label and are for prediction. If the folder of the test images is not there at all, as in a copy of the
    training part, they are left out.

    Args:
        root: The folder that holds ``dataset.json``.
        test: Whether to list the test images.
        person: A regular expression that finds the person in a subject's name, where a person has several scans:
            ``^(patient\d+)`` for ``patient07_visit2``. The person is its first group, or all that it matches. Splits
            keep a person's scans together. Without it, names of BraTS (``BraTS-GLI-00005-100``) and BIDS
            (``sub-01_ses-2``) are understood, and any other subject is a person of its own.
    """

    def __init__(self, root: str | Path, test: bool = True, person: str | None = None) -> None:
        self.root = Path(root)
        self.test = test
        self.people = People(person)

    def cases(self, modalities: Sequence[str]) -> list[Case]:
        """Lists the cases, sorted by subject; see ``Reader.cases``.

        Raises:
            InputError: Also if ``dataset.json`` is not usable, with every entry that is not.
        """
        description = read_dataset_json(self.root)
        indices = description.indices(modalities)
        several = len(description.channels) > 1
        problems: list[str] = []
        pairs = _training(description, problems)
        images = _test(description, problems) if self.test else []
        subjects = {entry: stem(Path(entry)) for entry in [*(pair[0] for pair in pairs), *images]}
        problems += [f"'{entry}' names no subject" for entry, name in subjects.items() if not is_subject(name)]
        counts = Counter(subjects[entry] for entry in [*(pair[0] for pair in pairs), *images])
        problems += [f"subject '{name}' is listed {count} times" for name, count in counts.items() if count > 1]
        if problems:
            raise InputError(f"{description.path} is not usable:", problems)
        if not pairs and not images:
            raise InputError(f"{description.path} lists no case under 'training'{' or test' if self.test else ''}.")

        def case(entry: str, label: str | None) -> Case:
            path = either_nifti(self.root / entry)
            return Case(
                subjects[entry],
                dict.fromkeys(modalities, path),
                either_nifti(self.root / label) if label else None,
                None if label else "predict",
                indices if several else {},
            )

        cases = [case(*pair) for pair in pairs]
        cases += [case(entry, None) for entry in self._with_folder(images)]
        return sorted(self.people.find(cases), key=lambda found: found.subject)

    def label_map(self) -> LabelMap:
        """Returns the classes of ``dataset.json``; see ``Reader.label_map``."""
        return read_dataset_json(self.root).label_map()

    def _with_folder(self, images: Sequence[str]) -> list[str]:
        there = [entry for entry in images if (self.root / entry).parent.is_dir()]
        if len(there) < len(images):
            log.warning(
                "%s: %d test images are left out, their folder is not there", self.root, len(images) - len(there)
            )
        return there


def _training(description: DatasetJson, problems: list[str]) -> list[tuple[str, str]]:
    """Returns the image and the label of each training entry, and adds what is wrong to the problems."""
    listed = description.content.get("training")
    if not isinstance(listed, list):
        found = list(description.content) if listed is None else type(listed).__name__
        raise InputError(
            f'{description.path} has no list "training" of {{"image": ..., "label": ...}} (found: {found}): set the '
            "root to a Decathlon task, or use riskft.NnunetReader for nnU-Net's raw data."
        )
    pairs = []
    for number, entry in enumerate(listed):
        image, label = (entry.get("image"), entry.get("label")) if isinstance(entry, dict) else (None, None)
        if not (isinstance(image, str) and isinstance(label, str)):
            problems.append(f"training entry {number} is {entry!r}, expected an image and a label")
        elif not PurePosixPath(image).name.startswith("."):
            pairs.append((image, label))
    return pairs


def _test(description: DatasetJson, problems: list[str]) -> list[str]:
    listed = description.content.get("test", [])
    if not isinstance(listed, list):
        problems.append(f"'test' is a {type(listed).__name__}, expected a list of images")
        return []
    # a few tasks write them like the training entries
    named = [entry.get("image") if isinstance(entry, dict) else entry for entry in listed]
    problems += [
        f"test entry {n} is {entry!r}, expected an image" for n, entry in enumerate(named) if not isinstance(entry, str)
    ]
    return [entry for entry in named if isinstance(entry, str) and not PurePosixPath(entry).name.startswith(".")]
