"""Names and colours of the classes, as ITK-SNAP and 3D Slicer read them."""

from collections.abc import Sequence

#: Colours that people with colour blindness can tell apart (Okabe and Ito), red, green, blue; repeated if needed.
COLOURS = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
    (255, 255, 255),
)


def itk_snap_labels(class_names: Sequence[str]) -> str:
    """Returns an ITK-SNAP label description file of classes by index, background first, which is transparent."""
    lines = ["# ITK-SNAP label description: index, red, green, blue, opacity, visible, mesh, name"]
    for index, name in enumerate(class_names):
        shown = int(index > 0)
        red, green, blue = _colour(index)
        quoted = name.replace('"', "'")
        lines.append(f'{index:5d} {red:5d} {green:4d} {blue:4d} {shown:8d} {shown} {shown}    "{quoted}"')
    return "\n".join(lines) + "\n"


def slicer_labels(class_names: Sequence[str]) -> str:
    """Returns a 3D Slicer colour table of classes by index, background first; blanks in names become ``_``."""
    lines = [f"# 3D Slicer colour table: {len(class_names)} values; index, name, red, green, blue, opacity"]
    for index, name in enumerate(class_names):
        lines.append(" ".join(map(str, (index, "_".join(name.split()), *_colour(index), 255 * (index > 0)))))
    return "\n".join(lines) + "\n"


def _colour(index: int) -> tuple[int, int, int]:
    return COLOURS[(index - 1) % len(COLOURS)] if index else (0, 0, 0)
