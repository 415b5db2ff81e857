"""The ``dataset.json`` of the Medical Segmentation Decathlon and of nnU-Net: channels and labels."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from riskft.data.labels import LabelMap
from riskft.data.readers.naming import class_name
from riskft.errors import InputError, refuse
from riskft.files import read_json

_CHANNELS = ("channel_names", "modality")
_IGNORE = "ignore"


@dataclass(frozen=True)
class DatasetJson:
    """A data set's description.

    Both forms are accepted: ``channel_names`` with ``labels`` from names to values (nnU-Net 2), and ``modality`` with
    ``labels`` from values to names (the Decathlon and nnU-Net 1).
    """

    path: Path  #: The file.
    content: Mapping[str, Any]

    @property
    def channels(self) -> list[str]:
        """Names of the channels, in order; raises InputError unless the file numbers them 0, 1, 2, ..."""
        key = next((name for name in _CHANNELS if name in self.content), None)
        if key is None:
            raise InputError(
                f"{self.path} has no 'channel_names' (or 'modality') among {list(self.content)}: add them, for example "
                '{"0": "T1", "1": "FLAIR"}.'
            )
        found = self.content[key]
        numbered = dict(enumerate(found)) if isinstance(found, list) else found
        if isinstance(numbered, dict) and numbered:
            by_number = {str(number): name for number, name in numbered.items()}
            names = [by_number.get(str(number)) for number in range(len(by_number))]
            if all(isinstance(name, str) for name in names):
                return [str(name) for name in names]
        raise InputError(
            f"{self.path}: '{key}' is {json.dumps(found)}, expected the channels by number from 0, for example "
            '{"0": "T1", "1": "FLAIR"}.'
        )

    def indices(self, modalities: Sequence[str]) -> dict[str, int]:
        """Returns the index of each channel, by name in upper or lower case, or by number such as "0".

        Raises:
            InputError: If the data set lacks one, one matches several channels, or several match one channel.
        """
        channels = self.channels
        problems = []
        found: dict[str, int] = {}
        for name in modalities:
            fitting = [index for index, channel in enumerate(channels) if channel.casefold() == name.casefold()]
            if not fitting and name.isdecimal() and int(name) < len(channels):
                fitting = [int(name)]
            if not fitting:
                problems.append(f"there is no '{name}': it has {channels}")
            elif len(fitting) > 1:
                problems.append(f"'{name}' is the name of the channels {fitting}: select one by number")
            elif fitting[0] in found.values():
                problems.append(f"'{name}' is the same channel as another of {list(modalities)}")
            else:
                found[name] = fitting[0]
        refuse(f"{self.path} does not have the requested modalities:", problems)
        return found

    def label_map(self) -> LabelMap:
        """Returns the file's classes; raises InputError if there are no labels, or they are not usable.

        The label called "ignore" is ignored. If a label is a list of values, all labels are regions as in nnU-Net: each
        value becomes a class, ``label_1`` and so on, and ``LabelMap.regions`` has the names. White space and slashes in
        names become ``_``.
        """
        values = self._labels()
        background = values.pop("background", [0])
        ignore = values.pop(_IGNORE, [])
        if not any(isinstance(value, list) for value in self.content["labels"].values()):
            return LabelMap(values, background, ignore)
        single = sorted({value for region in values.values() for value in region})
        return LabelMap({f"label_{value}": [value] for value in single}, background, ignore, regions=values)

    def _labels(self) -> dict[str, list[int]]:
        """Returns the values by name; 0 is called "background"."""
        stated = self.content.get("labels")
        if not isinstance(stated, dict) or not stated:
            raise InputError(
                f'{self.path} has no usable \'labels\': add them, for example {{"background": 0, "x": 1}}.'
            )
        # the Decathlon and nnU-Net 1 go from values to names
        old = all(str(key).isdecimal() and isinstance(name, str) for key, name in stated.items())
        pairs = [(name, int(key)) for key, name in stated.items()] if old else list(stated.items())
        problems = []
        found: dict[str, list[int]] = {}
        for name, value in pairs:
            values = [_whole(each) for each in (value if isinstance(value, list) else [value])]
            if not values or None in values:
                problems.append(f"'{name}' is {json.dumps(value)}, expected a whole number or a list of them")
                continue
            # 0 is the background, whatever old files call it ("Background", "clear_label")
            key = "background" if values == [0] else class_name(name)
            if key in found:
                problems.append(f"'{name}' occurs twice as the class name '{key}'")
            found[key] = [each for each in values if each is not None]
        refuse(f"{self.path}: the labels are not usable:", problems)
        return found


def _whole(value: Any) -> int | None:
    """Returns a label value as an integer, also for "1" and 1.0 as in nnU-Net; None if it is not whole."""
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    return int(value) if type(value) in (int, float) and value == int(value) else None


def read_dataset_json(root: Path) -> DatasetJson:
    """Reads the ``dataset.json`` in a folder; raises InputError if one is not there, or it is not a JSON object."""
    if not root.is_dir():
        raise InputError(f"{root} is not a folder: set the reader's root to the folder that holds dataset.json.")
    path = root / "dataset.json"
    if not path.is_file():
        held = sorted(entry.name for entry in root.iterdir())[:5]
        raise InputError(
            f"{path} does not exist (found first: {held}): set the reader's root to the folder that holds dataset.json."
        )
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}, expected an object with 'labels' and so on.")
    return DatasetJson(path, content)
