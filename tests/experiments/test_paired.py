"""The benchmarks measure right, against known values."""

import time

import numpy as np
import paired
import pytest


def busy(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_pairs_are_called_in_turn_and_timed_in_cpu_seconds():
    called = []
    one = paired.paired(
        "a",
        "b",
        lambda: (called.append("a"), busy(0.04), time.sleep(0.05)),
        lambda: (called.append("b"), busy(0.02)),
        aim=1.5,
        rounds=3,
    )
    assert "".join(called) == "ab" * 4
    assert one.ours == pytest.approx(0.04, rel=0.2)
    assert one.peer == pytest.approx(0.02, rel=0.2)
    assert one.low <= one.ratio <= one.high
    assert one.ratio == pytest.approx(2, rel=0.3)
    assert not one.met


def test_a_row_has_the_median_of_the_ratios_not_the_ratio_of_the_medians():
    one = paired.row("a", "b", "s", [1, 2, 9], [2, 1, 3], aim=2)
    assert (one.ours, one.peer, one.ratio, one.low, one.high) == (2, 2, 2, 0.5, 3)
    assert one.met


def test_peaks_count_what_was_freed_again_and_what_the_parent_had_freed():
    np.ones(30_000_000, np.uint8).sum()
    one = paired.peaks(
        "a", "b", lambda: np.ones(80_000_000, np.uint8)[0], lambda: np.ones(40_000_000, np.uint8)[0], rounds=1
    )
    assert one.ours == pytest.approx(80, abs=4)
    assert one.peer == pytest.approx(40, abs=4)


def test_a_failed_measurement_of_memory_is_an_error(capfd):
    with pytest.raises(RuntimeError, match="failed in its process"):
        paired.peak(lambda: 1 / 0)
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_a_script_prints_its_rows_and_writes_them(tmp_path, capsys):
    def rows(options):
        assert options.smoke
        yield paired.Row("a, with b", "c", "MB", 1.0, 2.0, 0.5, 0.25, 0.75, 1.0)
        yield paired.Row("d", "e", "s CPU", 3.0, 2.0, 1.5, 1.5, 1.5, 1.2)
        yield paired.Row("f", "g", "s CPU", 3.0, 2.0, 1.5, 1.5, 1.5)

    paired.main("some", rows, ["--out", str(tmp_path / "new"), "--smoke"])
    assert capsys.readouterr().out.splitlines() == [
        "| a, with b | c | 1 MB | 2 MB | 0.50 (0.25 to 0.75) | 1 | yes |",
        "| d | e | 3 s CPU | 2 s CPU | 1.50 (1.50 to 1.50) | 1.2 | **no** |",
        "| f | g | 3 s CPU | 2 s CPU | 1.50 (1.50 to 1.50) |  |  |",
    ]
    assert paired.read_rows(tmp_path / "new/some.csv") == list(rows(type("options", (), {"smoke": True})))
