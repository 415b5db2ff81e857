"""The commit that the code runs from."""

import os
import subprocess
from pathlib import Path


def git_commit(file: Path = Path(__file__)) -> str:
    """Returns the commit of the checkout that tracks ``file`` (``-dirty`` if changed), or ``unknown``.

    Git also searches the folders above, so an untracked, installed package could find another project's repository.
    """
    # a hook of another repository sets GIT_DIR and others
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(file.parent), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True, env=environment)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "--", file.name)
        return git("describe", "--always", "--dirty", "--abbrev=12")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
