"""Trains a Wan autoencoder from scratch on the world's clips.

Most steps see small crops of a few frames: an autoencoder is local, so many small updates reach a given error
in far less compute than few large ones. The last steps see whole clips, where the middle block's attention
and the causal cache work at their full size.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor, nn

from vggrpo.backbones.wan import load_vae
from vggrpo.config import ConfigError
from vggrpo.config.pretrain import VAESettings
from vggrpo.io import RunFolder, atomic_folder, make_generator
from vggrpo.training.loop import Job, run_job
from vggrpo.training.muon import muon_and_adamw
from vggrpo.training.pretrain.initial import require_same_architecture
from vggrpo.training.pretrain.pool import ClipPool, to_float
from vggrpo.training.runtime import autocast, prepare
from vggrpo.world.micro import MicroVAEConfig, build_vae, set_latent_statistics

VALIDATION_CLIPS = 32
STATISTICS_CLIPS = 256


class VAEJob(Job):
    """Reconstruction (L1 + L2 + image gradients) with a small KL term."""

    name = "train VAE"

    def __init__(self, settings: VAESettings, initial: AutoencoderKLWan | None = None) -> None:
        self.settings = settings
        torch.manual_seed(settings.seed)
        self.vae = untrained_vae(settings)
        if initial is not None:
            self.vae.load_state_dict(initial.state_dict())
        self.train_clips = ClipPool("train", settings.num_clips, settings.clips)
        self.validation_clips = ClipPool("validation", VALIDATION_CLIPS, settings.clips)

    def modules(self) -> Mapping[str, nn.Module]:
        return {"vae": self.vae}

    def optimizers(self) -> list[torch.optim.Optimizer]:
        return muon_and_adamw(self.vae, self.settings.muon_lr, self.settings.loop)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        video = self._batch(step)
        generator = make_generator(self.settings.seed, "vae", "posterior", step)
        with autocast(self.settings.precision):
            posterior = self.vae.encode(video).latent_dist
            reconstruction = self.vae.decode(posterior.sample(generator)).sample.float()
        error = reconstruction - video
        l1, l2 = error.abs().mean(), error.square().mean()
        gradients = torch.stack([error.diff(dim=dim).abs().mean() for dim in (-1, -2, -3)]).mean()
        # diffusers' sum is over three of the dimensions only.
        kl = posterior.kl().sum() / posterior.mean.numel()
        settings = self.settings
        loss = l1 + settings.l2_weight * l2 + settings.gradient_weight * gradients + settings.kl_weight * kl
        return loss, {"vae/l1": l1.item(), "vae/kl": kl.item(), "vae/psnr_train": psnr(l2).item()}

    def _batch(self, step: int) -> Tensor:
        """Clips or crops of them [B, 3, T, H, W] in [-1, 1], half of them mirrored."""
        settings, seed = self.settings, (self.settings.seed, "vae", step)
        whole = step >= settings.loop.steps * (1 - settings.full_share)
        count = settings.full_batch_size if whole else settings.loop.batch_size
        frames = self.train_clips.frames[self.train_clips.draw(count, *seed)]
        generator = make_generator(*seed, "crop")
        if not whole:
            frames = random_crops(frames, settings.crop_frames, settings.crop_size, generator)
        video = to_model(frames)
        mirrored = torch.rand(count, generator=generator) < 0.5
        return torch.where(mirrored.view(-1, 1, 1, 1, 1), video.flip(-1), video)

    def evaluate(self, step: int) -> dict[str, float]:
        return {"vae/psnr": validation_psnr(self.vae, self.validation_clips)}

    @torch.no_grad()
    def latent_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of every latent channel over training clips."""
        clips = self.train_clips.frames[:STATISTICS_CLIPS].split(8)
        latents = torch.cat([self.vae.encode(to_model(batch)).latent_dist.mode() for batch in clips])
        return latents.mean(dim=(0, 2, 3, 4)), latents.std(dim=(0, 2, 3, 4))


