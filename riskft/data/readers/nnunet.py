"""The folder layout of nnU-Net's raw data."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from riskft.data.io.formats import ENDINGS
from riskft.data.labels import LabelMap
from riskft.data.readers.base import Reader
from riskft.data.readers.dataset_json import DatasetJson, read_dataset_json
from riskft.data.readers.naming import People, is_subject, listed_path
from riskft.data.records import Case
from riskft.errors import InputError, refuse
from riskft.files import read_json

_SPLITS = "splits_final.json"


class NnunetReader(Reader):
    """nnU-Net's raw data: ``dataset.json``, ``imagesTr/<case>_0000.nii.gz``, ``labelsTr/<case>.nii.gz``, ``imagesTs``.

    Modalities are named as in "channel_names", in upper or lower case, or by their numbers; files end in
    "file_ending". If ``dataset.json`` has a "dataset" with the images and label of each training case, these are
    used. The "modality" and "labels" of nnU-Net 1 are understood as well.

    A training case has an image in ``imagesTr`` or a label in ``labelsTr``; a missing file gets its expected path.
    Cases of ``imagesTs`` are for test if there is a folder ``labelsTs``, which must then hold a label for each, and
    for prediction otherwise.

    Training cases have no split unless a fold is given. Then they are for training or validation as in nnU-Net (use
    ``riskft.ReaderSplit``), and cases that are not in the fold are dropped, as in nnU-Net.

    Args:
        root: The folder that holds ``dataset.json``, such as ``nnUNet_raw/Dataset004_Hippocampus``.
        fold: Validation fold of nnU-Net, from 0.
        splits: nnU-Net's ``splits_final.json`` or the folder that holds it (in ``nnUNet_preprocessed``); by default
            the one in ``root``.
        test: Whether to list ``imagesTs``.
        person: A regular expression that finds the person in a case's name, if a person has several; see
            ``MsdReader``.
    """

    def __init__(
        self,
        root: str | Path,
        fold: int | None = None,
        splits: str | Path | None = None,
        test: bool = True,
        person: str | None = None,
    ) -> None:
        self.root = Path(root)
        self.fold = fold
        self.splits = Path(splits) if splits is not None else self.root
        self.test = test
        self.people = People(person)

    def cases(self, modalities: Sequence[str]) -> list[Case]:
        """Lists the cases, sorted by subject; see ``Reader.cases``.

        Raises:
            InputError: Also if ``dataset.json`` or the fold is not usable.
        """
        description = read_dataset_json(self.root)
        indices = description.indices(modalities)
        ending = _file_ending(description)
        if "dataset" in description.content:
            cases = _from_mapping(description, indices)
        else:
            cases = self._from_folders("imagesTr", self.root / "labelsTr", indices, ending)
        if self.fold is not None:
            cases = _in_fold(cases, self.fold, self.splits / _SPLITS if self.splits.is_dir() else self.splits)
        if self.test and (self.root / "imagesTs").is_dir():
            labels = self.root / "labelsTs"
            there = labels if labels.is_dir() else None
            held = self._from_folders("imagesTs", there, indices, ending)
            cases += [replace(case, split="predict" if there is None else "test") for case in held]
        return sorted(self.people.find(cases), key=lambda case: case.subject)

    def label_map(self) -> LabelMap:
        """Returns the classes of ``dataset.json``; see ``Reader.label_map``."""
        return read_dataset_json(self.root).label_map()

    def _from_folders(self, name: str, labels: Path | None, indices: Mapping[str, int], ending: str) -> list[Case]:
        images = self.root / name
        absent = [str(folder) for folder in (images, labels) if folder is not None and not folder.is_dir()]
        refuse(f"{self.root} is not raw data of nnU-Net: these folders do not exist.", absent)
        pattern = re.compile(rf"([^.].*)_\d{{4}}{re.escape(ending)}$")
        names = sorted(path.name for path in images.iterdir())
        subjects = {match[1] for match in map(pattern.match, names) if match}
        if names and not subjects:
            raise InputError(
                f"{images} holds no file such as case_0000{ending} (found first: {names[:3]}): correct "
                "'file_ending' in dataset.json, or use riskft.MsdReader for data whose files have no channel number."
            )
        if labels is not None and name == "imagesTr":
            found = (path.name for path in labels.iterdir())
            subjects |= {file.removesuffix(ending) for file in found if file.endswith(ending) and file[0] != "."}
        if not subjects and name == "imagesTr":
            raise InputError(f"{images} and {labels} hold no case: set the reader's root to a folder with cases.")
        return [
            Case(
                subject,
                {modality: images / f"{subject}_{index:04d}{ending}" for modality, index in indices.items()},
                labels / f"{subject}{ending}" if labels is not None else None,
            )
            for subject in sorted(subjects)
        ]


def _file_ending(description: DatasetJson) -> str:
    ending = description.content.get("file_ending")
    if ending is None and "channel_names" not in description.content:
        return ".nii.gz"  # the only format of nnU-Net 1
    if ending not in ENDINGS:
        raise InputError(
            f"{description.path}: 'file_ending' is {ending!r}, expected one of {', '.join(ENDINGS)}. Correct it, or "
            "convert the files."
        )
    return str(ending)


def _from_mapping(description: DatasetJson, indices: Mapping[str, int]) -> list[Case]:
    """Returns the cases in the "dataset" of ``dataset.json``, whose paths are relative to the file."""
    listed = description.content["dataset"]
    if not isinstance(listed, dict) or not listed:
        raise InputError(f'{description.path}: "dataset" is not an object with cases: correct it or remove it.')
    count = len(description.channels)
    problems = []
    cases = []
    for subject, entry in listed.items():
        images, label = (entry.get("images"), entry.get("label")) if isinstance(entry, dict) else (None, None)
        if not is_subject(subject):
            problems.append(f"'{subject}' cannot name files: leave out slashes and a leading dot")
        elif not (isinstance(images, list) and all(isinstance(path, str) for path in images)):
            problems.append(f"'{subject}' has no list of paths as its images")
        elif len(images) != count:
            problems.append(f"'{subject}' has {len(images)} images, expected {count}, one per channel")
        elif not isinstance(label, str):
            problems.append(f"'{subject}' has the label {label!r}, expected a path")
        else:
            root = description.path.parent
            files = {modality: listed_path(root, images[index]) for modality, index in indices.items()}
            cases.append(Case(subject, files, listed_path(root, label)))
    refuse(f'{description.path}: "dataset" is not usable:', problems)
    return cases


def _in_fold(cases: Sequence[Case], fold: int, path: Path) -> list[Case]:
    """Returns the cases of the fold with their splits."""
    if not path.is_file():
        raise InputError(
            f"{path} is not a file: set the reader's splits to the splits_final.json that nnU-Net keeps with its "
            "preprocessed data, or leave fold at null and use riskft.FractionSplit."
        )
    chosen = _fold_of(read_json(path), fold, path)
    train, val = set(chosen["train"]), set(chosen["val"])
    known = {case.subject for case in cases}
    problems = [f"'{subject}' is in train and val: leave it in one" for subject in sorted(train & val)]
    problems += [f"'{subject}' is not a case of the data set" for subject in sorted((train | val) - known)]
    refuse(f"Fold {fold} of {path} does not fit the data set:", problems)
    named = [case for case in cases if case.subject in train | val]
    return [replace(case, split="train" if case.subject in train else "val") for case in named]


def _fold_of(content: Any, fold: int, path: Path) -> dict[str, list[str]]:
    if not isinstance(content, list) or not 0 <= fold < len(content):
        found = f"{len(content)} folds" if isinstance(content, list) else f"a {type(content).__name__}"
        raise InputError(f"{path} has no fold {fold}: it holds {found}; folds count from 0.")
    chosen = content[fold]
    lists = [chosen.get(name) for name in ("train", "val")] if isinstance(chosen, dict) else []
    if not lists or not all(
        isinstance(names, list) and all(isinstance(name, str) for name in names) for names in lists
    ):
        raise InputError(f'{path}: fold {fold} is not an object with the lists of cases "train" and "val".')
    return {"train": chosen["train"], "val": chosen["val"]}
