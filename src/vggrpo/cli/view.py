"""`vggrpo view`."""

from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Runs the command."""
    import tyro

    from vggrpo.config import ConfigError, ViewSettings
    from vggrpo.config.view import DEFAULT_PORT

    settings = tyro.cli(ViewSettings, prog="vggrpo view", args=list(argv))
    for path in settings.scenes:
        if not path.is_file():
            raise ConfigError(f"there is no scene file {path}; `vggrpo reconstruct` makes one of a video")
    if settings.export is not None and settings.export.exists() and not settings.overwrite:
        raise ConfigError(f"{settings.export} exists already; choose another name, or add --overwrite")

    from dataclasses import replace

    from vggrpo.viewer import distinct_labels, load_scene, write_scene_page
    from vggrpo.viewer.prepared import prepare_scene
    from vggrpo.viewer.server import SceneServer, require_server

    port = settings.port or DEFAULT_PORT
    if settings.export is None:
        require_server(port)
    scenes = [load_scene(path) for path in settings.scenes]
    labels = settings.labels or distinct_labels([scene.label for scene in scenes], settings.scenes)
    scenes = [replace(scene, label=label) for scene, label in zip(scenes, labels, strict=True)]
    if settings.export is not None:
        path = write_scene_page(settings.export, scenes)
        print(f"{path} ({path.stat().st_size / 1e6:.1f} MB) plays in a browser with WebGL 2, without network")
        return 0
    server = SceneServer([prepare_scene(scene) for scene in scenes], port)
    print(f"{server.url} (this machine only); Ctrl-C ends", flush=True)
    try:
        server.run()
    except KeyboardInterrupt:
        return 0
    finally:
        server.stop()
    return 0
