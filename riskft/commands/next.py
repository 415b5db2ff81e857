"""``riskft next``: which unlabelled scans to annotate next."""

from collections.abc import Sequence
from pathlib import Path

from riskft.arguments.given import divided, options_of
from riskft.arguments.parser import CommandParser
from riskft.commands.imports import quick_imports
from riskft.compat import option_names
from riskft.errors import InputError, refuse
from riskft.files import write_text
from riskft.run.places import refuse_unwritable

DESCRIPTION = """Choose the scans to annotate next.

With --run, the run's fine-tuned network segments all scans, and those are chosen whose segmentation is probably the
worst and whose features are far from those of the training cases and of one another: with similar scans you would
correct the same mistake twice. The quality is judged by the mean expected risk in and near the predicted foreground (as
in `riskft predict --expected_risk`); in a scan without predicted foreground, by that of the riskiest thousandth of its
voxels. The network is that of the best checkpoint, or of --ckpt_path.

For the first few labels, leave --run out and give the options of `riskft fit` for a source network (--config and
--model.source.checkpoint), and the scans' channels with --data.modalities: the source's features tell which scans are
typical of the others. If the options name a data set, scans like its training cases are avoided. All other options are
those of `riskft fit`, too.

Scans are found as in `riskft predict --images`. Faulty scans and copies are listed and left out. Writes next.csv and
one panel per chosen scan."""

TABLE = "next.csv"
#: Options that are accepted, because those of a run are parsed as those of ``riskft predict``, but would do nothing.
UNUSED = ("images", "probabilities", "dtype", "expected_risk")


def main(arguments: Sequence[str]) -> None:
    """Runs ``riskft next``; raises InputError if no scan can be chosen, or files would be overwritten."""
    parser = CommandParser(prog="riskft next", description=DESCRIPTION)
    parser.add_argument("--unlabelled", type=Path, required=True, help="folder of the scans to choose from")
    parser.add_argument("-k", "--count", type=int, default=5, help="how many to choose")
    parser.add_argument("--run", type=Path, help="folder of a fine-tuned run; leave it out before the first label")
    parser.add_argument("--out", type=Path, default=Path("next"), help="folder of the results")
    parser.add_argument("--overwrite", type=bool, default=False, help="replace results")
    own, others = divided(arguments, option_names(parser) - {"--config"})
    options = parser.parse_args(own)
    if options.count < 1:
        raise InputError(f"-k is {options.count}, expected 1 or more.")
    _refuse_unused(others, with_run=options.run is not None)
    refuse_unwritable({"--out": options.out})
    earlier = [path for path in (options.out / TABLE, *sorted(options.out.glob("next_[0-9]*_*.png"))) if path.exists()]
    folders = [f"{path}: is a folder" for path in earlier if path.is_dir()]
    refuse("Results are files. Move these folders, or choose another --out:", folders)
    if not options.overwrite:
        refuse("Results exist. Add --overwrite true, or choose another --out:", [str(path) for path in earlier])
    with quick_imports():
        from rich.console import Console

        from riskft.label_next.opening import open_run, open_source
        from riskft.label_next.ranking import rank_scans
        from riskft.label_next.report import next_csv, next_table, panel_of
        from riskft.label_next.scans import find_scans
        from riskft.label_next.store import LookStore
        from riskft.plots.figure import save_figure
        from riskft.plots.unlabelled import unlabelled_figure

    if options.run is None:
        viewer = open_source(options.unlabelled, others)
    else:
        viewer = open_run(options.run, options.unlabelled, others)
    scans = find_scans(viewer.data, options.unlabelled)
    store = LookStore.of(viewer.data.cache_dir, viewer)
    ranking = rank_scans(viewer, store, scans, options.count, by_risk=options.run is not None)
    # all are drawn before any earlier result is touched, because a scan may turn out to be damaged
    panels = {
        options.out / one.panel: unlabelled_figure(panel_of(one, viewer.look(one.scan)), viewer.names)
        for one in ranking.chosen
    }
    for path, figure in panels.items():
        save_figure(figure, path)
    for path in {*earlier} - {*panels, options.out / TABLE}:  # no panel of an earlier choice stays beside the new ones
        path.unlink()
    write_text(options.out / TABLE, next_csv(ranking.chosen))
    console = Console()
    console.print(next_table(ranking.chosen, ranking.seen))
    for line in [*scans.notes, *ranking.notes]:
        console.print(f"Note: {line}", soft_wrap=True, markup=False, highlight=False)
    if faults := [*scans.faults, *ranking.faults]:
        console.print("These scans are left out of the choice:", soft_wrap=True)
        for fault in faults:
            console.print(f"  - {fault}", soft_wrap=True, markup=False, highlight=False)
    console.print(f"Results: {options.out}", soft_wrap=True, markup=False, highlight=False)


def _refuse_unused(arguments: Sequence[str], with_run: bool) -> None:
    """Raises InputError for options that would do nothing."""
    given = options_of(arguments)
    unused = (*UNUSED, *(() if with_run else ("ckpt_path",)))
    refuse("These options do nothing here. Leave them out:", [f"--{one.name}" for one in given if one.name in unused])
