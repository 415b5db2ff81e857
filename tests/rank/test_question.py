"""A folder of results belongs to one question."""

import copy
import json

import pytest

from riskft.errors import InputError
from riskft.rank.question import question, refuse_other_question, take_race

CONFIG = {
    "seed_everything": 0,
    "run": {"method": "riskft"},
    "data": {"modalities": ["t1"], "cache_dir": "a"},
    "model": {"source": {"checkpoint": "a.pt", "invert": False}, "head_init": "auto"},
    "trainer": {"max_epochs": 3, "accelerator": "cpu", "callbacks": ["riskft.RiskMapCallback"]},
}


def changed(**values):
    config = copy.deepcopy(CONFIG)
    for name, value in values.items():
        *parts, last = name.split("__")
        part = config
        for each in parts:
            part = part[each]
        part[last] = value
    return question(config)


def test_another_question_is_refused_and_named(tmp_path):
    path = tmp_path / "question.json"
    refuse_other_question(path, question(CONFIG), overwrite=False)
    assert not path.exists()  # nothing is known to work yet
    path.write_text(json.dumps(question(CONFIG)))
    same = changed(data__cache_dir="b", trainer__accelerator="gpu", run__method="x", model__source__checkpoint="b.pt")
    refuse_other_question(path, same, overwrite=False)
    for other in (changed(data__modalities=["t2"]), changed(trainer__max_epochs=4), changed(seed_everything=1)):
        with pytest.raises(InputError) as error:
            refuse_other_question(path, other, overwrite=False)
        assert len(error.value.problems) == 1
    with pytest.raises(InputError, match=r"trainer\.max_epochs: 3 there, 4 here"):
        refuse_other_question(path, changed(trainer__max_epochs=4), overwrite=False)
    refuse_other_question(path, changed(data__modalities=["t2"]), overwrite=True)
    assert json.loads(path.read_text()) == question(CONFIG)


def test_a_race_of_other_weights_starts_again_only_if_asked(tmp_path):
    left = [tmp_path / name for name in ("race/a/last.ckpt", "race.csv", "race.json", "race.png")]
    take_race(tmp_path, {"a": "1"}, overwrite=False)
    left[0].parent.mkdir(parents=True)
    for path in (*left, tmp_path / "rank.csv"):
        path.touch()
    take_race(tmp_path, {"b": "1"}, overwrite=False)
    take_race(tmp_path, {"a": "1", "b": "1"}, overwrite=True)
    with pytest.raises(InputError, match="different options, weights or cases for a"):
        take_race(tmp_path, {"a": "2", "c": "1"}, overwrite=False)
    assert all(path.exists() for path in left)
    take_race(tmp_path, {"a": "2", "c": "1"}, overwrite=True)
    assert not any(path.exists() for path in left)
    assert (tmp_path / "rank.csv").exists()
    take_race(tmp_path, {"a": "2", "b": "2"}, overwrite=False)  # b has not raced since
