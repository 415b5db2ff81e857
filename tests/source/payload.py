"""Files that run code when they are unpickled carelessly."""

from pathlib import Path

import torch


class Payload:
    """Unpickled, it writes the marker file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (Path.write_text, (self.marker, "the payload ran"))


def write_bomb(path: Path, marker: Path, state, *, zipped: bool = True) -> Path:
    """Writes a checkpoint with the tensors of ``state`` that writes the marker when it is unpickled."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": state, "extra": Payload(marker)}, path, _use_new_zipfile_serialization=zipped)
    return path


def assert_real(path: Path, marker: Path) -> None:
    """Checks that nothing has run yet, and that the payload would have."""
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.read_text() == "the payload ran"
