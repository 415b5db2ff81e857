"""Which sources race, and what is shown of the scores."""

import csv
import io
import json

from rich.console import Console

from riskft.rank.candidates import Candidate
from riskft.rank.study import Rejected, Scored, best_probe, short_list
from riskft.rank.table import notes, rank_csv, rank_json, scores_table
from riskft.transferability.table import Estimate


def scored(name, **probe):
    scores = {f"probe_dice.{depth}": Estimate(value, value - 0.1, value + 0.1) for depth, value in probe.items()}
    return Scored(
        Candidate(name, [f"--{name}=1"]), f"{name}.pt", cases=3, seconds=1.5,
        scores={"leep": Estimate(-0.25), **scores},
    )  # fmt: skip


FOUR = [
    scored("a", encoder=0.3, decoder=0.5),
    scored("b", encoder=0.6),
    scored("c", decoder=0.4),
    Scored(
        Candidate("d", []), "d.pt", "no head", cases=3, seconds=2.0, scores={"leep": Estimate(None, reason="no head")}
    ),
]
SCRATCH = Candidate("scratch", ["--none"])


def test_the_best_probes_race():
    assert [each.candidate.name for each in short_list(FOUR, 2)] == ["a", "b"]
    assert short_list(FOUR, 4) == FOUR
    assert best_probe(FOUR).candidate.name == "b"


def test_tables_have_a_row_per_candidate_and_the_reasons():
    rejected = [Rejected("e", "cannot\n  be read")]
    rows = list(csv.DictReader(io.StringIO(rank_csv(FOUR, rejected, SCRATCH))))
    assert [(row["candidate"], row["takes_part"]) for row in rows] == [
        *((name, "yes") for name in ("a", "b", "c", "d", "scratch")),
        ("e", "no"),
    ]
    first = {name: rows[0][f"probe_dice.decoder{name}"] for name in ("", "_low", "_high")}
    assert first == {"": "0.5", "_low": "0.4", "_high": "0.6"}
    assert rows[3]["leep"] == "" == rows[4]["pass_seconds"]
    assert (rows[0]["has_head"], rows[3]["has_head"], rows[3]["reason"]) == ("True", "False", "no head")
    assert rows[5]["reason"] == "cannot be read"
    found = json.loads(json.dumps(rank_json(FOUR, rejected, SCRATCH)))
    assert found["pass_seconds"] == 6.5
    assert found["candidates"][0]["arguments"] == ["--a=1"]
    assert found["candidates"][1]["scores"]["probe_dice.encoder"]["value"] == 0.6
    assert found["rejected"] == [{"name": "e", "reason": "cannot\n  be read"}]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(scores_table(FOUR, SCRATCH))
    text = console.export_text()
    assert "0.500" in text
    assert "0.40 to 0.60" in text
    assert "3 labelled training cases" in text
    assert notes(FOUR, [*rejected, Rejected("f", "cannot\n  be read"), Rejected("g", "damaged")]) == [
        "The passes took 6.5 s, 1.6 s per candidate that ran its own.",
        "d: without a segmentation head: no LEEP, and fine-tuning without phase 1. no head",
        "Left out: e, f: cannot\n  be read",
        "Left out: g: damaged",
    ]
