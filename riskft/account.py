"""Sets a user name and a home folder where the system has none; imported first, because MONAI needs them on import."""

import getpass
import os

try:
    getpass.getuser()
except (KeyError, OSError):  # containers run under user IDs without an account
    os.environ["USER"] = f"uid{os.getuid()}"

if not os.path.isabs(os.path.expanduser("~")):  # W&B looks for a home folder
    os.environ["HOME"] = "/nonexistent"
