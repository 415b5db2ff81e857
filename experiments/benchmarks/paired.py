"""Times two ways to do the same thing alternately, in one process on one thread, and writes the ratios.

A script of this folder gives ``main`` a function that yields its rows:

    def rows(options: argparse.Namespace) -> Iterator[Row]:
        yield paired("loss, fp32", "MONAI DiceCELoss", ours, peer, aim=0.7, rounds=1 if options.smoke else 7)

    if __name__ == "__main__":
        main("losses", rows)

It measures CPU time, not wall time, and takes the ratio of each pair: other load slows both calls of a pair alike.
"""

import argparse
import csv
import ctypes
import os
import resource
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for torch, if it is imported later, and for child processes


@dataclass(frozen=True)
class Row:
    """One line of the table.

    For a limit that is not a ratio (seconds, bytes), ``against`` and ``peer`` are the limit and ``aim`` is 1.

    Args:
        what: What riskft does.
        against: What it is compared with.
        unit: Unit of ``ours`` and ``peer``, such as ``s CPU`` or ``MB``.
        ours: Median of riskft's measurements.
        peer: Median of the other's measurements.
        ratio: Median of the pairs' ratios.
        low: Lowest ratio.
        high: Highest ratio.
        aim: Ratio to stay at or below; None without an aim.
    """

    what: str
    against: str
    unit: str
    ours: float
    peer: float
    ratio: float
    low: float
    high: float
    aim: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the median ratio is at or below the aim; None without an aim."""
        return None if self.aim is None else self.ratio <= self.aim


def row(
    what: str, against: str, unit: str, ours: Sequence[float], peer: Sequence[float], aim: float | None = None
) -> Row:
    """Returns the row of paired measurements: ``ours[i]`` was taken next to ``peer[i]``."""
    ratios = [one / other for one, other in zip(ours, peer, strict=True)]
    medians = statistics.median(ours), statistics.median(peer)
    return Row(what, against, unit, *medians, statistics.median(ratios), min(ratios), max(ratios), aim)


def cpu_time() -> float:
    """Returns the CPU time in seconds of this process and the children that it has waited for."""
    used = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(one.ru_utime + one.ru_stime for one in used)


def seconds(function: Callable[[], object]) -> float:
    """Returns the CPU time in seconds of one call; see ``cpu_time``."""
    start = cpu_time()
    function()
    return cpu_time() - start


def paired(
    what: str,
    against: str,
    ours: Callable[[], object],
    peer: Callable[[], object],
    *,
    aim: float | None = None,
    rounds: int = 7,
    warmup: int = 1,
) -> Row:
    """Times both alternately, A B A B ..., after ``warmup`` calls of each that do not count; see ``cpu_time``."""
    for _ in range(warmup):
        ours()
        peer()
    times = [(seconds(ours), seconds(peer)) for _ in range(rounds)]
    return row(what, against, "s CPU", [one for one, _ in times], [other for _, other in times], aim)


def peaks(
    what: str,
    against: str,
    ours: Callable[[], object],
    peer: Callable[[], object],
    *,
    aim: float | None = None,
    rounds: int = 3,
) -> Row:
    """Measures how far each raises the resident memory at its peak, each call in a forked process."""
    found = [(peak(ours), peak(peer)) for _ in range(rounds)]
    return row(what, against, "MB", [one for one, _ in found], [other for _, other in found], aim)


def peak(function: Callable[[], object]) -> float:
    """Returns by how many MB a call raises the resident memory at its peak, in a forked process. Linux only.

    Raises:
        RuntimeError: If the call failed; its traceback is on standard error.
    """
    read, write = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            ctypes.CDLL(None).malloc_trim(0)  # or the call would use memory that the parent freed, uncounted
            Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
            start = _status("VmRSS")
            function()
            os.write(write, str((_status("VmHWM") - start) / 1000).encode())
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    if not text:
        raise RuntimeError("a measurement of memory failed in its process, see above")
    return float(text)


def _status(name: str) -> int:
    """Returns an entry of /proc/self/status in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Writes rows as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(field.name for field in fields(Row))
        for one in rows:
            values = asdict(one).values()
            writer.writerow(f"{value:.6g}" if isinstance(value, float) else value for value in values)


def read_rows(path: Path) -> list[Row]:
    """Reads what ``write_rows`` wrote."""
    with path.open(newline="") as file:
        return [
            Row(
                what=entry["what"],
                against=entry["against"],
                unit=entry["unit"],
                ours=float(entry["ours"]),
                peer=float(entry["peer"]),
                ratio=float(entry["ratio"]),
                low=float(entry["low"]),
                high=float(entry["high"]),
                aim=float(entry["aim"]) if entry["aim"] else None,
            )
            for entry in csv.DictReader(file)
        ]


def markdown(rows: Iterable[Row]) -> str:
    """Returns the table of rows."""
    head = "what", "against", "ours", "peer", "ratio (lowest to highest)", "aim", "met"
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for one in rows:
        spread = f"{one.ratio:.2f} ({one.low:.2f} to {one.high:.2f})"
        aim = ("", "") if one.aim is None else (f"{one.aim:.3g}", "yes" if one.met else "**no**")
        cells = one.what, one.against, f"{one.ours:.3g} {one.unit}", f"{one.peer:.3g} {one.unit}", spread, *aim
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(
    name: str, rows: Callable[[argparse.Namespace], Iterable[Row]], arguments: Sequence[str] | None = None
) -> None:
    """The command line of a script: measures, prints each row as soon as it is known, and writes ``OUT/<name>.csv``.

    Args:
        name: Name of the CSV file.
        rows: Yields the rows, given the options ``out`` (a Path) and ``smoke``.
        arguments: The command line, by default that of this process.
    """
    parser = argparse.ArgumentParser(description=f"Measure {name}.")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"), help="folder of the CSV file")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes and one round, to check that the script works")
    options = parser.parse_args(arguments)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
    found: list[Row] = []
    for one in rows(options):
        print(markdown([one]).splitlines()[-1], flush=True)
        found.append(one)
    write_rows(options.out / f"{name}.csv", found)
