"""The command, and the page as a reader uses it, in a headless Chromium."""

import csv
import math
import re
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser
from compare_study import CLASSES, write_maps, write_panel, write_run
from tiny_cohort import rotated_affine

from riskft.cli import main

SHAPE = (14, 11, 9)
HOSTILE = "</script><img src=x onerror=alert(1)> $_$"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two methods and a baseline, two seeds; a case is missing in one run; curves, panels, risk maps."""
    root = tmp_path_factory.mktemp("runs")
    for method, gain in (("vanilla", 0.0), ("riskft", 0.04), ("scratch", -0.2)):
        for seed in (0, 1):
            scores = {
                (f"case {i}", name): 0.5 + 0.03 * i + gain * (1 + 0.1 * i) + 0.01 * seed * j + 0.05 * j
                for i in range(6)
                for j, name in enumerate(("shell", HOSTILE))
            }
            if (method, seed) == ("scratch", 1):
                scores = {key: value for key, value in scores.items() if key[0] != "case 2"}
            folder = write_run(root / f"s/{method}/seed={seed}", "s", method, seed, scores, classes=("shell", HOSTILE))
            (folder / "metrics.csv").write_text(
                "step,train/loss,val/dice\n" + "".join(f"{10 * i + 9},{1 / (i + 1)},\n" for i in range(5)) + "49,,0.6\n"
            )
    folder = root / "s/riskft/seed=0"
    write_maps(folder, root / "cache", rotated_affine(), SHAPE)
    write_panel(folder, "val_v1")
    write_panel(folder, "train_t1")
    write_run(root / "s/source/seed=0", method="source")
    return root


@pytest.fixture(scope="module")
def report(runs, tmp_path_factory):
    """The report's folder."""
    out = tmp_path_factory.mktemp("report")
    main(["compare", str(runs), "--out", str(out), "--wandb", "true"])
    return out


def test_command_prints_and_writes_tables(runs, tmp_path, capsys):
    main(["compare", str(runs), "--out", str(tmp_path / "r")])
    printed = capsys.readouterr().out
    assert "source/seed=0: not tested, left out" in printed
    assert "not paired: s: scratch against vanilla: seed 1, case 2: not in the cases of scratch" in printed
    assert re.search(r"riskft +65\.[23] +\+5\.0", printed)
    with (tmp_path / "r/table.csv").open() as stream:
        row = {(row["method"], row["class_name"]): row for row in csv.DictReader(stream)}["scratch", "shell"]
    # -20, -22, -24, ... points: twice the cases but for the third, whose only pair counts once
    gains = [-20, -22, -24, -26, -28, -30]
    assert float(row["difference"]) == pytest.approx((2 * sum(gains) + 24) / 11)
    assert (row["cases"], row["seeds"], row["losses"], row["interval_over"]) == ("6", "2", "6", "seeds and cases")
    assert len((tmp_path / "r/cases.csv").read_text().splitlines()) == 1 + 5 * 12 + 10
    assert len((tmp_path / "r/unpaired.csv").read_text().splitlines()) == 2


@pytest.mark.parametrize(("metric", "expected"), [("dice", "riskft"), ("hd95_mm", "a control")])
def test_panels_are_those_of_the_best_method(tmp_path, metric, expected):
    for method, value in (("a control", 0.5), ("riskft", 0.6), ("vanilla", 0.4), ("unpaired", 0.9)):
        subjects = [f"{method if method == 'unpaired' else 'case'} {i}" for i in range(3)]
        scores = {(subject, name): value for subject in subjects for name in CLASSES}
        folder = write_run(tmp_path / f"s/{method}/seed=0", "s", method, 0, scores, metric)
        write_panel(folder, f"test_{subjects[0]}")
    main(["compare", str(tmp_path / "s"), "--metric", metric, "--out", str(tmp_path / "report")])
    captions = re.findall(r"<figcaption>([^<]*test case case 0[^<]*)", (tmp_path / "report/report.html").read_text())
    assert [caption.split(",")[0] for caption in captions] == [expected]


