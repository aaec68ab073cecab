"""One line of the doctor's table."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """What was found, and what to do about it."""

    subject: str
    status: Literal["ok", "note", "error"]
    """"note": something that only some commands need; "error": something that breaks all of them."""
    found: str
    remedy: str = ""
