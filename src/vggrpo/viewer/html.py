"""Scenes that play in a web page: one self-contained file, or an element for a page of one's own."""

import json
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path

from vggrpo.config import ConfigError
from vggrpo.io import write_text
from vggrpo.viewer.html_payload import scene_payload
from vggrpo.viewer.prepared import prepare_scene
from vggrpo.viewer.scene_file import Scene4D

SCRIPTS = ("payload.js", "camera.js", "shaders.js", "lines.js", "renderer.js", "element.js")
"""In the order in which they are read; together they are one script."""
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'"
)
"""Content security policy: the browser itself refuses any request."""


def write_scene_page(path: Path | str, scenes: Sequence[Scene4D], title: str = "") -> Path:
    """Writes a page that plays one scene, or two beside each other; returns its path.

    The file is complete: it opens from a disk, without network. A browser with WebGL 2 is needed.

    Raises:
        ConfigError: if `path` does not end in .html.
        ValueError: as in `scene_fragment`.
    """
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"{path} is no name of a page: it should end in .html")
    write_text(path, scene_page(scenes, title))
    return path


def scene_page(scenes: Sequence[Scene4D], title: str = "") -> str:
    """The page of `write_scene_page` as text. Without a title it has the scenes' labels."""
    title = title or " / ".join(scene.label for scene in scenes if scene.label) or "4D scene"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">'
        f"<title>{escape(title)}</title>"
        "<style>html, body { margin: 0; height: 100%; background: #0d0f12; color: #a2a8b3; }"
        " vggrpo-scene { height: 100vh; height: 100dvh; }</style>"
        f"</head><body>{scene_fragment(scenes, standalone=True)}"
        "<noscript>This page draws with WebGL and needs JavaScript.</noscript>"
        f"<script>{scene_script()}</script></body></html>\n"
    )


def scene_fragment(scenes: Sequence[Scene4D], *, standalone: bool = False) -> str:
    """The HTML element <vggrpo-scene>: one scene, or two beside each other with one clock and one camera.

    It needs `scene_script` once, anywhere after it in the page. Its height is that of its style, 620 pixels
    if there is none. It starts when it comes near the window, and makes no request.

    Args:
        scenes: one or two.
        standalone: whether it is alone in its page; it then plays at once, and the wheel zooms without a
            click.

    Raises:
        ValueError: if there are not one or two scenes, or one cannot be drawn (see `prepare_scene`).
    """
    if len(scenes) not in (1, 2):
        raise ValueError(f"scenes holds {len(scenes)} scenes, but one, or two to compare, were expected")
    data = {"scenes": [scene_payload(prepare_scene(scene)) for scene in scenes]}
    # No "<" at all, so that no text can end the script element.
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    attribute = " standalone" if standalone else ""
    return f'<vggrpo-scene{attribute}><script type="application/json">{text}</script></vggrpo-scene>'


def scene_script() -> str:
    """The code of <vggrpo-scene>, for one script element."""
    folder = resources.files("vggrpo.viewer").joinpath("assets")
    style = json.dumps(folder.joinpath("scene.css").read_text("utf-8"))
    code = "\n".join(folder.joinpath(name).read_text("utf-8") for name in SCRIPTS)
    return f'(() => {{\n"use strict";\nconst STYLE = {style};\n{code}}})();'
