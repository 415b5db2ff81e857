"""Which runs go together, and what is said of those that do not."""

import pytest

from riskft.errors import InputError
from riskft.validity.pairs import find_pairs


def write_run(root, method, seed=0, source="source.ckpt", study="s", trained=True, phase=True):
    folder = root / study / method / f"seed={seed}"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(
        f"seed_everything: {seed}\nrun: {{study: {study}, method: '{method}'}}\n"
        f"model: {{source: {{checkpoint: {source}}}}}\n"
    )
    if trained:
        (folder / "checkpoints/best.ckpt").touch()
    if phase:
        (folder / "risk").mkdir()
        for name in ("summary", "manifest"):
            (folder / f"risk/{name}.json").write_text("{}")
    return folder


def scratch_run(root, method="scratch", **more):
    return write_run(root, method, source="null", phase=False, **more)


def test_runs_are_paired_by_study_seed_and_what_a_sweep_varies(tmp_path):
    for seed in (1, 0):
        write_run(tmp_path, "vanilla", seed)
        scratch_run(tmp_path, seed=seed)
    write_run(tmp_path, "vanilla,train_limit=4")
    scratch_run(tmp_path, "scratch,train_limit=4")
    write_run(tmp_path, "vanilla,lr=1")
    pairs = find_pairs([tmp_path / "s"], [path for path in (tmp_path / "s").iterdir() if "scratch" in path.name])
    assert [(p.run.method, p.run.seed, p.scratch.method, p.scratch.seed) for p in pairs] == [
        ("vanilla", 0, "scratch", 0),
        ("vanilla", 1, "scratch", 1),
        ("vanilla,lr=1", 0, "scratch", 0),
        ("vanilla,train_limit=4", 0, "scratch,train_limit=4", 0),
    ]


def test_all_reasons_in_one_report(tmp_path):
    folders = {
        "without phase 1": write_run(tmp_path, "plain", phase=False),
        "not trained": write_run(tmp_path, "new", trained=False),
        "from scratch itself": scratch_run(tmp_path, "other"),
        "without partner": write_run(tmp_path, "vanilla", seed=5),
    }
    false = write_run(tmp_path, "tuned")
    with pytest.raises(InputError) as caught:
        find_pairs(list(folders.values()), [false])
    text = str(caught.value)
    assert f"{folders['without phase 1']}: has no risk/summary.json" in text
    assert f"{folders['not trained']}: has no checkpoint" in text
    assert f"{folders['from scratch itself']}: was trained from scratch" in text
    assert f"{folders['without partner']}: needs exactly one run from scratch of study s and seed 5" in text
    assert f"{false}: was not trained from scratch, but from source.ckpt" in text
    assert len(caught.value.problems) == 5


def test_two_partners_are_one_too_many(tmp_path):
    run = write_run(tmp_path, "vanilla")
    partners = [scratch_run(tmp_path, "scratch"), scratch_run(tmp_path, "scratch2")]
    with pytest.raises(InputError, match=r"--scratch has .*scratch.* and .*scratch2"):
        find_pairs([run], partners)
    with pytest.raises(InputError, match="all runs are also given as --scratch"):
        find_pairs(partners, partners)
    with pytest.raises(InputError, match="no such folder"):
        find_pairs([run], [tmp_path / "absent"])
