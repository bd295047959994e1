"""The section of the sweep file that says who is told of it."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from orchestrator.spec.words import Words


def _web_address(url: str) -> str:
    if not url.startswith(("https://", "http://")) or any(sign.isspace() for sign in url):
        raise ValueError(f"a webhook is a web address that begins with https:// or http://; got {url!r}")
    return url


_ADDRESS = re.compile(
    r"""(["'])?(https?:(?:\\?/){2})(?:[^\s/?#@]*@)?([^\s"'/\\?#,\]}]+)"""
    r"""(?(1)(?:(?!\1).)*|(?:\S*[^\s,\]}])?)""",  # to the closing quote, or to the blank, less what closes a list
    re.IGNORECASE,
)


def redacted(text: str) -> str:
    """A sweep file for eyes that may not see the addresses of its webhooks, which are secrets: of each, the host alone.

    Every web address is taken for one, wherever it stands: a comment or another profile can hold a webhook's, too.
    """
    return _ADDRESS.sub(r"\1\2\3/...", text)


class Notify(Words):
    """Webhooks that hear of the sweep: JSON as Slack takes it, with the same in fields for programs."""

    urls: list[Annotated[str, Field(max_length=2000), AfterValidator(_web_address)]] = Field(
        min_length=1, max_length=10, description="Web addresses that take a JSON POST, such as Slack's webhooks."
    )
    on: list[Literal["end", "failure", "best"]] = Field(
        default_factory=lambda: ["end", "failure", "best"],  # type: ignore[arg-type]
        min_length=1,
        description="end: the sweep has ended. failure: it or one of its trials has failed. best: a trial ended with "
        "a better score than all before it.",
    )


def notify_of(value: Any) -> Any:
    """Short forms of `notify`: one address, or a list of them."""
    if isinstance(value, str):
        return {"urls": [value]}
    return {"urls": value} if isinstance(value, list) else value
