"""What a 4D scene of latents costs: through a latent geometry model against decoding and the uncut model.

    python benchmarks/reconstruct_cost.py [--threads 1] [--output benchmarks/results/NAME.json]

Both paths start from the same latents of one video and end in a scene, without colours, rewards or files.
Times: the paths take turns in one process. Memory: each path has a process of its own, in which the peak of
resident memory, weights included, is counted above what was resident before its models were loaded. The
connector's weights are random, which changes neither.
"""

import argparse
import multiprocessing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from common.memory import resident, restart_peak
from common.results import write_result
from torch import Tensor

from vggrpo.backbones import load_geometry_backbone, load_video_backbone
from vggrpo.backbones.wan import WanBackbone
from vggrpo.evaluation import KeyFrameTeacher, RewardTiming, Timing, time_reward_paths
from vggrpo.lgm import Connector, LatentGeometryModel, token_grid

HEIGHT, WIDTH = 48, 64
LENGTHS = (17, 81)
"""Video frames."""
REPETITIONS = 15


def random_latents(num_frames: int) -> Tensor:
    """Of one video of the micro family."""
    shape = load_video_backbone("micro").latent_shape(num_frames, HEIGHT, WIDTH)
    return torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))


def save_latent_model(folder: Path, stitch_point: str) -> None:
    """A latent geometry model of the micro family whose connector is random."""
    geometry, spec = load_geometry_backbone("micro"), load_video_backbone("micro").latent_spec
    point = geometry.stitch_point(stitch_point)
    _, _, height, width = spec.latent_shape(1, HEIGHT, WIDTH)
    connector = Connector.for_point(point, spec.channels, token_grid(height, width))
    LatentGeometryModel(geometry, connector, stitch_point, spec, "micro", "micro").save_pretrained(folder)


@torch.no_grad()
def peak_memory(path: str, model: Path, num_frames: int, threads: int) -> float:
    """MiB that one path needs, from loading its models to its scene."""
    torch.set_num_threads(threads)
    latents = random_latents(num_frames)
    assert WanBackbone is not None  # so that diffusers is imported in both processes
    before = resident("VmRSS")
    restart_peak()
    if path == "latent":
        LatentGeometryModel.from_pretrained(model)(latents)
    else:
        video = load_video_backbone("micro")
        frames = video.decode_latents(latents)
        video.release("vae")
        KeyFrameTeacher(load_geometry_backbone("micro"), video.latent_spec)(frames)
    return resident("VmHWM") - before


def in_own_process(path: str, model: Path, num_frames: int, threads: int) -> float:
    """`peak_memory` in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(peak_memory, (path, model, num_frames, threads))


def seconds(timing: Timing) -> dict[str, float]:
    low, high = timing.quartiles
    return {
        "median": round(timing.median, 4),
        "lower_quartile": round(low, 4),
        "upper_quartile": round(high, 4),
    }


def measure(model: Path, num_frames: int, threads: int) -> dict[str, object]:
    """Times and memory of both paths, and pixel over latent."""
    video, teacher = load_video_backbone("micro"), load_geometry_backbone("micro")
    timing: RewardTiming = time_reward_paths(
        random_latents(num_frames),
        LatentGeometryModel.from_pretrained(model),
        video.decode_latents,
        KeyFrameTeacher(teacher, video.latent_spec),
        rewards={},
        repeats=REPETITIONS,
    )
    memory = {path: in_own_process(path, model, num_frames, threads) for path in ("latent", "pixel")}
    return {
        "views": timing.latent_shape[2],
        "seconds": {
            "latent geometry model": seconds(timing.latent_total),
            "decode and uncut model": seconds(timing.pixel_total),
            "of which decode": seconds(timing.pixel["decode"]),
        },
        "ratio of time": round(timing.speedup, 2),
        "peak_mib": {
            "latent geometry model": round(memory["latent"], 1),
            "decode and uncut model": round(memory["pixel"], 1),
        },
        "ratio of memory": round(memory["pixel"] / memory["latent"], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stitch-point", default="E1", help="where the latent geometry model is entered")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/reconstruct_cost.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with TemporaryDirectory() as folder:
        model = Path(folder) / "lgm"
        save_latent_model(model, arguments.stitch_point)
        of_length = partial(measure, model, threads=arguments.threads)
        figures = {f"{frames} frames": of_length(frames) for frames in LENGTHS}
    result = {
        "what": f"micro latents of one video of {HEIGHT}x{WIDTH} pixels to a scene",
        "stitch_point": arguments.stitch_point,
        **figures,
        "repetitions": REPETITIONS,
        "threads": arguments.threads,
    }
    write_result(arguments.output, result, torch=torch.__version__)


if __name__ == "__main__":
    main()