def test_nothing_is_overwritten_unasked(runs, report, capsys):
    before = (report / "report.html").read_text()
    with pytest.raises(SystemExit) as stopped:
        main(["compare", str(runs), "--out", str(report), "--metric", "dice"])
    assert stopped.value.code == 1
    assert "--overwrite" in capsys.readouterr().err
    main(["compare", str(runs), "--out", str(report), "--overwrite"])
    assert (report / "report.html").read_text() == before
    main(["compare", str(runs), "--out", str(report), "--overwrite", "true"])
    assert (report / "report.html").read_text() == before


def test_a_metric_without_values_and_other_baselines(runs, tmp_path, capsys):
    main(["compare", str(runs), "--out", str(tmp_path / "a"), "--baseline", "scratch"])
    with (tmp_path / "a/table.csv").open() as stream:
        baselines = {row["method"]: row["baseline"] for row in csv.DictReader(stream)}
    assert baselines == {"vanilla": "scratch", "riskft": "scratch", "scratch": "scratch"}
    # HD95 was not asked for in these runs: nothing is paired, and everything is named
    main(["compare", str(runs), "--out", str(tmp_path / "b"), "--metric", "hd95_mm"])
    with (tmp_path / "b/table.csv").open() as stream:
        assert all(math.isnan(float(row["difference"])) for row in csv.DictReader(stream))
    assert len((tmp_path / "b/unpaired.csv").read_text().splitlines()) > 20
    with pytest.raises(SystemExit):
        main(["compare", str(runs), "--out", str(tmp_path / "c"), "--baseline", "none"])
    assert "no none for riskft, scratch, vanilla" in capsys.readouterr().err


def test_tables_go_to_an_offline_wandb_run(report):
    (run,) = (report / "wandb").glob("offline-run-*")
    assert {path.name.split("_")[0] for path in (run / "files/media/table/compare").iterdir()} == {"table", "cases"}


def test_page_names_nothing_outside_itself(report):
    text = (report / "report.html").read_text()
    outside = set(re.findall(r"""(?:src|href)\s*=\s*["']?(?!data:|#)([^"'\s>]+)""", text)) - {"x"}
    assert {name for name in outside if not name.startswith("onerror")} == set()
    assert "@import" not in text
    assert HOSTILE not in text
    assert text.count("</script>") == 2


