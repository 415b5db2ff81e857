"""Names of a run's files of phase 1: whatever subjects are called, and wherever the store was moved."""

import json

import pytest

from riskft.files import safe_name
from riskft.run.risk import RunRisk


@pytest.mark.parametrize(
    ("subject", "name"), [("..", "%2E%2E"), (".", "%2E"), ("a.b", "a.b"), ("a/b", "a%2Fb"), ("a b+(1)", "a b+(1)")]
)
def test_a_subject_as_a_file_name(subject, name):
    assert safe_name(subject) == name


def test_the_store_is_found_beside_the_run_first(tmp_path):
    run, maps = RunRisk(tmp_path / "run/risk"), tmp_path / "store/inputs/options"
    run.path.mkdir(parents=True)
    assert run.store() is None
    run.summary.write_text(json.dumps(run.places(maps)))
    assert run.store().weights_folder == maps  # where it was, though it is not there
    run.summary.write_text(json.dumps({**run.places(maps), "maps": "/elsewhere"}))
    maps.mkdir(parents=True)
    assert run.store().weights_folder == maps
    run.summary.write_text(json.dumps({"maps": str(maps)}))
    assert run.store().weights_folder == maps
    run.summary.write_text(json.dumps({}))
    assert run.store() is None
