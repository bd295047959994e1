"""From the settings to a client; starts the local service where that was asked for."""

from __future__ import annotations

import getpass
from pathlib import Path

from orchestrator import local
from orchestrator.cli.client import Client
from orchestrator.cli.render import note
from orchestrator.errors import BadInput, Unreachable
from orchestrator.settings import Settings


def connect(settings: Settings | None = None, *, start: bool = False) -> Client:
    """A client of the coordinator that ORCH_URL names, or of the local one.

    Args:
        start: start the local service when none runs, and say so.

    Raises:
        Unreachable: there is none.
    """
    settings = settings or Settings.from_env()
    if settings.url:
        if not settings.token:
            raise Unreachable("ORCH_URL is set but ORCH_TOKEN is not: set it to a token of that coordinator.")
        return Client(settings.url.rstrip("/"), settings.token)
    running = local.running(settings)
    if running is None and start:
        note("no local service is running; starting it, as `orch up` would")
        running = local.up(settings, say=lambda line: note(f"  {line}"))
    if running is None:
        raise Unreachable(f"no service is running under {settings.home}. Start it with `orch up`.")
    return Client(running.coordinator_url, local.read_token(settings))


def user_name() -> str:
    """Who submits, for the record."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "anonymous"


def read_file(path: Path) -> str:
    """The text of a sweep file.

    Raises:
        BadInput: it is missing, a directory, unreadable or not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        near = sorted(path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
        hint = f" There are: {', '.join(map(str, near[:8]))}." if near else ""
        raise BadInput(f"{path}: there is no such file.{hint}") from None
    except IsADirectoryError:
        raise BadInput(f"{path}: this is a directory; give a sweep file in it.") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: the file is not UTF-8 (byte {error.start}). Save it as UTF-8.") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}.") from None
