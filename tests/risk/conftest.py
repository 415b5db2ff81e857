"""Prepared cases that the tests of phase 1 share and do not change."""

import pytest
from risk_cases import prepare, write_case

from riskft.data.prepare.cache import PreparedCase


@pytest.fixture(scope="session")
def risk_prepared(tmp_path_factory: pytest.TempPathFactory) -> list[PreparedCase]:
    """Six cases; their subjects are not in the order of their names."""
    folder = tmp_path_factory.mktemp("risk")
    subjects = ["s3", "s1", "s 2", "s5", "s4", "s0"]
    return prepare(folder / "cache", [write_case(folder / "raw", name, seed) for seed, name in enumerate(subjects)])
