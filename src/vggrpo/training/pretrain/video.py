"""Trains a Wan denoiser and its text encoder from scratch by flow matching on the world's clips."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import UMT5EncoderModel

from vggrpo.backbones.pipelines import fingerprint
from vggrpo.backbones.wan import WanBackbone, decode_frames, encode_text, load_vae, normalise_latents
from vggrpo.config import ConfigError
from vggrpo.config.pretrain import VideoSettings
from vggrpo.flow import SigmaSchedule, ode_step
from vggrpo.io import (
    RunFolder,
    atomic_folder,
    load_metadata,
    load_tensors,
    make_generator,
    progress,
    save_tensors,
)
from vggrpo.training.loop import Job, run_job
from vggrpo.training.muon import muon_and_adamw
from vggrpo.training.pretrain.contact_sheet import draw_contact_sheet
from vggrpo.training.pretrain.initial import require_same_architecture
from vggrpo.training.pretrain.pool import RENDER_BATCH
from vggrpo.training.runtime import autocast, prepare
from vggrpo.world import VOCABULARY, render_clips, sample_scene
from vggrpo.world.micro import (
    MicroTextConfig,
    MicroTransformerConfig,
    build_scheduler,
    build_text_encoder,
    build_tokenizer,
    build_transformer,
    save_pipeline,
)

VALIDATION_CLIPS = 128
SHEET_CLIPS, SHEET_STEPS = 16, 30
"""Samples on a contact sheet, and their denoising steps."""


class VideoJob(Job):
    """Flow matching at sigmas of a shifted logit-normal distribution, on pictures first, then on clips."""

    name = "train video model"

    def __init__(
        self,
        settings: VideoSettings,
        vae: AutoencoderKLWan,
        cache: Path,
        samples: Path,
        initial: WanBackbone | None = None,
    ) -> None:
        """`cache`: folder of the encoded clips; `samples`: folder of the contact sheets."""
        self.settings, self.vae, self.samples = settings, vae, samples
        torch.manual_seed(settings.seed)
        self.tokenizer = build_tokenizer(VOCABULARY, settings.architecture.text_length)
        self.text_encoder, self.transformer = untrained_models(settings, vae)
        if initial is not None:
            self.transformer.load_state_dict(initial.transformer.state_dict())
            self.text_encoder.load_state_dict(initial.text_encoder.state_dict())
        self.latents = cached_latents(cache, "train", settings.num_clips, settings, vae)
        self.validation_latents = cached_latents(cache, "validation", VALIDATION_CLIPS, settings, vae)
        self.captions = [sample_scene("train", i).caption for i in range(settings.num_clips)]
        self.validation_captions = [sample_scene("validation", i).caption for i in range(VALIDATION_CLIPS)]

    def modules(self) -> Mapping[str, nn.Module]:
        return {"transformer": self.transformer, "text_encoder": self.text_encoder}

    def optimizers(self) -> list[torch.optim.Optimizer]:
        rest = ("text_encoder", "transformer.patch_embedding", "transformer.proj_out")
        modules = nn.ModuleDict(dict(self.modules()))
        return muon_and_adamw(modules, self.settings.muon_lr, self.settings.loop, rest, torch.bfloat16)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        settings = self.settings
        images = step < settings.image_steps
        count = settings.image_batch_size if images else settings.loop.batch_size
        generator = make_generator(settings.seed, "video", step)
        index = torch.randint(len(self.latents), (count,), generator=generator)
        dropped = torch.rand(count, generator=generator) < settings.caption_dropout
        captions = ["" if drop else self.captions[i] for i, drop in zip(index, dropped, strict=True)]
        latents = self.latents[index]
        return self._error(latents[:, :, :1] if images else latents, captions, generator), {}

    def _error(self, x0: Tensor, captions: Sequence[str], generator: torch.Generator) -> Tensor:
        """The mean squared error of the velocity, or the weighted one of the clean latents."""
        shift = self.settings.flow_shift
        uniform = torch.sigmoid(torch.randn(len(x0), generator=generator))
        sigma = shift * uniform / (1 + (shift - 1) * uniform)
        noise = torch.randn(x0.shape, generator=generator)
        level = sigma.view(-1, 1, 1, 1, 1)
        x = (1 - level) * x0 + level * noise
        # On a CPU the plain attention's backward pass is 1.6 times as fast as the fused one's for short
        # sequences.
        with autocast(self.settings.precision), sdpa_kernel(SDPBackend.MATH):
            embeds = encode_text(self.text_encoder, self.tokenizer, captions)
            prediction = self.transformer(x, 1000 * sigma, embeds, return_dict=False)[0].float()
        if self.settings.prediction == "velocity":
            return (prediction - (noise - x0)).square().mean()
        return ((prediction - x0) / level.clamp(min=self.settings.sigma_floor)).square().mean()

    def evaluate(self, step: int) -> dict[str, float]:
        """The held-out loss; and a contact sheet of held-out captions in the run's samples."""
        captions = self.validation_captions[:SHEET_CLIPS]
        draw_contact_sheet(self.sample(captions), captions, self.samples / f"step_{step:06d}.png")
        generator = make_generator(self.settings.seed, "video", "validation")
        batches = range(0, VALIDATION_CLIPS, 32)
        errors = [
            self._error(self.validation_latents[i : i + 32], self.validation_captions[i : i + 32], generator)
            for i in batches
        ]
        return {"video/validation_loss": torch.stack(errors).mean().item()}

    def sample(self, captions: Sequence[str]) -> Tensor:
        """Videos [N, T, H, W, 3] of captions by ODE without guidance, from the same noises at every call."""
        generator = make_generator(self.settings.seed, "video", "samples")
        x = torch.randn((len(captions), *self.latents.shape[1:]), generator=generator)
        embeds = encode_text(self.text_encoder, self.tokenizer, captions)
        schedule = SigmaSchedule.unipc(SHEET_STEPS, shift=self.settings.flow_shift)
        with autocast(self.settings.precision):
            for sigma, sigma_next in schedule.steps():
                timestep = torch.full((len(x),), 1000 * sigma)
                prediction = self.transformer(x, timestep, embeds, return_dict=False)[0].float()
                clean = self.settings.prediction == "clean"
                velocity = (x - prediction) / sigma if clean else prediction
                x = ode_step(x, velocity, sigma, sigma_next)
        return decode_frames(self.vae, x)


