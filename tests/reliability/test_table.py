"""The table of faults names tests that exist."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "experiments/reliability/README.md"


def named() -> list[tuple[str, str]]:
    return re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", README.read_text(encoding="utf-8"))


def test_there_are_enough_rows():
    faults = README.read_text(encoding="utf-8").partition("## Decisions")[0]
    rows = [line for line in faults.splitlines() if line.startswith("| ") and not line.endswith("| test |")]
    assert len(rows) >= 40
    assert all(re.search(r"\| `tests/[\w/]+\.py::\w+` \|$", row) for row in rows)
    assert len(set(named())) == len(named())


def test_every_named_test_exists():
    functions: dict[str, set[str]] = {}
    for file, _ in named():
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        functions[file] = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert [f"{file}::{name}" for file, name in named() if name not in functions[file]] == []


def test_every_fault_has_a_row():
    """Tests of faults that a whole run meets stand in the table; their parts need not."""
    kept = {name for _, name in named()}
    for file in ("test_kills.py", "test_folder.py", "test_two_as_one.py"):
        tree = ast.parse((ROOT / "tests/reliability" / file).read_text(encoding="utf-8"))
        tests = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}
        assert tests - kept <= {"test_paths_of_checkpoints_with_dots"}
