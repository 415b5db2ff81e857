"""What ``riskft rank`` does after its options are read: scores, race, files and what it prints."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from riskft.errors import InputError
from riskft.files import fingerprint, write_json, write_text
from riskft.rank.candidates import Candidate, source_candidates
from riskft.rank.depths import MOST, depth_study
from riskft.rank.online import log_ranking
from riskft.rank.opening import Opener
from riskft.rank.page import rank_html
from riskft.rank.passes import Passes
from riskft.rank.question import question, refuse_other_question, take_race
from riskft.rank.race import RaceOptions, run_race
from riskft.rank.race_folds import race_folds
from riskft.rank.race_table import race_table
from riskft.rank.study import Rejected, Scored, best_probe, probe_of, score_sources, scratch_of, short_list
from riskft.rank.table import notes, rank_csv, rank_json, scores_table
from riskft.rank.winner import winner_config
from riskft.run.lock import held
from riskft.sweep.local import CommandLine


@dataclass(frozen=True)
class RankOptions:
    """The options of ``riskft rank`` besides those of ``fit`` and of the race."""

    sources: Sequence[str]  #: Values of ``model.source.checkpoint``.
    out: Path  #: Folder of the results.
    voxels: int  #: Voxels of each class and case, at most.
    bootstrap: int  #: Draws of the cases for the intervals.
    finalists: int  #: Sources in the race, at most.
    depths: bool  #: Whether a single source also races with a part of it loaded, and held on to.
    config_out: Path | None  #: File for the config that goes on from the winner.
    wandb: bool  #: Whether the tables are logged to W&B.
    overwrite: bool  #: Whether results for other options are replaced.


def rank(options: RankOptions, fit: Sequence[str], race: RaceOptions | None, command_line: CommandLine) -> None:
    """Scores the sources, races the candidates unless ``race`` is None, and writes and prints the results.

    ``fit`` are the options of ``riskft fit`` that all candidates share. Raises InputError if no source can take part,
    the folder holds a ranking for other options or a race of other sources or is in use, or the race has no winner.
    """
    with held(options.out / ".lock", otherwise="choose another --out"):
        _rank(options, fit, race, command_line)


def _rank(options: RankOptions, fit: Sequence[str], race: RaceOptions | None, command_line: CommandLine) -> None:
    out, overwrite, opener = options.out, options.overwrite, Opener()
    config = opener.config(fit)
    if race is not None:
        if config["trainer"].get("limit_val_batches") == 0:
            raise InputError(
                "trainer.limit_val_batches is 0, but the candidates race for their validation Dice. Leave it out, or "
                "add --race false."
            )
        race_folds(fit)  # raises before the passes if there are no cases to race on
    asked = question(config)
    refuse_other_question(out / "question.json", asked, overwrite)
    passes = Passes(out / "passes", options.voxels, config["seed_everything"] or 0)
    scored, rejected = score_sources(source_candidates(fit, options.sources), opener, passes, options.bootstrap)
    write_json(out / "question.json", asked)  # not before something works: the note refuses a corrected call
    scratch = scratch_of(fit, config, scored)
    finalists = short_list(scored, options.finalists)
    left_out = [each.candidate.name for each in scored if each not in finalists]
    if options.depths:
        ways, impossible = depth_study(best_probe(scored), opener, MOST - len(finalists) - 1)
        finalists, scored, rejected = [*finalists, *ways], [*scored, *ways], [*rejected, *impossible]
    _show(out, scored, rejected, scratch)
    result, folder = None, None
    if race is None:
        best = best_probe(scored)
        chosen = None if probe_of(best) < 0 else best.candidate
        _say(
            "There was no race, and no linear probe could be fitted: rank.json gives the reasons."
            if chosen is None
            else f"There was no race. The best linear probe is that of {chosen.name}."
        )
    else:
        if left_out:
            _say(f"Not in the race (--finalists {options.finalists}): {', '.join(left_out)}")
        if len({each.preprocessing for each in finalists}) > 1:
            _say("The candidates' data.preprocessing differs, and each is scored on its own grid: mind small gains.")
        needs = {scratch.name: "", **{each.candidate.name: each.fingerprint for each in finalists}}
        take_race(out, {name: fingerprint({"options": asked, "source": own}) for name, own in needs.items()}, overwrite)
        racing = [*(each.candidate for each in finalists), scratch]
        result = run_race(racing, race, command_line)
        result.write(out)
        write_json(out / "rank.json", {**rank_json(scored, rejected, scratch), "race": result.plain()})
        Console().print(race_table(result))
        folder = result.winner.folder if result.winner.folder.exists() else None
        chosen = next(each for each in racing if each.name == result.decision.winner)
        where = f"Its run is in {folder}." if folder else "It has not been trained on all cases: --finish is false."
        for line in (*result.sentences(), where):
            _say(line)
    write_text(out / "rank.html", rank_html(scored, rejected, scratch, result))
    if options.wandb:
        log_ranking(out, rank_csv(scored, rejected, scratch), result)
    _say(f"All scores: {out / 'rank.html'}, {out / 'rank.csv'}, {out / 'rank.json'}")
    if options.config_out is not None and chosen is None:
        raise InputError(f"{options.config_out} was not written, because nothing says which source is best.")
    if options.config_out is not None and chosen is not None:
        write_text(options.config_out, winner_config(opener, chosen, folder))
        _say(f"The config that goes on with {chosen.name}: {options.config_out}")


def _show(out: Path, scored: Sequence[Scored], rejected: Sequence[Rejected], scratch: Candidate) -> None:
    """Writes and prints the scores, before a race that may take hours."""
    write_text(out / "rank.csv", rank_csv(scored, rejected, scratch))
    write_json(out / "rank.json", rank_json(scored, rejected, scratch))
    Console().print(scores_table(scored, scratch))
    for line in notes(scored, rejected):
        _say(line)


def _say(text: str) -> None:
    Console().print(text, soft_wrap=True, markup=False, highlight=False)
