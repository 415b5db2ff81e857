"""The folder layout of the Medical Segmentation Decathlon."""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from riskft.data.io.formats import ending, stem
from riskft.data.labels import LabelMap
from riskft.data.readers.base import Reader
from riskft.data.readers.dataset_json import DatasetJson, read_dataset_json
from riskft.data.readers.naming import People, is_absolute, is_subject, listed_name, listed_path
from riskft.data.records import Case
from riskft.errors import InputError, refuse

log = logging.getLogger(__name__)


class MsdReader(Reader):
    r"""Medical Segmentation Decathlon: ``dataset.json`` with ``imagesTr``, ``labelsTr`` and ``imagesTs`` beside it.

    The cases are those that ``dataset.json`` lists under "training" and "test", without hidden files (``._x.nii.gz``).
    Paths may be those of any system; absolute paths of another machine mean the same files below the root. Modalities
    are named as in the file (``FLAIR``, ``t1gd``), in upper or lower case, or by their numbers. Several modalities are
    the channels of one 4-D file (``Case.channels``). A file listed as ``.nii.gz`` may exist as ``.nii`` and vice versa.

    Training cases have no split: use ``riskft.FractionSplit`` or ``riskft.ListSplit``. Test images are for prediction,
    or for test if they are listed with a label. If their folder does not exist, as in a copy of the training part,
    they are skipped.

    Args:
        root: The folder that holds ``dataset.json``.
        test: Whether to list the test images.
        person: A regular expression that finds the person in a subject's name, if a person has several scans:
            ``^(patient\d+)`` for ``patient07_visit2``. The person is its first group, or the whole match. Splits keep
            a person's scans together. Without it, names as in BraTS (``BraTS-GLI-00005-100``) and BIDS
            (``sub-01_ses-2``) are understood, and any other subject is a person.
    """

    def __init__(self, root: str | Path, test: bool = True, person: str | None = None) -> None:
        self.root = Path(root)
        self.test = test
        self.people = People(person)

    def cases(self, modalities: Sequence[str]) -> list[Case]:
        """Lists the cases, sorted by subject; see ``Reader.cases``.

        Raises:
            InputError: Also if ``dataset.json`` is not usable, naming all invalid entries.
        """
        description = read_dataset_json(self.root)
        indices = description.indices(modalities)
        several = len(description.channels) > 1
        problems: list[str] = []
        pairs = _listed(description, "training", problems)
        held = _listed(description, "test", problems) if self.test else []
        entries = [image for image, _ in [*pairs, *held]]
        subjects = {entry: stem(Path(listed_name(entry))) for entry in entries}
        problems += [f"'{entry}' names no subject" for entry, name in subjects.items() if not is_subject(name)]
        counts = Counter(subjects[entry] for entry in entries)
        problems += [f"subject '{name}' is listed {count} times" for name, count in counts.items() if count > 1]
        refuse(f"{description.path} is not usable:", problems)
        if not entries:
            raise InputError(f"{description.path} lists no case under 'training'{' or test' if self.test else ''}.")

        files = {entry: listed_path(self.root, entry) for entry in entries}
        _require_own_layout(description, [(image, files[image]) for image, _ in pairs])

        def case(entry: str, label: str | None, split: str | None) -> Case:
            return Case(
                subjects[entry],
                dict.fromkeys(modalities, files[entry]),
                listed_path(self.root, label) if label else None,
                split,
                indices if several else {},
            )

        cases = [case(image, label, None) for image, label in pairs]
        there = [(image, label) for image, label in held if files[image].parent.is_dir()]
        if len(there) < len(held):
            log.warning("%s: skipped %d test images, whose folder does not exist", self.root, len(held) - len(there))
        cases += [case(image, label, "test" if label else "predict") for image, label in there]
        return sorted(self.people.find(cases), key=lambda found: found.subject)

    def label_map(self) -> LabelMap:
        """Returns the classes of ``dataset.json``; see ``Reader.label_map``."""
        return read_dataset_json(self.root).label_map()


def _require_own_layout(description: DatasetJson, images: Sequence[tuple[str, Path]]) -> None:
    """Raises InputError if the paths are those of another machine, or the files are named as in nnU-Net."""
    absolute = [(entry, path) for entry, path in images if is_absolute(entry)]
    if absolute and not any(path.exists() for _, path in absolute):
        raise InputError(
            f"{description.path} lists absolute paths, such as {absolute[0][0]}, none of which exists, here or below "
            f"{description.path.parent}. Make the paths relative to dataset.json, or set the reader's root to the "
            "folder that holds the images."
        )
    for _, path in images:
        numbered = path.with_name(f"{stem(path)}_0000{ending(path)}")
        if not path.exists() and numbered.exists():
            raise InputError(
                f"{path} does not exist, but {numbered.name} does, which is how nnU-Net names files. Read this data "
                "set with riskft.NnunetReader."
            )


def _listed(description: DatasetJson, name: str, problems: list[str]) -> list[tuple[str, str | None]]:
    """Returns the image of each "training" or "test" entry, and its label if any; adds invalid ones to the problems."""
    listed = description.content.get(name, None if name == "training" else [])
    if name == "training" and not isinstance(listed, list):
        found = list(description.content) if listed is None else type(listed).__name__
        raise InputError(
            f'{description.path} has no list "training" of {{"image": ..., "label": ...}} (found: {found}): set the '
            "root to a Decathlon task, or use riskft.NnunetReader for raw data of nnU-Net."
        )
    if not isinstance(listed, list):
        problems.append(f"'{name}' is a {type(listed).__name__}, expected a list of images")
        return []
    wanted, labels = ("an image and a label", str) if name == "training" else ("an image", str | None)
    pairs = []
    for number, entry in enumerate(listed):
        # a few tasks list test images like training entries
        image, label = (entry.get("image"), entry.get("label")) if isinstance(entry, dict) else (entry, None)
        if not (isinstance(image, str) and isinstance(label, labels)):
            problems.append(f"{name} entry {number} is {entry!r}, expected {wanted}")
        elif not listed_name(image).startswith("."):
            pairs.append((image, label or None))
    return pairs