@pytest.mark.skipif(not CHROMIUM, reason="no chromium (Debian package chromium)")
@pytest.mark.parametrize("dark", [False, True])
def test_reader_clicks_through_the_page(report, tmp_path, dark):
    with Browser(tmp_path / "profile", dark=dark) as browser:
        browser.open(report / "report.html")
        _sort(browser)
        _look_around(browser)
        colours = browser.run(
            "(() => { const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]; })()"
        )
        ink, paper = (sum(map(int, re.findall(r"\d+", colour))) for colour in colours)
        assert (ink > paper) == dark
        assert browser.run(UNNAMED) == []
        # on a telephone only tables and figures scroll sideways, each by itself
        browser.send("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=True)
        assert browser.run("document.documentElement.scrollWidth") == 390
        browser.screenshot(tmp_path / "page.png")
        assert (tmp_path / "page.png").stat().st_size > 10_000
        assert browser.errors == []
        outside = [url for url in browser.requests if not url.startswith("data:")]
        assert outside == [(report / "report.html").resolve().as_uri()]


# what a screen reader could not name
UNNAMED = """
[...document.querySelectorAll("img, svg, canvas, input, select, button, [role=region]")].filter((e) => !(
  e.alt || e.ariaLabel || e.getAttribute("aria-label") || (e.labels && e.labels.length) || e.textContent.trim()
)).map((e) => e.outerHTML.slice(0, 80))
"""


def _column(browser, at):
    return browser.run(
        f"[...document.querySelectorAll('table.sortable')[0].tBodies[0].rows].map((row) => row.cells[{at}].textContent)"
    )


def _sort(browser):
    """By number, upwards and downwards, gaps last; by text; by keyboard."""
    header = "table.sortable thead th:nth-child(5)"
    assert _column(browser, 1) == ["vanilla", "riskft", "scratch"]
    browser.click(f"{header} button")
    assert _column(browser, 1) == ["scratch", "riskft", "vanilla"]
    assert browser.run(f"document.querySelector('{header}').ariaSort") == "ascending"
    browser.click(f"{header} button")
    assert _column(browser, 1) == ["riskft", "scratch", "vanilla"]
    browser.run("document.querySelector('table.sortable thead th:nth-child(2) button').focus()")
    browser.press(" ", 32)
    assert _column(browser, 1) == ["riskft", "scratch", "vanilla"]
    assert browser.run(f"document.querySelector('{header}').ariaSort") is None


def _look_around(browser):
    """Sliders, clicks, keys, the other case and map; what is said is what the files hold."""
    assert browser.run("[...document.querySelector('[data-part=case]').options].map((o) => o.text)") == [
        "s, riskft: v1 (validation)",
        "s, riskft: t1 (training)",
    ]
    # the label's middle in RAS: x is turned, 13 - 4.5, 5.5, 3.5
    assert _said(browser) == "x 9, y 6, z 4: transfer hardness (nats) 2.00, weight in the loss 1.20, label " + HOSTILE
    before = _picture(browser, "sagittal")
    browser.run("(() => { const s = document.querySelector('[data-part=sagittal-slider]'); s.value = 0;"
                "s.dispatchEvent(new Event('input')); })()")  # fmt: skip
    assert _said(browser).startswith("x 0, y 6, z 4: transfer hardness (nats) 0.10")
    assert _picture(browser, "sagittal") != before
    # coronal, the left upper corner is the subject's right and top
    browser.click("[data-part=coronal]", 0.01, 0.01)
    assert _said(browser).startswith("x 13, y 6, z 8:")
    for key, code, place in (("ArrowRight", 39, "x 12, y 6, z 8"), ("ArrowDown", 40, "x 12, y 6, z 7"),
                             ("PageDown", 34, "x 12, y 5, z 7")):  # fmt: skip
        browser.press(key, code)
        assert _said(browser).startswith(place + ":")
    browser.click("[data-part=sagittal]", 0.99, 0.99)
    assert _said(browser).startswith("x 12, y 10, z 0:")
    choose = "(() => {{ const s = document.querySelector('[data-part={}]'); s.selectedIndex = {};"
    browser.run((choose + "s.dispatchEvent(new Event('change')); }})()").format("case", 1))
    assert "transfer hardness (nats) 3.00" in _said(browser)
    before = _picture(browser, "axial")
    browser.run((choose + "s.dispatchEvent(new Event('input')); }})()").format("map", 1))
    assert browser.run("document.querySelector('[data-part=legend]').textContent").startswith("1.011.30")
    browser.click("[data-part=border]")
    assert _picture(browser, "axial") != before


def _said(browser):
    return browser.run("document.querySelector('[data-part=readout]').textContent")


def _picture(browser, plane):
    return browser.run(f"document.querySelector('[data-part={plane}]').toDataURL()")


@pytest.mark.skipif(not CHROMIUM, reason="no chromium (Debian package chromium)")
def test_page_without_maps_works_too(runs, tmp_path):
    main(["compare", str(runs / "s/vanilla"), str(runs / "s/scratch"), "--out", str(tmp_path / "r")])
    with Browser(tmp_path / "profile") as browser:
        browser.open(tmp_path / "r/report.html")
        _sorted_by_method = "table.sortable thead th:nth-child(2) button"
        browser.click(_sorted_by_method)
        assert _column(browser, 1) == ["scratch", "vanilla"]
        assert browser.run("document.getElementById('viewer')") is None
        assert browser.errors == []


def test_reports_assets_are_packaged():
    text = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text()
    assert '"compare/assets/*"' in text
