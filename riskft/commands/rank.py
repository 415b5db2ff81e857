"""``riskft rank``: which source to fine-tune, or none."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from riskft.arguments.given import divided
from riskft.arguments.parser import CommandParser
from riskft.commands.imports import quick_imports
from riskft.compat import option_names
from riskft.errors import InputError
from riskft.run.places import refuse_unwritable
from riskft.sweep.local import CommandLine
from riskft.sweep.slurm import SlurmOptions

DESCRIPTION = """Decide before training which source to fine-tune, or whether to train from scratch.

Takes the options of `riskft fit`, which describe the target task and the training, and the sources: values of
model.source.checkpoint. Training from scratch is always a candidate. If model.source.invert is auto, each source is two
candidates: as it is, and inverted. A source that cannot take part is listed with the reason.

Each source runs once over the labelled training cases. A few hundred voxels of each class and case give its scores:
LEEP, NCE, H-score, LogME, GBC, CC-FV, and linear probes of its features on left-out cases. The passes are kept in
<out>/passes, so another source costs only its own pass. Then the candidates race: all are fine-tuned for a part of
their steps, and only the better half goes on. The race is in <out>/race; started again, it goes on where it stopped.

Writes rank.html, rank.csv, rank.json, race.csv, race.json and race.png. Validation cases decide the race; test cases
are never read."""


def main(arguments: Sequence[str], command_line: CommandLine) -> None:
    """Runs ``riskft rank``.

    Raises:
        InputError: If the options cannot be used, no source can take part, or another ranking would be overwritten.
    """
    parser = _parser()
    own, fit = divided(arguments, option_names(parser) - {"--config"})
    options = parser.instantiate_classes(parser.parse_args(own))
    for name, least in (("voxels", 1), ("bootstrap", 0), ("finalists", 1)):
        if options[name] < least:
            raise InputError(f"--{name} is {options[name]}, expected {least} or more.")
    sources = len(set(options.sources))
    if options.depths and sources > 1:
        raise InputError(
            f"--depths is for one source, but --sources has {sources}. Rank these first, then the winner with --depths."
        )
    if options.depths and not options.race:
        raise InputError("--depths adds candidates that only the race can tell apart. Add --race true.")
    more = {} if options.config_out is None else {"--config-out": options.config_out.parent}
    refuse_unwritable({"--out": options.out, **more})
    with quick_imports():
        from riskft.rank.race import RaceOptions
        from riskft.rank.run import RankOptions, rank

    slurm = options.slurm if options.submit else None
    race = RaceOptions(options.out, options.rungs, options.budget, options.finish, options.jobs, slurm)
    own_options = RankOptions(**{field.name: options[field.name] for field in fields(RankOptions)})
    rank(own_options, fit, race if options.race else None, command_line)


def _parser() -> CommandParser:
    parser = CommandParser(prog="riskft rank", description=DESCRIPTION, usage="riskft rank --sources A B ... OPTIONS")
    parser.add_argument("--sources", nargs="+", required=True, help="files or folders, as model.source.checkpoint")
    parser.add_argument("--out", type=Path, default=Path("rank"), help="folder of the results")
    parser.add_argument("--voxels", type=int, default=200, help="maximum number of voxels per class and case")
    parser.add_argument("--bootstrap", type=int, default=500, help="draws of the cases for the scores' intervals")
    parser.add_argument("--race", type=bool, default=True, help="race the candidates; off: only the scores")
    parser.add_argument(
        "--finalists",
        type=int,
        default=8,
        help="maximum number of sources in the race; those with the best linear probe take part",
    )
    parser.add_argument(
        "--depths",
        type=bool,
        default=False,
        help="with one source, also race its encoder alone, all of it but the first convolution, and all of it held on "
        "to weakly or strongly (riskft.L2SP): at most six candidates in all",
    )
    parser.add_argument(
        "--rungs",
        type=list[float],
        default=[0.125, 0.25, 1.0],
        help="fractions of the steps after which the worse half drops out",
    )
    parser.add_argument(
        "--budget",
        type=float,
        default=2.0,
        help="limit on the steps of all candidates together, in units of one complete fine-tuning",
    )
    parser.add_argument("--finish", type=bool, default=True, help="train the winner to its end")
    parser.add_argument("--jobs", type=int, default=1, help="candidates trained at a time on this machine")
    parser.add_argument("--submit", type=bool, default=False, help="train the candidates as job arrays on SLURM")
    parser.add_class_arguments(SlurmOptions, "slurm")
    parser.add_argument(
        "--config-out", type=Path, default=None, help="write the config that goes on from the winner with `riskft fit`"
    )
    parser.add_argument("--wandb", type=bool, default=False, help="log the tables to an offline W&B run in --out")
    parser.add_argument("--overwrite", type=bool, default=False, help="replace the ranking for other options in --out")
    return parser
