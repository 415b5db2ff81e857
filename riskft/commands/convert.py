"""``riskft convert``: writes a checkpoint's weights alone to a file that is safe to load."""

from collections.abc import Sequence
from pathlib import Path

from riskft.arguments.parser import CommandParser


def main(arguments: Sequence[str]) -> None:
    """Runs ``riskft convert OLD NEW``."""
    parser = CommandParser(
        prog="riskft convert",
        description="Write a checkpoint's weights alone to NEW, from which they load without running any code.",
    )
    parser.add_argument("old", type=Path, help="checkpoint file, pickled module or TorchScript program")
    parser.add_argument("new", type=Path, help="file to write: .safetensors, .pt or .pth")
    parser.add_argument(
        "--trust-pickle",
        type=bool,
        default=False,
        help="unpickle Python objects in OLD, which runs whatever code the file names: only for files that you trust",
    )
    parser.add_argument("--overwrite", type=bool, default=False, help="replace NEW")
    options = parser.parse_args(list(arguments))
    from rich.console import Console

    from riskft.source.convert import convert

    count = convert(options.old, options.new, trust_pickle=options.trust_pickle, overwrite=options.overwrite)
    Console().print(f"{options.new}: {count} tensors", soft_wrap=True)