def train_video(settings: VideoSettings) -> Path:
    """Trains, and writes the complete diffusers WanPipeline folder `<output>/model`, weights in float16.

    Raises:
        ConfigError: if `init` has another architecture, or predicts something else than the settings say.
        FileNotFoundError: if `vae` holds no autoencoder, or `init` no pipeline.
    """
    prepare(settings)
    vae = load_vae(settings.vae)
    initial = initial_pipeline(settings, vae)
    run = RunFolder.start(settings.output, settings, resume=settings.resume)
    job = VideoJob(settings, vae, settings.output / "cache", run.samples, initial)
    run_job(job, run, settings.loop)
    with atomic_folder(settings.output / "model", replace=True) as folder:
        save_pipeline(
            folder,
            vae=vae,
            transformer=job.transformer,
            text_encoder=job.text_encoder,
            tokenizer=job.tokenizer,
            scheduler=build_scheduler(settings.flow_shift, settings.prediction == "clean"),
            storage_dtype=torch.float16,
        )
    return settings.output / "model"


def untrained_models(
    settings: VideoSettings, vae: AutoencoderKLWan
) -> tuple[UMT5EncoderModel, WanTransformer3DModel]:
    """Text encoder and denoiser before their training."""
    architecture = settings.architecture
    tokenizer = build_tokenizer(VOCABULARY, architecture.text_length)
    text_encoder = build_text_encoder(
        len(tokenizer), MicroTextConfig(d_model=architecture.text_dim, num_layers=architecture.text_layers)
    )
    dimensions = architecture.model_dump(include=set(MicroTransformerConfig.__dataclass_fields__))
    transformer = build_transformer(
        vae.config.z_dim, architecture.text_dim, MicroTransformerConfig(**dimensions)
    )
    return text_encoder, transformer


def initial_pipeline(settings: VideoSettings, vae: AutoencoderKLWan) -> WanBackbone | None:
    """The pipeline in `init`, if that is set; its denoiser must predict what the settings' does."""
    if settings.init is None:
        return None
    initial = WanBackbone(settings.init)
    predicts = "clean" if initial.predicts_clean else "velocity"
    if predicts != settings.prediction:
        raise ConfigError(
            f"init is {settings.init}, whose denoiser has learnt to predict the {predicts}, but prediction "
            f"is {settings.prediction}: set it to {predicts}"
        )
    with torch.device("meta"):
        text_encoder, transformer = untrained_models(settings, vae)
    require_same_architecture(transformer, initial.transformer, settings.init)
    require_same_architecture(text_encoder, initial.text_encoder, settings.init)
    return initial


@torch.no_grad()
def cached_latents(
    folder: Path, split: str, count: int, settings: VideoSettings, vae: AutoencoderKLWan
) -> Tensor:
    """Normalised latents [N, C, T, H, W] of the split's first `count` clips.

    They are rendered and encoded once per run.
    """
    path = folder / f"{split}_latents.safetensors"
    # Latents of another autoencoder mean something else, wherever it is stored.
    key = {"count": count, "autoencoder": fingerprint(settings.vae)}
    if path.exists() and load_metadata(path) == key:
        return load_tensors(path)["latents"]
    clips, latents = settings.clips, []
    with progress(f"encode {split} clips", total=count) as bar:
        for start in range(0, count, RENDER_BATCH):
            specs = [sample_scene(split, i) for i in range(start, min(start + RENDER_BATCH, count))]
            frames = render_clips(
                specs, height=clips.height, width=clips.width, num_frames=clips.num_frames
            ).frames
            video = frames.movedim(-1, 1) * 2 - 1
            latents.append(normalise_latents(vae.encode(video).latent_dist.mode(), vae))
            bar.advance(len(specs))
    save_tensors(path, {"latents": torch.cat(latents)}, metadata=key)
    return torch.cat(latents)
