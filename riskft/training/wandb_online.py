"""Checks before any work that W&B is usable: its settings and, online, the server and the login."""

import os
import threading
from typing import Any

from riskft.errors import InputError

SECONDS = 10.0
WAYS_OUT = "Log in with `wandb login`, or log without a network: --wandb.offline true (`wandb sync` uploads it later)."


def refuse_unusable_settings() -> None:
    """Raises InputError if the environment holds invalid W&B settings, which would end offline runs too."""
    import wandb

    try:
        wandb.Settings().update_from_env_vars(os.environ)
    except (ValueError, wandb.Error) as error:
        raise InputError(
            f"W&B's settings in the environment (WANDB_*) are not usable: {_what_is_wrong(error)}. Correct or unset "
            "them, or go without W&B: --wandb.enabled false."
        ) from error


def _what_is_wrong(error: Any) -> str:
    """Returns names, values and expected values of the invalid settings if the error has them, else its text."""
    said = " ".join(str(error).split()).rstrip(".")
    # shows no key or token: for these, W&B raises errors without values
    parts = error.errors(include_url=False) if hasattr(error, "errors") else []
    return "; ".join(f"{'.'.join(map(str, one['loc']))} is {one['input']!r}: {one['msg']}" for one in parts) or said


def refuse_unreachable(seconds: float = SECONDS) -> None:
    """Raises InputError if an online run cannot be logged; waits that many seconds for the server's answer.

    W&B itself would notice only when the run starts, after preprocessing, and would retry for minutes.
    """
    if os.environ.get("WANDB_MODE", "online") != "online":
        return  # the variable takes precedence over the option
    import wandb
    from requests.utils import get_netrc_auth

    try:
        url = wandb.setup().settings.base_url.rstrip("/")
    except ValueError as error:
        # its files hold settings too
        raise InputError(
            f"wandb.offline is false, and W&B's settings are not usable: {_what_is_wrong(error)}. {WAYS_OUT}"
        ) from error
    kept = get_netrc_auth(url)  # `wandb login` writes there
    key = os.environ.get("WANDB_API_KEY") or (kept[1] if kept else None)
    if not key and not os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        raise InputError(f"wandb.offline is false, and there is no login for {url}. {WAYS_OUT}")
    problems: list[str] = []
    # a thread, because DNS lookup and redirects have no time limit of their own
    asking = threading.Thread(target=lambda: problems.extend(_refusal(url, key, seconds)), daemon=True)
    asking.start()
    asking.join(seconds)
    if asking.is_alive():
        problems.append(f"does not answer within {seconds:.0f} s")
    if problems:
        raise InputError(f"wandb.offline is false, and {url} {problems[0]}. {WAYS_OUT}")


def _refusal(url: str, key: str | None, seconds: float) -> list[str]:
    """Returns why the server does not accept the login; empty if it does."""
    import requests

    question = {"query": "query Viewer { viewer { id } }"}
    try:
        # the timeout is per read, so the whole request may take longer
        answer = requests.post(f"{url}/graphql", json=question, auth=("api", key) if key else None, timeout=seconds / 2)
    except requests.RequestException as error:
        return [f"cannot be reached ({type(error).__name__})"]
    except ValueError as error:  # a login or address that cannot be sent
        return [f"cannot be asked with this login ({type(error).__name__})"]
    if answer.status_code in (401, 403):
        return [f"does not accept the login (status {answer.status_code})"]
    if not answer.ok:
        return [f"answers with an error (status {answer.status_code})"]
    try:
        known = answer.json()["data"]["viewer"] is not None
    except (ValueError, KeyError, TypeError):
        return ["does not answer as a W&B server"]
    return [] if known or not key else ["does not know the login"]
