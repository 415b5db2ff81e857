"""Makes an environment with the peers that are not among riskft's dependencies: nnU-Net v2 and batchgeneratorsv2.

    python experiments/benchmarks/peers.py [FOLDER]

The environment sees the packages of the Python that runs this, so that both sides compute with the same torch; what the
peers need in another version is installed into the environment itself, which comes first.
"""

import argparse
import importlib.metadata
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

PACKAGES = ("nnunetv2>=2.6,<3", "batchgeneratorsv2>=0.3")
INSTALLED = " ".join(PACKAGES) + "\n"
FOLDER = Path("runs/benchmarks/peers")

# stands in for timm, which nnU-Net's package of networks imports for networks that are not used here, and which needs
# a torchvision built for exactly the installed torch
STAND_IN = """
def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (), {})
"""
TIMM = {
    "timm/__init__.py": "",
    "timm/layers.py": STAND_IN,
    "timm/models/__init__.py": "",
    "timm/models/eva.py": STAND_IN,
    "timm-1.0.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: timm\nVersion: 1.0.0\n",
    "timm-1.0.0.dist-info/INSTALLER": "riskft\n",
}


def python(folder: Path = FOLDER) -> Path | None:
    """Returns the Python of the environment, or None if it has not been made."""
    complete = folder / "complete"
    return folder.absolute() / "bin/python" if complete.is_file() and complete.read_text() == INSTALLED else None


def environment() -> dict[str, str]:
    """Returns the environment variables for the peers: this process's own without its path to riskft."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def make(folder: Path = FOLDER) -> Path:
    """Returns the Python of the environment, making it first if it is not there.

    Raises:
        subprocess.CalledProcessError: If pip cannot install the peers.
    """
    if (found := python(folder)) is not None:
        return found
    venv.EnvBuilder(clear=True, with_pip=True).create(folder)
    own = folder / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    (own / "riskft_peers.pth").write_text(sysconfig.get_path("purelib") + "\n")
    for name, text in TIMM.items():
        (own / name).parent.mkdir(parents=True, exist_ok=True)
        (own / name).write_text(text)
    made = folder.absolute() / "bin/python"
    torch = f"torch=={importlib.metadata.version('torch')}"  # so that pip fails instead of downloading gigabytes
    subprocess.run([made, "-m", "pip", "install", "--quiet", torch, *PACKAGES], env=environment(), check=True)
    (folder / "complete").write_text(INSTALLED)
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make the environment of the peers.")
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER)
    print(make(parser.parse_args().folder))
