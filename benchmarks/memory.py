"""Memory and time of one training iteration by group size K, with trajectories in memory and on disk.

    python benchmarks/memory.py [--groups 8 16 32 64] [--storages disk cpu kept] [--repeats 3] [--output FILE]

`kept` is the default of `vggrpo train`: in memory, with a copy in the run folder for a resumed run
(`keep_rollouts`).

A tiny Wan and a tiny geometry model of random weights, with latents so wide that trajectories outweigh all
else: only sizes count. Every measurement has a process of its own, which loads the models, makes one velocity
and one scene, and then one whole iteration: rollout, score, update. Memory is the greatest of the repeats,
time the least: other work on the machine only ever adds to it.
"""

import argparse
import multiprocessing
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

import torch
from common.memory import resident, restart_peak
from common.random_models import SMALL_SIZES
from common.results import write_result

from vggrpo.backbones import load_video_backbone
from vggrpo.backbones.any4d import Any4D
from vggrpo.config import TrainSettings
from vggrpo.data import Prompt
from vggrpo.io import RunFolder
from vggrpo.lgm import Connector, LatentGeometryModel, token_grid
from vggrpo.training.rewards import build_rewards
from vggrpo.training.runtime import return_freed_memory
from vggrpo.training.trainer import VGGRPOTrainer
from vggrpo.world import VOCABULARY, micro

CHANNELS, STITCH_POINT = 256, "E1"
CLIP = {"num_frames": 17, "height": 48, "width": 64}
BAR = 1.1
"""The peak at the largest group is at most this times that at the smallest."""
LINEAR = 1.2
"""So are the seconds a sample, if time is linear in the group."""
STORAGES = {
    "disk": {"trajectory_storage": "disk", "keep_rollouts": False},
    "cpu": {"trajectory_storage": "cpu", "keep_rollouts": False},
    "kept": {},
}


