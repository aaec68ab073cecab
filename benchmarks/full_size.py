"""What Wan2.1-1.3B and Wan2.2-5B cost at their published sizes, with random weights: seconds and peak memory.

    python benchmarks/full_size.py                  # on a GPU of 80 GB; 15 GB of disk
    python benchmarks/full_size.py --small          # the same code on tiny models, also on a CPU

Of every model and clip size:

- **rollout**, **LGM**, **update**: one iteration of `vggrpo train` with K = 8 and one optimizer step, by the
  settings of the model's recipe;
- **reward of a batch of 4** through the latent geometry model of Any4D and of VGGT, against decoding the four
  videos (one after the other) and the uncut model on their key frames. `peak GB` is that of a process that
  holds the path's own models (the latent geometry model; the autoencoder and the uncut model) and nothing
  else, in 10^9 bytes: this is what stands beside the paper's figures.

Weights are random, which changes neither time nor memory; so rewards mean nothing, and advantages are given.
Peak memory is what torch allocates on the GPU, with all models that the phase keeps there; on a CPU it is
counted from the tensors that the phase makes, models not included, which slows the phase down.
"""

import argparse
import gc
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from common.random_models import (
    OFFICIAL_SIZES,
    SMALL_SIZES,
    Sizes,
    random_geometry,
    random_lgm,
    write_pipeline,
)
from common.results import write_result
from torch import Tensor

from vggrpo.backbones import VideoBackbone
from vggrpo.backbones.wan.official import PipelineShape
from vggrpo.config import TrainSettings, load_recipe
from vggrpo.data import Prompt
from vggrpo.evaluation import KeyFrameTeacher, RewardTiming, time_reward_paths
from vggrpo.io import RunFolder
from vggrpo.training.plan.counting import Meter, measure, module_bytes
from vggrpo.training.rewards import build_rewards
from vggrpo.training.runtime import open_video_model
from vggrpo.training.trainer import VGGRPOTrainer

GIB, GB = 2**30, 10**9
SMALL_MODE = "small: tiny models, whose figures say nothing of the real ones"
SMALL_STEPS = 3
"""Of a rollout in the small mode."""
GROUP_SIZE = 8
REWARD_BATCH = 4
PAPER = {
    "what": "reward of a batch of 4, Wan2.2-5B, as a public write-up of the paper quotes it",
    "latent": {"seconds": 41.33, "peak GB": 68.57},
    "pixel": {"seconds": 54.73, "peak GB": 76.80},
}


@dataclass(frozen=True)
class Case:
    """A video model on clips of a size."""

    model: str
    clip: tuple[int, int, int]
    """(frames, height, width)."""

    @property
    def name(self) -> str:
        return f"{self.model}, {'x'.join(map(str, self.clip))}"


OFFICIAL_CASES = (
    Case("wan2.1-1.3b", (81, 480, 832)),
    Case("wan2.2-5b", (121, 704, 1280)),
    Case("wan2.2-5b", (81, 480, 832)),
)
SMALL_CASES = (
    Case("wan2.1-1.3b", (9, 64, 96)),
    Case("wan2.2-5b", (9, 128, 192)),
    Case("wan2.2-5b", (9, 64, 96)),
)


