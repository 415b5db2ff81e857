"""W&B online: asked for before any work. Offline: staged in the run folder."""

import os
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from jsonargparse import Namespace

from riskft.errors import InputError
from riskft.run.wandb_files import STAGING, stage_in, staging_undone
from riskft.training.loggers import logs_to_wandb
from riskft.training.wandb_online import refuse_unreachable, refuse_unusable_settings

KEY = "a" * 40


@pytest.fixture(autouse=True)
def online(monkeypatch, tmp_path):
    wandb = pytest.importorskip("wandb")
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))

    def at(url):
        class Setup:
            class settings:  # noqa: N801
                base_url = url

        monkeypatch.setattr(wandb, "setup", Setup)

    at("http://127.0.0.1:9")
    return at


def test_without_a_login():
    with pytest.raises(InputError, match=r"there is no login for http.*`wandb login`.*--wandb\.offline true"):
        refuse_unreachable()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("WANDB_MODE", "off", r"mode is 'off': Input should be 'online', 'offline'"),
        ("WANDB_BASE_URL", "wandb.example", r"base_url is 'wandb\.example': Input should be a valid URL"),
        ("WANDB_SILENT", "maybe", r"silent is 'maybe': Input should be a valid boolean"),
        ("WANDB_API_KEY", f"{KEY}\n", r"API key cannot start or end with whitespace\. Correct"),
    ],
)
def test_settings_that_wandb_does_not_take(monkeypatch, name, value, said):
    """Offline runs end on them too, with a traceback after preprocessing."""
    refuse_unusable_settings()
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=rf"\(WANDB_\*\) are not usable: {said}") as raised:
        refuse_unusable_settings()
    assert KEY not in str(raised.value)


def test_a_login_that_cannot_be_sent(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "\u6f22" * 40)
    with pytest.raises(InputError, match=r"cannot be asked with this login \(UnicodeEncodeError\)"):
        refuse_unreachable()


def test_the_environment_may_turn_wandb_off(monkeypatch):
    config = Namespace(wandb=Namespace(enabled=True), trainer=Namespace(fast_dev_run=False, logger=None))
    assert logs_to_wandb(config)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert not logs_to_wandb(config)


def test_without_a_network(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with pytest.raises(InputError, match=r"cannot be reached.*`wandb login`.*--wandb\.offline true"):
        refuse_unreachable()


def test_a_server_that_never_answers(monkeypatch, online):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        online(f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(InputError, match=r"cannot be reached|does not answer"):
            refuse_unreachable(seconds=1)
        assert time.monotonic() - start < 3


@pytest.mark.parametrize(
    ("status", "body", "refused"),
    [
        (200, b'{"data": {"viewer": {"id": "x"}}}', None),
        (200, b'{"data": {"viewer": null}}', "does not know the login"),
        (401, b"", "does not accept the login"),
        (500, b"", "answers with an error"),
        (200, b"<html>", "does not answer as a W&B server"),
    ],
)
def test_answers(monkeypatch, online, tmp_path, status, body, refused):
    class Server(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    (tmp_path / "netrc").write_text(f"machine 127.0.0.1\n  login user\n  password {KEY}\n")  # as `wandb login` does
    with HTTPServer(("127.0.0.1", 0), Server) as server:
        online(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        if refused is None:
            refuse_unreachable()
        else:
            with pytest.raises(InputError, match=refused):
                refuse_unreachable()
        thread.join()


def test_the_environment_may_say_offline(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    refuse_unreachable()


def test_staging(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_CACHE_DIR", "/mine")
    monkeypatch.delenv("WANDB_DATA_DIR", raising=False)
    monkeypatch.delenv("WANDB_CONFIG_DIR", raising=False)
    with staging_undone():
        stage_in(tmp_path, offline=False)
        assert os.environ["WANDB_CACHE_DIR"] == "/mine"
        assert "WANDB_CONFIG_DIR" not in os.environ  # which holds the login's server
        stage_in(tmp_path, offline=True)
        assert all(os.environ[name].startswith(str(tmp_path / "wandb")) for name in STAGING)
    assert os.environ["WANDB_CACHE_DIR"] == "/mine"
    assert "WANDB_DATA_DIR" not in os.environ