def save_models(folder: Path) -> None:
    """A tiny Wan pipeline with latents of `CHANNELS` channels, and a latent geometry model for them."""
    torch.manual_seed(0)
    tokenizer = micro.build_tokenizer(VOCABULARY, max_length=24)
    denoiser = micro.MicroTransformerConfig(
        num_attention_heads=2, attention_head_dim=12, num_layers=2, ffn_dim=32, freq_dim=32
    )
    text = micro.MicroTextConfig(d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    micro.save_pipeline(
        folder / "video",
        vae=micro.build_vae(micro.MicroVAEConfig(base_dim=8, z_dim=CHANNELS, dim_mult=(1, 2, 2))),
        transformer=micro.build_transformer(CHANNELS, 16, denoiser),
        text_encoder=micro.build_text_encoder(len(tokenizer), text),
        tokenizer=tokenizer,
        scheduler=micro.build_scheduler(flow_shift=3.0),
    )
    config = replace(SMALL_SIZES.any4d, encoder_dim=16, multi_view_dim=16)
    geometry, spec = Any4D(config), load_video_backbone(str(folder / "video")).latent_spec
    point = geometry.stitch_point(STITCH_POINT)
    _, _, height, width = spec.latent_shape(1, CLIP["height"], CLIP["width"])
    connector = Connector.for_point(point, spec.channels, token_grid(height, width))
    model = LatentGeometryModel(geometry, connector, STITCH_POINT, spec, "tiny", "tiny")
    model.save_pretrained(folder / "lgm")


def new_trainer(folder: Path, group_size: int, storage: str) -> VGGRPOTrainer:
    """Of groups of `group_size` in micro-batches of four, two of three steps stochastic, its run in a folder
    of its own.
    """
    settings = TrainSettings.model_validate(
        {
            "base_model": str(folder / "video"),
            "geometry_model": "micro",
            "lgm_path": folder / "lgm",
            "output": Path(mkdtemp(dir=folder)),
            "prompts": "world",
            "evaluation_prompts": "world",
            **CLIP,
            "cfg_scale": 1.0,
            "group_size": group_size,
            "updates_per_rollout": 2,
            "train_steps": 3,
            "rollout_batch": 4,
            "update_batch": 4,
            **STORAGES[storage],
            "skip_flat_groups": False,
            "reward_weights": {"reprojection": 0.0},
        }
    )
    return VGGRPOTrainer(
        settings,
        RunFolder.start(settings.output, settings, resume=False),
        load_video_backbone(settings.base_model),
        LatentGeometryModel.from_pretrained(settings.lgm_path),
        build_rewards(settings.rewards),
        [Prompt("prompt", "a red box")],
        torch.randn(1, 6, 16),
    )


def measure(folder: Path, group_size: int, storage: str, threads: int) -> dict[str, float]:
    """Peak and seconds of one iteration."""
    torch.set_num_threads(threads)
    if storage == "disk":
        return_freed_memory()  # as `vggrpo train` does
    trainer = new_trainer(folder, group_size, storage)
    with torch.no_grad():
        x = torch.randn(1, *trainer.latent_shape)
        trainer.lgm(trainer.policy.velocity(x, 0.5, trainer.prompt_embeds))
    idle = resident("VmRSS")
    restart_peak()
    metrics = trainer.step()
    peak = resident("VmHWM")
    seconds = sum(metrics[f"time/{phase}"] for phase in ("rollout", "score", "update"))
    shutil.rmtree(trainer.run.path)
    states = len(trainer.settings.sde_window) + 2
    return {
        "peak_mib": round(peak, 1),
        "above_idle_mib": round(peak - idle, 1),
        "trajectories_mib": round(group_size * states * x.nbytes / 2**20, 1),
        "seconds": round(seconds, 2),
        "seconds_a_sample": round(seconds / group_size, 3),
    }


def best_of(measured: Sequence[dict[str, float]]) -> dict[str, float]:
    """The greatest memory and the least time of several measurements of one thing."""
    return {
        name: (min if name.startswith("seconds") else max)(one[name] for one in measured)
        for name in measured[0]
    }


def in_own_process(work: partial) -> Any:
    """The result of `work` in a process that has only imported what this one has."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(work)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--groups", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--storages", nargs="+", default=list(STORAGES), choices=list(STORAGES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/memory.json"))
    arguments = parser.parse_args()
    groups = sorted(arguments.groups)
    figures: dict[str, Any] = {}
    with TemporaryDirectory() as name:
        folder = Path(name)
        in_own_process(partial(save_models, folder))
        for storage in arguments.storages:
            rows = {}
            for size in groups:
                work = partial(measure, folder, size, storage, arguments.threads)
                rows[str(size)] = best_of([in_own_process(work) for _ in range(arguments.repeats)])
                print(storage, size, rows[str(size)], flush=True)
            smallest, largest = rows[str(groups[0])], rows[str(groups[-1])]
            ratio = largest["peak_mib"] / smallest["peak_mib"]
            slowdown = largest["seconds_a_sample"] / smallest["seconds_a_sample"]
            figures[storage] = {
                "groups": rows,
                "peak, largest over smallest": round(ratio, 3),
                f"at most {BAR}": ratio <= BAR,
                "seconds a sample, largest over smallest": round(slowdown, 3),
                f"at most {LINEAR}": slowdown <= LINEAR,
            }
            print(
                f"{storage}: K = {groups[-1]} has {ratio:.2f} times the peak of K = {groups[0]}, which is "
                f"{'flat' if ratio <= BAR else 'not flat'} (at most {BAR}), and {slowdown:.2f} times its "
                f"seconds a sample, which is {'linear' if slowdown <= LINEAR else 'not linear'} (at most "
                f"{LINEAR})",
                flush=True,
            )
    result = {
        "what": "one iteration of a tiny Wan with wide latents, one prompt, by group size",
        **figures,
        "repeats": arguments.repeats,
        "threads": arguments.threads,
    }
    write_result(arguments.output, result, torch=torch.__version__)


if __name__ == "__main__":
    main()
