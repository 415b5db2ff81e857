"""Files as they come: broken, of another kind, or not there at all. Each function spoils one file in place."""

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import nibabel as nib
import numpy as np
import torch
import yaml
from monai.networks.nets import UNet

Spoil = Callable[[Path, Random], str]
JUNK = (None, "", "x", -1, 0, 3, 1.5, float("nan"), True, [], {}, [1], ["a"], {"a": 1}, "missing/file", [[]], 10**9)


class Payload:
    """Unpickled, it makes a folder called ``payload``."""

    def __reduce__(self) -> Any:
        return (os.mkdir, ("payload",))


# -- any file ---------------------------------------------------------------------------------------------------------


def anything(path: Path, random: Random) -> str:
    """Replaces a file by something of another kind."""
    kind = random.choice(("missing", "empty", "folder", "dangling", "binary", "text", "cut", "bit"))
    content = path.read_bytes()
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "dangling":
        path.symlink_to("nowhere")
    elif kind != "missing":
        cut = len(content) // 2
        flipped = content[:cut] + bytes([content[cut] ^ 0xFF]) + content[cut + 1 :] if content else b""
        contents = {"binary": random.randbytes(300), "text": b"not what you expect\n", "cut": content[:cut]}
        path.write_bytes({"empty": b"", "bit": flipped, **contents}[kind])
    return kind


# -- checkpoints ------------------------------------------------------------------------------------------------------


def checkpoint(path: Path, random: Random) -> str:
    """Writes a checkpoint of another kind."""
    state = UNet(3, 1, 2, (4, 8), (2,)).state_dict()
    kinds: dict[str, Any] = {
        "pickle with code": {"state_dict": state, "more": Payload()},
        "optimizer only": {"optimizer": torch.optim.Adam(UNet(3, 1, 2, (4, 8), (2,)).parameters()).state_dict()},
        "another network": UNet(3, 1, 2, (4, 8, 16), (2, 2)).state_dict(),
        "other channels": UNet(3, 2, 2, (4, 8), (2,)).state_dict(),
        "other classes": UNet(3, 1, 5, (4, 8), (2,)).state_dict(),
        "two-dimensional": UNet(2, 1, 2, (4, 8), (2,)).state_dict(),
        "NaN": {name: torch.full_like(value, torch.nan) for name, value in state.items()},
        "half precision": {name: value.half() for name, value in state.items()},
        "integers": {name: value.long() for name, value in state.items()},
        "no weights": {},
        "a number": 3,
        "a list": [*state.values()],
        "a tensor": torch.zeros(3),
        "names alone": dict.fromkeys(state, "x"),
        "prefixes": {"a": {f"module.net.{name}": value for name, value in state.items()}, "b": state},
        "two networks": {f"{kind}.{name}": value for kind in ("teacher", "student") for name, value in state.items()},
        "sparse": {name: value.to_sparse() for name, value in state.items()},
        "scalars": {name: torch.tensor(1.0) for name in state},
        "a whole module": UNet(3, 1, 2, (4, 8), (2,)),
    }
    kind = random.choice([*kinds, "zip", "json", "an old file"])
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", b"\x80\x02}q\x00.")
    elif kind == "json":
        path.write_text(json.dumps({"state_dict": {"a": [1, 2]}}))
    elif kind == "an old file":
        torch.save(state, path, _use_new_zipfile_serialization=False)
    else:
        torch.save(kinds[kind], path)
    return kind