def train_vae(settings: VAESettings) -> Path:
    """Trains, measures the latents' statistics, and writes the diffusers folder `<output>/model`.

    Raises:
        ConfigError: if crops or clips do not fit the autoencoder's strides, crops are larger than clips, or
            `init` has another architecture.
        FileNotFoundError: if `init` holds no autoencoder.
    """
    check_sizes(settings)
    initial = initial_vae(settings)
    prepare(settings)
    run = RunFolder.start(settings.output, settings, resume=settings.resume)
    job = VAEJob(settings, initial)
    run_job(job, run, settings.loop)
    set_latent_statistics(job.vae, *job.latent_statistics())
    with atomic_folder(settings.output / "model", replace=True) as folder:
        job.vae.save_pretrained(folder)
    return settings.output / "model"


def untrained_vae(settings: VAESettings) -> AutoencoderKLWan:
    """The autoencoder before its training."""
    return build_vae(MicroVAEConfig(**settings.architecture.model_dump()))


def initial_vae(settings: VAESettings) -> AutoencoderKLWan | None:
    """The autoencoder in `init`, if that is set."""
    if settings.init is None:
        return None
    initial = load_vae(settings.init)
    with torch.device("meta"):
        require_same_architecture(untrained_vae(settings), initial, settings.init)
    return initial


def check_sizes(settings: VAESettings) -> None:
    """Makes sure that crops and whole clips pass through the autoencoder and come back in their size.

    Raises:
        ConfigError: listing every number that does not fit.
    """
    clips, architecture = settings.clips, settings.architecture
    time = 2 ** sum(architecture.temporal_downsample)
    space = 2 ** (len(architecture.dim_mult) - 1)
    problems = [
        f"{name} is {value}, expected a multiple of {time} plus 1"
        for name, value in (("clips.num_frames", clips.num_frames), ("crop_frames", settings.crop_frames))
        if value % time != 1
    ]
    sides = {"clips.height": clips.height, "clips.width": clips.width, "crop_size": settings.crop_size}
    problems += [
        f"{name} is {value}, expected a multiple of {space}" for name, value in sides.items() if value % space
    ]
    for name, value, most in (
        ("crop_frames", settings.crop_frames, clips.num_frames),
        ("crop_size", settings.crop_size, min(clips.height, clips.width)),
    ):
        if value > most:
            problems.append(f"{name} is {value}, but a clip has {most}")
    if problems:
        raise ConfigError(
            "the sizes do not fit the autoencoder:" + "".join(f"\n  {line}" for line in problems)
        )


def to_model(frames: Tensor) -> Tensor:
    """Bytes [B, T, H, W, 3] to the autoencoder's [B, 3, T, H, W] in [-1, 1]."""
    return (to_float(frames) * 2 - 1).movedim(-1, 1).contiguous()


def random_crops(frames: Tensor, num_frames: int, size: int, generator: torch.Generator) -> Tensor:
    """One crop of `num_frames` x `size` x `size` at a random place of every clip [B, T, H, W, 3]."""
    _, total, height, width, _ = frames.shape
    crops = []
    for clip in frames:
        t, y, x = (
            int(torch.randint(room + 1, (1,), generator=generator))
            for room in (total - num_frames, height - size, width - size)
        )
        crops.append(clip[t : t + num_frames, y : y + size, x : x + size])
    return torch.stack(crops)


def psnr(mean_squared_error: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of values in [-1, 1]."""
    return 10 * torch.log10(4 / mean_squared_error)


@torch.no_grad()
def validation_psnr(vae: AutoencoderKLWan, clips: ClipPool, batch_size: int = 8) -> float:
    """Mean over clips of each clip's PSNR in dB, through the posterior's mode."""
    values = []
    for frames in clips.frames.split(batch_size):
        video = to_model(frames)
        reconstruction = vae.decode(vae.encode(video).latent_dist.mode()).sample.clamp(-1, 1)
        values.append(psnr((reconstruction - video).square().mean(dim=(1, 2, 3, 4))))
    return torch.cat(values).mean().item()
