"""Model cards: what a model of the world is, how it was made, what it can do and what it cannot.

A card is the README.md of a model's folder, with the YAML header that Hugging Face reads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vggrpo import __version__
from vggrpo.backbones.pipelines.source import read_json, weight_files
from vggrpo.io import load_tensors
from vggrpo.training.pretrain.provenance import Training
from vggrpo.training.pretrain.summary import Rows
from vggrpo.world import VOCABULARY


@dataclass(frozen=True)
class Measured:
    """What was measured, and on what."""

    rows: Rows
    num_clips: int
    num_faulty: int
    num_samples: int
    infer_steps: int
    cfg_scale: float
    raster: tuple[int, int, int]
    """Frames, height and width of the clips."""


def video_card(name: str, folder: Path, trainings: Mapping[str, Training], measured: Measured) -> str:
    """The card of a video model, a complete WanPipeline folder."""
    num_frames, height, width = measured.raster
    transformer, vae, text = (
        read_json(folder / part / "config.json") for part in ("transformer", "vae", "text_encoder")
    )
    parts = [
        (
            "denoiser",
            "WanTransformer3DModel",
            f"{transformer['num_layers']} layers, {transformer['num_attention_heads']} heads of "
            f"{transformer['attention_head_dim']}, feed-forward {transformer['ffn_dim']}, "
            f"latent patches {by(transformer['patch_size'])}",
            parameter_count(folder / "transformer"),
        ),
        (
            "autoencoder",
            "AutoencoderKLWan",
            f"width {vae['base_dim']} times {', '.join(map(str, vae['dim_mult']))}; "
            f"{vae['z_dim']} latent channels, {vae['scale_factor_temporal']}x in time, "
            f"{vae['scale_factor_spatial']}x in space",
            parameter_count(folder / "vae"),
        ),
        (
            "text encoder",
            "UMT5EncoderModel",
            f"{text['num_layers']} layers of width {text['d_model']}, {text['vocab_size']} token ids",
            parameter_count(folder / "text_encoder"),
        ),
    ]
    return "\n\n".join(
        [
            header(library_name="diffusers", pipeline_tag="text-to-video"),
            f"# {name}: a toy text-to-video model with Wan's architecture",
            "A complete diffusers `WanPipeline` of Wan's own classes at tiny dimensions, trained from "
            "scratch on a procedural world of rooms and fields with boxes, spheres and cylinders. It is the "
            "base model on which VGGRPO (alignment of video models by a latent geometry reward) runs from "
            "end to end on a laptop's processor. "
            f"It makes {num_frames} frames of {height}x{width} pixels.",
            code(
                "from diffusers import WanPipeline\n\n"
                'pipe = WanPipeline.from_pretrained("path/of/this/folder")\n'
                'prompt = "a red box in a blue room with a striped floor, the camera orbits left"\n'
                f"video = pipe(prompt, height={height}, width={width}, num_frames={num_frames}, "
                "guidance_scale=1.0).frames[0]",
                "python",
            ),
            architecture(parts),
            making(("train-vae", "train-video"), trainings),
            measurements(
                measured,
                f"Samples: {measured.num_samples} captions of that split, {measured.infer_steps} Euler "
                f"steps, guidance {measured.cfg_scale:g}. Real clips have steady and shaky cameras, and no "
                "caption says which.",
            ),
            limits(
                f"It knows the {len(VOCABULARY)} words of the world's grammar; all others are unknown to it.",
                "Whether the camera shakes cannot be asked for: that is what the alignment is to change.",
                f"One length and one size: {num_frames} frames of {height}x{width} pixels.",
            ),
        ]
    )


def geometry_card(name: str, folder: Path, trainings: Mapping[str, Training], measured: Measured) -> str:
    """The card of a geometry model, an Any4D folder."""
    config = read_json(folder / "config.json")
    part = (
        "geometry model",
        "Any4D",
        f"patches of {config['patch_size']} pixels; encoder of {config['encoder_depth']} blocks of width "
        f"{config['encoder_dim']}; multi-view transformer of {config['multi_view_depth']} blocks of width "
        f"{config['multi_view_dim']}; dense heads (DPT) of {config['dpt_features']} channels, pose and scale "
        "heads",
        parameter_count(folder),
    )
    return "\n\n".join(
        [
            header(library_name="vggrpo", pipeline_tag="depth-estimation"),
            f"# {name}: a toy 4D geometry model with Any4D's architecture",
            "Frames in; cameras, depth, points, confidence and scene flow out. Any4D's network at tiny "
            "dimensions, trained from scratch on the exact geometry of a procedural world. It is the teacher "
            "of the latent geometry model by which VGGRPO rewards a video model.",
            code(
                "from vggrpo.backbones import load_geometry_backbone\n\n"
                'model = load_geometry_backbone("path/of/this/folder")\n'
                "scene = model(frames)  # [B, T, H, W, 3] in [0, 1] -> SceneGeometry",
                "python",
            ),
            architecture([part]),
            making(("train-geometry",), trainings),
            measurements(
                measured,
                "Views are the frames 0, 4, 8, ... that a video's latents stand for. Errors are against "
                "exact geometry; rotations and translations are relative to the first view. Faulty clips are "
                f"{measured.num_faulty} scenes of that split, which the renderer warps, lets wobble or "
                "covers with sliding textures.",
            ),
            limits(
                "Scene flow is anchored to the first view: it says nothing about surfaces that appear later.",
                f"Trained on clips of {by(measured.raster[1:])} pixels and this length only.",
            ),
        ]
    )


def header(library_name: str, pipeline_tag: str) -> str:
    """The YAML header that model hubs read."""
    fields = {
        "license": "apache-2.0",
        "library_name": library_name,
        "pipeline_tag": pipeline_tag,
        "tags": ["vggrpo", "synthetic", "toy"],
    }
    return f"---\n{yaml.safe_dump(fields, sort_keys=False)}---"


def architecture(parts: Sequence[tuple[str, str, str, int]]) -> str:
    """A table of the model's parts: (name, class, dimensions, parameters)."""
    rows = [[name, f"`{kind}`", dimensions, f"{count:,}"] for name, kind, dimensions, count in parts]
    if len(parts) > 1:
        rows.append(["all", "", "", f"{sum(count for *_, count in parts):,}"])
    return "## Architecture\n\n" + markdown_table(["part", "class", "dimensions", "parameters"], rows)


