"""Server-sent events, as the commands read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Message:
    """One message. event: its kind; "" for a sign of life. id: where to go on after it; "" where it says nothing."""

    event: str
    data: str
    id: str


def messages(lines: Iterable[str]) -> Iterator[Message]:
    """The messages of a stream's lines, as the HTML standard reads them; one that was cut off is left out."""
    data: list[str] = []
    event, number = "message", ""
    for line in lines:
        if not line:
            if data:
                yield Message(event, "\n".join(data), number)
            event, data, number = "message", [], ""
        elif line.startswith(":"):
            yield Message("", "", "")
        else:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "event":
                event = value
            elif name == "data":
                data.append(value)
            elif name == "id":
                number = value
