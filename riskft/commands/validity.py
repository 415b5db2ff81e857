"""``riskft validity``: whether the risk map predicts the errors of fine-tuning in unseen cases."""

from collections.abc import Sequence
from pathlib import Path

from riskft.arguments.parser import CommandParser
from riskft.commands.imports import quick_imports
from riskft.errors import InputError, first_few, refuse
from riskft.files import write_text
from riskft.run.places import refuse_unwritable

DESCRIPTION = """Check the risk map on unseen test cases.

P(y|z), estimated on the training cases before fine-tuning, gives every voxel of a test case a transfer hardness h.
Does h predict which voxels the fine-tuned network gets wrong, and above all the voxels of negative transfer, which the
network trained from scratch gets right? Does the entropy of the expected empirical prediction (EEP), which needs no
label? Both are compared with the class prior, the source's entropy and the distance to the nearest boundary between
classes. Each predictor is scored on the prepared grid by the area under the ROC curve (AUROC; 0.5 by chance) and the
average precision (AP; by chance the target's share of the voxels): the mean over cases with a 95 % bootstrap interval
(over seeds and cases if there are several seeds), and pooled over the voxels of all cases.

Writes validity.csv, case_scores.csv, volumes.csv (ml of error, of negative and of positive transfer by case and class,
in the scan's own geometry) and roc.png. The runs' checkpoints, data and source network must still exist. Paths in
their config.yaml are relative to the current folder, as in `riskft test`."""

EXIST = "Results exist. Add --overwrite true, or choose another --out:"
NAMES = ("validity.csv", "case_scores.csv", "volumes.csv", "roc.png")


def main(arguments: Sequence[str]) -> None:
    """Runs ``riskft validity``; raises InputError if runs do not belong together, or files would be overwritten."""
    parser = CommandParser(prog="riskft validity", description=DESCRIPTION)
    parser.add_argument(
        "runs", nargs="+", type=Path, help="folders of plain fine-tuning runs with phase 1, or folders above them"
    )
    parser.add_argument(
        "--scratch",
        nargs="+",
        type=Path,
        required=True,
        help="folders of runs from scratch on the same data, one per study and seed, or folders above them",
    )
    parser.add_argument("--out", type=Path, default=Path("validity"), help="folder of the results")
    parser.add_argument(
        "--margin",
        type=int,
        default=4,
        help="score voxels up to this many voxels from the label's foreground; 0 for all (40 bytes of memory each)",
    )
    parser.add_argument(
        "--maps",
        type=bool,
        default=False,
        help="write <subject>_negative_transfer.nii.gz (0 right, 1 both wrong, 2 negative, 3 positive transfer) and "
        "<subject>_hardness.nii.gz (nats) in the scan's geometry; with several runs, in one folder per run",
    )
    parser.add_argument("--accelerator", type=str, default=None, help="cpu, gpu, ...; by default as in training")
    parser.add_argument("--overwrite", type=bool, default=False, help="replace results")
    options = parser.parse_args(list(arguments))
    if options.margin < 0:
        raise InputError(f"--margin is {options.margin}, expected 0 or more.")
    refuse_unwritable({"--out": options.out})
    if not options.overwrite:
        refuse(EXIST, [str(options.out / name) for name in NAMES if (options.out / name).exists()])
    with quick_imports():
        from riskft.plots.figure import save_figure
        from riskft.validity.cases import examine, existing_maps, map_folder
        from riskft.validity.opening import open_all
        from riskft.validity.pairs import find_pairs
        from riskft.validity.report import roc_figure, show
        from riskft.validity.table import RunResult, case_scores_csv, table, validity_csv, volumes_csv

    opened = open_all(find_pairs(options.runs, options.scratch), options.accelerator)
    folders = [map_folder(options.out, pair.pair, alone=len(opened) == 1) for pair in opened]
    if options.maps and not options.overwrite:
        for pair, folder in zip(opened, folders, strict=True):
            existing = existing_maps(folder, [case.subject for case in pair.run.data.prepared("test")])
            refuse(EXIST, first_few(existing, 4))
    results: list[RunResult] = []
    for folder in folders:
        pair = opened.pop(0)  # so that its networks can be freed
        results.append(examine(pair, options.margin, folder if options.maps else None))
        del pair
    rows = table(results)
    write_text(options.out / "case_scores.csv", case_scores_csv(results))
    write_text(options.out / "volumes.csv", volumes_csv(results))
    save_figure(roc_figure(results), options.out / "roc.png")
    write_text(options.out / "validity.csv", validity_csv(rows))
    show(rows, results, options.margin, options.out)
