"""Where evaluation keeps what it fetched or installed for itself."""

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """The folder `name` below VGGRPO_CACHE, or else below vggrpo/ of the user's cache; it need not exist."""
    root = os.environ.get("VGGRPO_CACHE")
    if root:
        return Path(root) / name
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vggrpo" / name
