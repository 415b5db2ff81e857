"""Label descriptions for ITK-SNAP and 3D Slicer, read as these programs do."""

import shlex

from riskft.data.io.colour_tables import itk_snap_labels, slicer_labels

NAMES = ["background", "grey matter", 'the "core"']


def test_itk_snap():
    rows = [shlex.split(line) for line in itk_snap_labels(NAMES).splitlines() if not line.startswith("#")]
    assert [len(row) for row in rows] == [8, 8, 8]
    assert [row[0] for row in rows] == ["0", "1", "2"]
    assert [row[4:7] for row in rows] == [["0", "0", "0"], ["1", "1", "1"], ["1", "1", "1"]]
    assert [row[7] for row in rows] == ["background", "grey matter", "the 'core'"]
    assert len({tuple(row[1:4]) for row in rows}) == 3


def test_slicer():
    rows = [line.split() for line in slicer_labels(NAMES).splitlines() if not line.startswith("#")]
    assert [row[:2] for row in rows] == [["0", "background"], ["1", "grey_matter"], ["2", 'the_"core"']]
    assert [row[5] for row in rows] == ["0", "255", "255"]


def test_more_classes_than_colours():
    assert len(itk_snap_labels([str(index) for index in range(300)]).splitlines()) == 301