def making(stages: Sequence[str], trainings: Mapping[str, Training]) -> str:
    """The commands that make the model, with their settings."""
    known = [training for stage in stages for training in trainings.values() if training.stage == stage]
    blocks = ["## How it was made"]
    if known:
        blocks.append(
            "Each block of settings, saved under the name in its first line, is a recipe of its command."
        )
        blocks.append(code("\n".join(training.command for training in known), "bash"))
    blocks += [
        f"The settings of `vggrpo world {stage}` were not recorded."
        for stage in stages
        if not any(training.stage == stage for training in known)
    ]
    for training in known:
        if training.hours is not None:
            blocks.append(
                f"`{training.name}` took {training.steps:,} optimizer steps, {training.hours:.2f} hours "
                "without evaluation and data preparation."
            )
        blocks.append(code(f"# {training.name}.yaml\n{training.recipe}".rstrip(), "yaml"))
    return "\n\n".join(blocks)


def measurements(measured: Measured, explanation: str) -> str:
    """The measured figures."""
    text = (
        f"By `vggrpo world evaluate` (version {__version__}) on {measured.num_clips} clips of the split "
        "`test`, which shares no scene and no caption with the training; means over clips with 95 % "
        "intervals. "
    )
    rows = [[what, value] for what, value in measured.rows]
    return f"## Measured\n\n{text}{explanation}\n\n" + markdown_table(["", "value"], rows)


def limits(*own: str) -> str:
    """What the model cannot do."""
    points = [
        "A toy: it has seen nothing but one procedural world and means nothing for real pictures.",
        *own,
        "Its figures show that a method runs and what it changes, not how well it would do on large models.",
    ]
    return "## Limits\n\n" + "\n".join(f"- {point}" for point in points) + "\n"


def parameter_count(folder: Path) -> int:
    """Numbers in the weight files of a part."""
    return sum(tensor.numel() for file in weight_files(folder) for tensor in load_tensors(file).values())


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def code(text: str, language: str) -> str:
    """A fenced block."""
    return f"```{language}\n{text}\n```"


def by(sizes: Sequence[Any]) -> str:
    """Sizes as "1x4x4"."""
    return "x".join(map(str, sizes))
