"""Writes a manifest for each development data set, for ``riskft.data.readers.ManifestReader``.

    python experiments/manifests.py DATA_ROOT OUT_DIR [--absolute] [--overwrite]

The splits are fixed. In the order of their names, brats15_2mm has 3 cases for training, 1 for validation and 2 for
test, and open_ms_mni one each. msd_hippocampus has a seeded split of 60/20/20.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from riskft.data.records import Case
from riskft.data.splits import FractionSplit, ListSplit, Split
from riskft.errors import InputError
from riskft.files import csv_text, write_text

MODALITIES = {
    "brats15_2mm": ("t1ce", "flair"),
    "open_ms_mni": ("t1", "t1ce", "t2", "flair"),
    "msd_hippocampus": ("t1",),
}
SIZES = {"brats15_2mm": (3, 1, 2), "open_ms_mni": (1, 1, 1)}


def list_cases(folder: Path, modalities: Sequence[str]) -> list[Case]:
    """Lists ``<folder>/<case>/{<modality>,label}.nii.gz``."""
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}: DATA_ROOT must hold {', '.join(MODALITIES)}.")
    subjects = sorted(path for path in folder.iterdir() if path.is_dir())
    cases = [
        Case(path.name, {name: path / f"{name}.nii.gz" for name in modalities}, path / "label.nii.gz")
        for path in subjects
    ]
    if missing := [str(file) for case in cases for file in case.files if not file.is_file()]:
        raise InputError(f"{folder} lacks files:", missing)
    return cases


def choose_split(name: str, cases: Sequence[Case]) -> Split:
    if name not in SIZES:
        return FractionSplit(val=0.2, test=0.2, seed=0)
    train, val, test = SIZES[name]
    if len(cases) != train + val + test:
        raise InputError(f"{name} must hold {train + val + test} cases, but holds {len(cases)}.")
    subjects = [case.subject for case in cases]
    return ListSplit(subjects[:train], subjects[train : train + val], subjects[train + val :])


def manifest(name: str, folder: Path, target: Path, absolute: bool) -> str:
    """Returns the text of a data set's manifest, whose paths are relative to the folder of ``target``."""
    modalities = MODALITIES[name]
    cases = list_cases(folder, modalities)
    base = target.parent.resolve()
    table = []
    for split, chosen in choose_split(name, cases).assign(cases).items():
        for case in chosen:
            files = [file.resolve() if absolute else os.path.relpath(file.resolve(), base) for file in case.files]
            table.append([case.subject, split, *files])
    return csv_text(["subject", "split", *modalities, "label"], table)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write manifests of the development data sets.")
    parser.add_argument("data_root", type=Path, metavar="DATA_ROOT", help=f"folder of {', '.join(MODALITIES)}")
    parser.add_argument("out_dir", type=Path, metavar="OUT_DIR", help="folder for <data set>.csv")
    parser.add_argument(
        "--absolute", action="store_true", help="write absolute paths instead of paths relative to the CSV's folder"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing manifests")
    options = parser.parse_args(arguments)
    targets = {name: options.out_dir / f"{name}.csv" for name in MODALITIES}
    present = [str(target) for target in targets.values() if target.exists()]
    if present and not options.overwrite:
        parser.error(f"{', '.join(present)} already exist: give another OUT_DIR, or --overwrite to replace them")
    try:
        texts = {
            target: manifest(name, options.data_root / name, target, options.absolute)
            for name, target in targets.items()
        }
    except InputError as error:
        parser.error(str(error))
    for target, text in texts.items():
        write_text(target, text)
        print(f"{target}: {text.count(chr(10)) - 1} cases")


if __name__ == "__main__":
    main()
