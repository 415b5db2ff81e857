"""Tiny data sets and configs that tests share."""

import os

import pytest
from tiny_cohort import write_tiny_cohort

# tests run side by side; each one's share of the cores
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_SILENT"] = "true"


@pytest.fixture(scope="session")
def tiny_manifest(tmp_path_factory):
    """The manifest of a tiny cohort: three training cases, one for validation, two for test."""
    return write_tiny_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="session")
def even_manifest(tmp_path_factory):
    """The manifest of a tiny cohort whose four training cases two processes share evenly."""
    return write_tiny_cohort(tmp_path_factory.mktemp("even"), subjects=7)
