"""`vggrpo world render`."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from vggrpo.config.base import Settings


class WorldRenderSettings(Settings):
    """Renders clips of the procedural world: videos with exact geometry and captions.

    Per clip an .mp4, a .safetensors of cameras, depth, points and scene flow, and a .txt with the caption;
    for the folder config.yaml, clips.jsonl and manifest.json.
    """

    free_on_resume: ClassVar[frozenset[str]] = frozenset({"output", "resume", "batch_size"})

    output: Path = Field(description="folder to create")
    split: Literal["train", "validation", "test"] = Field(
        "train", description="splits share no seed, no caption"
    )
    count: PositiveInt = Field(8, description="clips to render")
    start: NonNegativeInt = Field(0, description="index of the first clip in its split")
    height: PositiveInt = Field(48, multiple_of=2, description="pixels")
    width: PositiveInt = Field(64, multiple_of=2, description="pixels")
    num_frames: PositiveInt = Field(17, description="frames of a clip")
    fps: PositiveFloat = Field(8.0, description="frames per second of the files")
    supersample: PositiveInt = Field(2, description="colour samples per pixel, squared")
    batch_size: PositiveInt = Field(8, description="clips rendered at once")
    resume: bool = Field(False, description="render what is missing in `output`")


def main(argv: Sequence[str]) -> int:
    """Runs the command."""
    import tyro

    settings = tyro.cli(WorldRenderSettings, prog="vggrpo world render", args=list(argv))

    from vggrpo.io import RunFolder, progress, write_manifest
    from vggrpo.world import render_clips, sample_scene
    from vggrpo.world.export import export_clips, is_exported, write_records

    run = RunFolder.start(settings.output, settings, settings.resume)
    folder = run.path
    indices = range(settings.start, settings.start + settings.count)
    missing = [index for index in indices if not is_exported(folder, settings.split, index)]
    with progress("rendering", len(indices), len(indices) - len(missing), unit="clip") as bar:
        for first in range(0, len(missing), settings.batch_size):
            part = missing[first : first + settings.batch_size]
            specs = [sample_scene(settings.split, index) for index in part]
            clips = render_clips(
                specs,
                height=settings.height,
                width=settings.width,
                num_frames=settings.num_frames,
                supersample=settings.supersample,
            )
            export_clips(folder, specs, clips, settings.fps)
            bar.advance(len(part))
    write_records(folder, settings.split, indices)
    write_manifest(folder)
    print(f"{settings.count} clips of the {settings.split} split are in {folder}")
    return 0
