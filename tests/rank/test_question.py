"""A folder of results belongs to one question."""

import copy

import pytest

from riskft.errors import InputError
from riskft.rank.question import question, take_folder, take_race

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
    assert not take_folder(path, question(CONFIG), overwrite=False)
    same = changed(data__cache_dir="b", trainer__accelerator="gpu", run__method="x", model__source__checkpoint="b.pt")
    assert not take_folder(path, same, overwrite=False)
    for other in (changed(data__modalities=["t2"]), changed(trainer__max_epochs=4), changed(seed_everything=1)):
        with pytest.raises(InputError) as error:
            take_folder(path, other, overwrite=False)
        assert len(error.value.problems) == 1
    with pytest.raises(InputError, match=r"trainer\.max_epochs: 3 there, 4 here"):
        take_folder(path, changed(trainer__max_epochs=4), overwrite=False)
    assert take_folder(path, changed(data__modalities=["t2"]), overwrite=True)
    assert not take_folder(path, changed(data__modalities=["t2"]), overwrite=False)


def test_a_race_of_other_weights_starts_again_only_if_asked(tmp_path):
    path = tmp_path / "raced.json"
    assert not take_race(path, {"a": "1"}, overwrite=False)
    assert not take_race(path, {"b": "1"}, overwrite=False)
    assert not take_race(path, {"a": "1", "b": "1"}, overwrite=False)
    with pytest.raises(InputError, match="of a were others"):
        take_race(path, {"a": "2", "c": "1"}, overwrite=False)
    assert take_race(path, {"a": "2", "c": "1"}, overwrite=True)
    assert not take_race(path, {"a": "2", "b": "2"}, overwrite=False)  # b has not raced since
