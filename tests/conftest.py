"""Tiny data sets and configs that tests share."""

import contextlib
import gc
import os
import signal

# one thread for each parallel worker; NumPy and torch read this when they are imported
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_SILENT"] = "true"

import pytest
from tiny_cohort import write_tiny_cohort

# tests write many small files: into memory if it has room for 4 GB, and programs may run there
with contextlib.suppress(OSError):
    shm = os.statvfs("/dev/shm")
    roomy, runs = shm.f_bavail * shm.f_frsize > 4 << 30, not shm.f_flag & os.ST_NOEXEC
    if roomy and runs and os.access("/dev/shm", os.W_OK | os.X_OK):
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", "/dev/shm")

# a suite that a script starts in the background ignores Ctrl-C, which tests send to themselves
signal.signal(signal.SIGINT, signal.default_int_handler)

#: The slowest files, started first and in this order; if started last, they would run alone at the end.
LONG = (
    *("test_sweep_on_slurm", "test_fuzz_even", "test_fuzz_odd", "test_memory", "test_two_processes", "test_main_job"),
    *("test_layouts", "test_real_data", "test_nnunet_transfer", "test_methods", "test_processes", "test_two_as_one"),
    *("test_damage", "test_rank", "test_validity", "test_contradictions", "test_kills", "test_disk_full"),
    *("test_compare_report", "test_configs"),
)


# imported modules stay in memory, and looking for garbage in them takes a fifth of the time of the imports
gc.disable()


def pytest_collection_finish():
    gc.enable()
    gc.freeze()


def pytest_collection_modifyitems(items):
    """Puts the long files first (with xdist this needs --no-loadscope-reorder)."""
    order = {name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.stem, len(LONG)))


@pytest.fixture(scope="session")
def tiny_manifest(tmp_path_factory):
    """The manifest of a tiny cohort: three training cases, one for validation, two for test."""
    return write_tiny_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="session")
def even_manifest(tmp_path_factory):
    """The manifest of a tiny cohort whose four training cases two processes share evenly."""
    return write_tiny_cohort(tmp_path_factory.mktemp("even"), subjects=7)


@pytest.fixture(scope="module")
def no_pictures():
    """Small black pictures instead of figures, for modules that do not look at any."""
    from pictures import leave_out_figures

    with pytest.MonkeyPatch.context() as patch:
        leave_out_figures(patch.setattr)
        yield
