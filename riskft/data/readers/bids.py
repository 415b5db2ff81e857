"""The folder layout of BIDS, with labels among the derivatives.

Our own, because pybids rejects derivatives without a ``dataset_description.json``, which many lack, first indexes all
files of a data set, and does not report missing labels.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from riskft.data.labels import LabelMap
from riskft.data.readers.base import Reader
from riskft.data.readers.bids_files import BidsName, fitting, images_in, listing, parse, parse_stem, read_lookup
from riskft.data.records import Case
from riskft.errors import InputError, refuse


class BidsReader(Reader):
    """BIDS: ``sub-01/[ses-1/]anat/sub-01_[ses-1_]T1w.nii.gz``, with labels in ``derivatives/<pipeline>/``.

    A case is a subject, or a session if there are sessions; it is called ``sub-01`` or ``sub-01_ses-1``. Modalities
    are BIDS suffixes in upper or lower case (``t1w``, ``FLAIR``), preceded by entities if these distinguish two images
    (``ce-gadolinium_T1w``). The label of ``sub-01`` is the file in its pipeline folder that ends in the label's suffix
    (``sub-01_dseg.nii.gz``, ``sub-01_space-orig_desc-lesion_dseg.nii.gz``). ``.nii`` works as well.

    A subject or session is a case if it has an ``anat`` folder, a label, or an empty folder; those with other data
    only are skipped. If the pipeline has a folder for the case, a label is expected: a missing one gets its expected
    path, so that the check reports it. Cases without such a folder have the label None.

    Args:
        root: The folder that holds the ``sub-*`` folders.
        derivatives: Name of the pipeline in ``<root>/derivatives``, or the path of its folder. Without it, the only
            pipeline with such labels; if there is none, no case has a label.
        suffix: End of the label's name before ``.nii.gz``: ``dseg``, ``mask``.
        entities: Selects among several images of a modality, and among sessions: ``{acq: highres}``, ``{run: "01"}``,
            ``{ses: "1"}``; an empty value selects names without the entity (``{ce: ""}``).
        label_entities: The same for labels: ``{desc: lesion}``, ``{label: L}``.
    """

    def __init__(
        self,
        root: str | Path,
        derivatives: str | Path | None = None,
        suffix: str = "dseg",
        entities: dict[str, str] | None = None,
        label_entities: dict[str, str] | None = None,
    ) -> None:
        self.root = Path(root)
        self.derivatives = derivatives
        self.suffix = suffix
        self.entities = dict(entities or {})
        self.label_entities = dict(label_entities or {})

    def cases(self, modalities: Sequence[str]) -> list[Case]:
        """Lists the cases, sorted by subject; see ``Reader.cases``.

        Raises:
            InputError: Also if a modality or label has several files, naming all, or the pipeline is ambiguous.
        """
        pipeline = self._pipeline()
        units = self._units(pipeline)
        problems: list[str] = []
        images = {name: self._images(units, name, problems) for name in modalities}
        labels = self._labels(pipeline, units, problems) if pipeline is not None else {}
        refuse(f"{self.root} has several files for one image:", problems)
        if absent := [name for name, files in images.items() if not files]:
            held = sorted({file.suffix for unit in units for file in _anat(self.root, unit)})
            raise InputError(f"{self.root} has no image {absent} (with the entities {self.entities}): it has {held}.")
        cases = []
        for unit in units:
            files = {name: _expected(self.root, unit, found, name) for name, found in images.items()}
            promised = pipeline is not None and (pipeline / unit).is_dir()
            label = _expected(pipeline, unit, labels, self.suffix) if pipeline is not None and promised else None
            cases.append(Case("_".join(unit.parts), files, label, person=unit.parts[0]))
        return sorted(cases, key=lambda case: case.subject)

    def label_map(self) -> LabelMap | None:
        """Returns the classes of the pipeline's ``dseg.tsv``, or the single class of a ``mask``; None without pipeline.

        The table may be in the pipeline's folder or beside the labels; those beside the labels must agree.

        Raises:
            InputError: If the table is ambiguous or not usable.
        """
        pipeline = self._pipeline()
        if pipeline is None:
            return None
        if self.suffix.casefold() == "mask":
            # BIDS defines it as 1 inside and 0 outside
            return LabelMap({self.label_entities.get("label") or self.label_entities.get("desc") or "mask": [1]})
        tables = fitting(map(parse, sorted(pipeline.glob("*.tsv"))), self.suffix, self.label_entities)
        if len(tables) > 1:
            raise InputError(
                f"{pipeline} has several tables: {listing(tables)}; select one with the reader's label_entities."
            )
        if not tables:
            folders = (pipeline / unit / "anat" for unit in _unit_folders(pipeline))
            beside = [parse(path) for folder in folders for path in sorted(folder.glob("[!.]*.tsv"))]
            tables = fitting(beside, self.suffix, self.label_entities)
        maps = {table.path: read_lookup(table.path) for table in tables}
        first = next(iter(maps.values()), None)
        if other := [str(path) for path, found in maps.items() if found != first]:
            raise InputError(f"These tables differ from {next(iter(maps))}: set data.labels in the config.", other)
        return first

    def _pipeline(self) -> Path | None:
        """Returns the folder of the labels."""
        if not self.root.is_dir():
            raise InputError(f"{self.root} is not a folder: set the reader's root to the folder that holds sub-*.")
        folder = self.root / "derivatives"
        there = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())] if folder.is_dir() else []
        if self.derivatives is None:
            labelled = [path for path in there if self._any_label(path)]
            if len(labelled) > 1:
                raise InputError(
                    f"{folder} has several pipelines with files *_{self.suffix}.nii.gz: set the reader's derivatives "
                    "to one of them.",
                    [path.name for path in labelled],
                )
            return labelled[0] if labelled else None
        chosen = next((path for path in (folder / self.derivatives, Path(self.derivatives)) if path.is_dir()), None)
        if chosen is None:
            names = [path.name for path in there[1:]]
            raise InputError(f"There is no pipeline {self.derivatives}: {folder} holds {names}; give a name or a path.")
        if not self._any_label(chosen):
            files = [file for unit in _unit_folders(chosen) for file in _anat(chosen, unit)]
            raise InputError(
                f"{chosen} has no label sub-*/anat/*_{self.suffix}.nii.gz with the entities {self.label_entities} "
                f"(found first: {listing(files[:5]) or 'nothing'}): correct the reader's suffix or label_entities."
            )
        return chosen

    def _any_label(self, pipeline: Path) -> bool:
        return any(self._label_files(pipeline, unit) for unit in _unit_folders(pipeline))

    def _label_files(self, pipeline: Path, unit: Path) -> list[BidsName]:
        return fitting(_anat(pipeline, unit), self.suffix, self.label_entities)

    def _units(self, pipeline: Path | None) -> list[Path]:
        """Returns the folders of subjects or sessions that are cases, relative to the root."""
        units = {unit for unit in _unit_folders(self.root) if _is_case(self.root / unit)}
        if pipeline is not None:
            units |= {unit for unit in _unit_folders(pipeline) if self._label_files(pipeline, unit)}
        wanted = {key: self.entities[key] for key in ("sub", "ses") if key in self.entities}
        kept = [unit for unit in sorted(units) if all(_entities(unit).get(key, "") == wanted[key] for key in wanted)]
        if not kept:
            raise InputError(
                f"{self.root} holds no case such as sub-01/anat (with the entities {self.entities}): set the reader's "
                "root to the folder that holds the sub-* folders."
            )
        return kept

    def _images(self, units: Sequence[Path], modality: str, problems: list[str]) -> dict[Path, Path]:
        """Returns the modality's file by unit, where there is one."""
        own, suffix = parse_stem(modality)
        entities = {**{key: value for key, value in self.entities.items() if key not in ("sub", "ses")}, **own}
        found = {unit: fitting(_anat(self.root, unit), suffix, entities) for unit in units}
        if own:
            # entities in the modality's name are required, not just preferred
            found = {
                unit: [name for name in names if own.items() <= name.entities.items()] for unit, names in found.items()
            }
        hint = "select one with the reader's entities, for example {acq: highres}, or the modality (acq-highres_T1w)"
        return _single(found, modality, hint, problems)

    def _labels(self, pipeline: Path, units: Sequence[Path], problems: list[str]) -> dict[Path, Path]:
        found = {unit: self._label_files(pipeline, unit) for unit in units}
        hint = "select one with the reader's label_entities, for example {desc: x}"
        return _single(found, "the label", hint, problems)


