"""A name and a home folder for a user of whom the system knows neither; imported first, as MONAI asks on import."""

import getpass
import os

try:
    getpass.getuser()
except (KeyError, OSError):  # containers run under numbers that no account has
    os.environ["USER"] = f"uid{os.getuid()}"

if not os.path.isabs(os.path.expanduser("~")):  # nor a home folder, which W&B looks for
    os.environ["HOME"] = "/nonexistent"