class Bench:
    """Measures the cases of one mode on a device."""

    def __init__(self, sizes: Sizes, device: torch.device, repeats: int) -> None:
        self.sizes, self.device, self.repeats = sizes, device, repeats

    def phase(self, run: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
        """What `run` returns, its seconds and its peak memory."""
        on_gpu = self.device.type == "cuda"
        if on_gpu:
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
        meter = Meter()
        start = time.perf_counter()
        with nullcontext() if on_gpu else meter:
            result = run()
        if on_gpu:
            torch.cuda.synchronize(self.device)
        seconds = time.perf_counter() - start
        peak = torch.cuda.max_memory_allocated(self.device) if on_gpu else meter.peak
        return result, {"seconds": round(seconds, 3), "peak GiB": round(peak / GIB, 4)}

    def case(self, case: Case, folder: Path) -> dict[str, Any]:
        """Every figure of a case."""
        settings = self.settings(case, folder)
        shape = self.sizes.video[case.model]
        write_pipeline(Path(settings.base_model), shape, settings.flow_shift or 1.0, self.device)
        iteration = self.iteration(settings, shape)
        self.free()
        video = open_video_model(settings.base_model, settings, self.device)
        rewards = {name: self.reward(name, case, video) for name in ("any4d", "vggt")}
        del video
        self.free()
        return {"one iteration": iteration, f"reward of a batch of {REWARD_BATCH}": rewards}

    def settings(self, case: Case, folder: Path) -> TrainSettings:
        """The recipe's, but for the clip's size and one optimizer step on a small group."""
        frames, height, width = case.clip
        changes = {
            "base_model": str(folder / "pipeline"),
            "output": str(folder / "run"),
            "num_frames": frames,
            "height": height,
            "width": width,
            "group_size": GROUP_SIZE,
            "updates_per_rollout": 1,
        }
        if self.sizes is SMALL_SIZES:
            changes["train_steps"] = SMALL_STEPS
        return load_recipe(f"{case.model}/train", TrainSettings, changes)

    def iteration(self, settings: TrainSettings, shape: PipelineShape) -> dict[str, dict[str, float]]:
        """Rollout, LGM and update of one iteration."""
        policy = open_video_model(settings.base_model, settings, self.device, settings.gradient_checkpointing)
        clip = (settings.num_frames, settings.height, settings.width)
        grid = policy.latent_shape(*clip)[2:]
        trainer = VGGRPOTrainer(
            settings,
            RunFolder.start(settings.output, settings, resume=False),
            policy,
            random_lgm(settings.geometry_model, self.sizes, policy.latent_spec, grid, self.device),
            build_rewards(settings.rewards),
            [Prompt("prompt", "random numbers in place of a text")],
            self.embeddings(shape)[None],
            self.embeddings(shape),
        )
        self.warm_up(trainer)
        group, rollout = self.phase(lambda: trainer.rollout(0))
        _, score = self.phase(lambda: trainer.score([group]))
        advantages = torch.linspace(-1.0, 1.0, GROUP_SIZE)[None]
        _, update = self.phase(lambda: trainer.update([group], advantages))
        return {"rollout": rollout, "LGM": score, "update": update}

    def embeddings(self, shape: PipelineShape) -> Tensor:
        """[L, D] of a prompt: random, since no text encoder is needed to measure."""
        return torch.randn(shape.text_length, shape.transformer["text_dim"], device=self.device)

    def warm_up(self, trainer: VGGRPOTrainer) -> None:
        """One velocity, so that kernels are loaded and chosen before anything is measured."""
        with torch.no_grad():
            latents = torch.randn(1, *trainer.latent_shape, device=self.device)
            trainer.policy.velocity(latents, 0.5, trainer.prompt_embeds[:1])

    def reward(self, name: str, case: Case, video: VideoBackbone) -> dict[str, Any]:
        """Both paths from latents to a scene's geometry, by a geometry model."""
        shape = video.latent_shape(*case.clip)
        latents = torch.randn(REWARD_BATCH, *shape, device=self.device)
        lgm = random_lgm(name, self.sizes, video.latent_spec, shape[2:], self.device)
        uncut = random_geometry(name, self.sizes, self.device)
        teacher = KeyFrameTeacher(uncut, video.latent_spec)

        def decode(latents: Tensor) -> Tensor:
            return torch.cat([video.decode_latents(one) for one in latents.split(1)])

        timing = time_reward_paths(latents, lgm, decode, teacher, rewards={}, repeats=self.repeats, warmup=1)
        peaks = dict(timing.peak_bytes)
        if not peaks:
            with torch.no_grad():
                peaks["latent"] = measure(lambda: lgm(latents)).peak
                peaks["pixel"] = measure(lambda: teacher(decode(latents))).peak
        models = {"latent": module_bytes(lgm), "pixel": module_bytes(video.vae) + module_bytes(uncut)}
        return reward_figures(timing, peaks, models)

    def free(self) -> None:
        """Gives back what the models of a case held."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def reward_figures(timing: RewardTiming, peaks: dict[str, int], models: dict[str, int]) -> dict[str, Any]:
    """Seconds (medians) and peak memory by path, and pixel over latent.

    `peaks` are bytes beside the models, `models` those of the models that the path needs.
    """
    seconds = {"latent": timing.latent_total.median, "pixel": timing.pixel_total.median}
    absolute = {path: models[path] + peaks[path] for path in peaks}
    return {
        **{
            path: {
                "seconds": round(seconds[path], 4),
                "peak GB": round(absolute[path] / GB, 4),
                "peak GiB beside the models": round(peaks[path] / GIB, 4),
            }
            for path in ("latent", "pixel")
        },
        "of which decoding, seconds": round(timing.pixel["decode"].median, 4),
        "ratio of time": round(seconds["pixel"] / seconds["latent"], 2),
        "ratio of memory": round(absolute["pixel"] / absolute["latent"], 2),
        "ratio of memory beside the models": round(peaks["pixel"] / peaks["latent"], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--small", action="store_true", help="tiny models; also what runs where there is no GPU"
    )
    parser.add_argument("--repeats", type=int, default=3, help="measured turns of the two reward paths")
    parser.add_argument("--output", type=Path, default=None, help="the result file")
    arguments = parser.parse_args()
    has_gpu = torch.cuda.is_available()
    small = arguments.small or not has_gpu
    if small and not arguments.small:
        print("there is no GPU here: this is the small mode")
    device = torch.device("cuda" if has_gpu else "cpu")
    bench = Bench(SMALL_SIZES if small else OFFICIAL_SIZES, device, arguments.repeats)
    figures: dict[str, Any] = {}
    for case in SMALL_CASES if small else OFFICIAL_CASES:
        with TemporaryDirectory() as folder:
            figures[case.name] = bench.case(case, Path(folder))
    result = {
        "what": "random weights, one iteration of K = 8 by the recipes, and the reward of a batch of 4",
        "mode": SMALL_MODE if small else "official sizes",
        **figures,
    }
    if not small:
        result["paper"] = PAPER
    name = "full_size_small" if small else "full_size"
    write_result(
        arguments.output or Path(f"benchmarks/results/{name}.json"),
        result,
        device=torch.cuda.get_device_name() if has_gpu else "CPU",
        threads=torch.get_num_threads(),
        torch=torch.__version__,
    )


if __name__ == "__main__":
    main()