def _single(found: Mapping[Path, list[BidsName]], what: str, hint: str, problems: list[str]) -> dict[Path, Path]:
    problems += [
        f"{'_'.join(unit.parts)} has {len(names)} files for {what}: {listing(names)}; {hint}"
        for unit, names in found.items()
        if len(names) > 1
    ]
    return {unit: names[0].path for unit, names in found.items() if names}


def _expected(root: Path, unit: Path, found: Mapping[Path, Path], suffix: str) -> Path:
    """Returns the unit's file, or its expected path with a name like that of another unit's."""
    if unit in found:
        return found[unit]
    tails = (path.name.removeprefix("_".join(other.parts)) for other, path in found.items())
    tail = next(tails, f"_{suffix}.nii.gz")
    return root / unit / "anat" / f"{'_'.join(unit.parts)}{tail}"


def _unit_folders(root: Path) -> list[Path]:
    """Lists the folders of subjects or their sessions, relative to the root."""
    units = []
    for subject in sorted(path for path in root.glob("sub-*") if path.is_dir()):
        sessions = sorted(path for path in subject.glob("ses-*") if path.is_dir())
        units += [*([subject] if not sessions or (subject / "anat").is_dir() else []), *sessions]
    return [unit.relative_to(root) for unit in units]


def _is_case(folder: Path) -> bool:
    return (folder / "anat").is_dir() or not any(entry.is_dir() for entry in folder.iterdir())


def _entities(unit: Path) -> dict[str, str]:
    return {part[:3]: part[4:] for part in unit.parts}


def _anat(root: Path, unit: Path) -> list[BidsName]:
    return images_in(root / unit / "anat", _entities(unit))