def trained(path: Path, random: Random) -> str:
    """Spoils a checkpoint of a run from inside."""
    content = torch.load(path, weights_only=True)
    kind = random.choice([*content, "NaN", "another network", "half of the weights", "renamed weights"])
    state = content["state_dict"]
    if kind == "NaN":
        content["state_dict"] = {name: value * torch.nan for name, value in state.items()}
    elif kind == "another network":
        content["state_dict"] = {
            name: value.repeat(2, *[1] * (value.ndim - 1)) for name, value in state.items() if value.ndim
        }
    elif kind == "half of the weights":
        content["state_dict"] = dict([*state.items()][: len(state) // 2])
    elif kind == "renamed weights":
        content["state_dict"] = {f"module.{name}": value for name, value in state.items()}
    elif random.random() < 0.5:
        del content[kind]
        kind = f"without {kind}"
    else:
        content[kind] = random.choice(JUNK)
        kind = f"{kind} is {content[kind]!r}"
    torch.save(content, path)
    return kind


# -- volumes ----------------------------------------------------------------------------------------------------------


def volume(path: Path, random: Random) -> str:
    """Writes a volume that is not what it was."""
    image = nib.load(path)
    data, affine = np.asarray(image.dataobj).astype(np.float32), image.affine
    odd = affine.copy()
    odd[:3, 0] = 0
    tiny, sheared = affine.copy(), affine.copy()
    tiny[:3, :3] /= 1000
    sheared[0, 1] += 1.5
    kinds: dict[str, tuple[Any, Any]] = {
        "two-dimensional": (data[..., 0], affine),
        "five-dimensional": (data[..., None, None], affine),
        "two channels": (np.stack([data, data], -1), affine),
        "NaN": (data * np.nan, affine),
        "infinite": (data + np.inf, affine),
        "constant": (data * 0, affine),
        "negative": (-data - 1, affine),
        "huge": (data.astype(np.float64) * 1e300, affine),
        "fractions": (data + 0.4, affine),
        "large labels": (data * 1000, affine),
        "smaller": (data[2:], affine),
        "one slice": (data[..., :1], affine),
        "one voxel": (data[:1, :1, :1], affine),
        "elsewhere": (data, affine + np.eye(4) * [30, 0, 0, 0]),
        "singular": (data, odd),
        "micrometres": (data, tiny),
        "sheared": (data, sheared),
        "complex": (data.astype(np.complex64), affine),
    }
    kind = random.choice([*kinds, "text", "not zipped", "other file"])
    if kind == "text":
        path.write_text("subject,split\n")
    elif kind == "not zipped":
        nib.save(image, path.with_suffix("").with_suffix(".nii"))
        shutil.move(path.with_suffix("").with_suffix(".nii"), path)
    elif kind == "other file":
        np.savez(path.with_suffix(".npz"), data)
        shutil.move(path.with_suffix(".npz"), path)
    else:
        saved = nib.Nifti1Image(kinds[kind][0], None)
        saved.header.set_sform(kinds[kind][1], 1)
        nib.save(saved, path)
    return kind


# -- text files -------------------------------------------------------------------------------------------------------


def text(path: Path, random: Random) -> str:
    """Spoils the bytes of a text file as editors and other systems do."""
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    number = random.randrange(len(lines)) if lines else 0
    kinds: dict[str, bytes] = {
        "BOM": b"\xef\xbb\xbf" + content,
        "UTF-16": content.decode(errors="replace").encode("utf-16"),
        "Latin-1": content.replace(b"a", "ä".encode("latin-1"), 2),
        "CRLF": content.replace(b"\n", b"\r\n"),
        "NUL": content[: len(content) // 2] + b"\0" + content[len(content) // 2 :],
        "tabs": content.replace(b"  ", b"\t"),
        "semicolons": content.replace(b",", b";"),
        "a line less": b"".join(lines[:number] + lines[number + 1 :]),
        "a line twice": b"".join([*lines[: number + 1], *lines[number:]]),
        "first line alone": b"".join(lines[:1]),
        "first line gone": b"".join(lines[1:]),
        "blank lines": content.replace(b"\n", b"\n\n"),
        "quote": content.replace(b",", b',"', 1),
        "a field less": content.replace(b",", b"", 1),
        "a field more": content.replace(b"\n", b",more\n"),
        "half a line": content[: max(0, len(content) - 9)],
        "words": content.replace(b"0", b"zero"),
    }
    kind = random.choice([*kinds])
    path.write_bytes(kinds[kind])
    return kind


def structure(path: Path, random: Random) -> str:
    """Drops, renames or replaces one node of a YAML or JSON file."""
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, ValueError):
        return text(path, random)
    what = random.choice(("drop", "rename", "replace", "replace", "wrap", "add", "top"))
    places = [*_places(content)]
    if what == "top" or not places:
        content, said = (value := random.choice(JUNK)), f"the whole is {value!r}"
    else:
        holder, key = random.choice(places)
        said = f"{what} {key!r}"
        value = holder[key]
        if what == "drop":
            del holder[key]
        elif what == "rename" and isinstance(holder, dict):
            holder[f"{key}x"] = holder.pop(key)
        elif what == "wrap":
            holder[key] = random.choice(([value], {"a": value}))
        elif what == "add" and isinstance(value, dict):
            value["nothing"] = random.choice(JUNK)
        else:
            holder[key] = random.choice(JUNK)
            said = f"{key!r} is {holder[key]!r}"
    path.write_text(json.dumps(content) if path.suffix == ".json" else yaml.safe_dump(content, sort_keys=False))
    return said


def _places(node: Any) -> Any:
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in list(pairs):
        yield node, key
        yield from _places(value)
