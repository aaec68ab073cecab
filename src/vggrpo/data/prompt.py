"""A prompt and its name."""

import hashlib
import re
from dataclasses import dataclass

ID_PATTERN = re.compile(r"[A-Za-z0-9][\w.-]{0,99}")


@dataclass(frozen=True)
class Prompt:
    """A prompt with a name of its own."""

    id: str
    """Names random streams and files, so letters, digits, dot, dash and underscore only."""
    text: str
    kind: str = ""
    """The sort of scene ("static", "dynamic", ...) by which results are grouped; "" if unknown."""

    @classmethod
    def from_text(cls, text: str, kind: str = "") -> "Prompt":
        """A prompt whose id is made from its text, whatever its place in a file."""
        words = re.sub(r"[^a-z0-9]+", "-", text.lower())[:40].strip("-")
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        return cls(f"{words}-{digest}" if words else digest, text, kind)
