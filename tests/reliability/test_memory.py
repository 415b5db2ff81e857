"""The benchmark of memory, small."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "experiments/benchmarks/memory.py"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the memory of processes from /proc")
def test_memory_does_not_grow_with_the_number_of_volumes(tmp_path):
    done = subprocess.run(
        # 26 volumes more, with label and map: 138 MB, a quarter of what a process needs; peaks vary by a tenth
        [
            *(sys.executable, str(SCRIPT), str(tmp_path), "--cases", "8", "34", "--shape", "96", "96", "64"),
            *("--workers", "0", "--limit", "1.15", "--glibc"),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "| phase 1 | " in done.stdout
    assert "| an epoch and its validation | " in done.stdout
    assert list(tmp_path.iterdir()) == []
