"""Settings of the commands that train a family of base models on the procedural world."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from vggrpo.config.base import RunSettings, Settings


class LoopSettings(Settings):
    """What every supervised training has: length, optimizer, and when to log, evaluate and save."""

    steps: PositiveInt = Field(description="optimizer steps in all, over which the learning rate decays")
    stop_after: PositiveInt | None = Field(
        None, description="end after this many steps, before the learning rate has decayed to 0"
    )
    batch_size: PositiveInt = Field(description="clips an optimizer step")
    lr: PositiveFloat = Field(description="peak learning rate of AdamW")
    weight_decay: NonNegativeFloat = 0.0
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.99, ge=0, lt=1)
    warmup_steps: PositiveInt = Field(100, description="steps of linear warm-up before the cosine decay")
    grad_clip: PositiveFloat = Field(1.0, description="largest gradient norm")
    ema_decay: float = Field(
        0.0, ge=0, lt=1, description="decay of the weights' moving average; 0 keeps none"
    )
    log_every: PositiveInt = 10
    evaluate_every: PositiveInt = 500
    checkpoint_every: PositiveInt = 500
    keep_checkpoints: PositiveInt = 2

    @property
    def last_step(self) -> int:
        """The number of steps that are made."""
        return self.steps if self.stop_after is None else self.stop_after

    @model_validator(mode="after")
    def _stops_in_time(self) -> Self:
        if self.stop_after is not None and self.stop_after > self.steps:
            raise ValueError(
                f"stop_after is {self.stop_after}, but there are only {self.steps} steps; leave it unset"
            )
        return self


class ClipSettings(Settings):
    """The raster of the world's clips."""

    num_frames: PositiveInt = 17
    height: PositiveInt = 48
    width: PositiveInt = 64


class PretrainSettings(RunSettings):
    """What the three base-model trainings share."""

    init: Path | None = Field(
        None, description="folder of a model of the same architecture to start from; unset: from scratch"
    )
    clips: ClipSettings = ClipSettings()
    loop: LoopSettings


class VAEArchitecture(Settings):
    """Arguments of diffusers' AutoencoderKLWan."""

    base_dim: PositiveInt = 16
    dim_mult: tuple[PositiveInt, ...] = (1, 2, 4)
    num_res_blocks: PositiveInt = 1
    z_dim: PositiveInt = 16
    temporal_downsample: tuple[bool, ...] = (True, True)


class VAESettings(PretrainSettings):
    """`vggrpo world train-vae`."""

    architecture: VAEArchitecture = VAEArchitecture()
    num_clips: PositiveInt = Field(1024, description="training clips, rendered once")
    crop_frames: PositiveInt = Field(9, description="frames of a training crop")
    crop_size: PositiveInt = Field(32, description="side of a training crop in pixels")
    full_share: float = Field(
        0.2, ge=0, le=1, description="share of the steps, the last ones, on whole clips"
    )
    full_batch_size: PositiveInt = Field(4, description="whole clips an optimizer step")
    muon_lr: PositiveFloat = Field(0.02, description="peak learning rate of Muon on the convolutions")
    kl_weight: NonNegativeFloat = 1e-6
    l2_weight: NonNegativeFloat = Field(1.0, description="weight of the squared error, which PSNR measures")
    gradient_weight: NonNegativeFloat = Field(0.5, description="weight of the L1 error of image gradients")


class GeometryArchitecture(Settings):
    """Dimensions of an Any4D network."""

    patch_size: PositiveInt = 8
    encoder_dim: PositiveInt = 128
    encoder_depth: PositiveInt = 4
    encoder_heads: PositiveInt = 4
    position_grid: PositiveInt = Field(8, description="side of the encoder's square table of positions")
    multi_view_dim: PositiveInt = 128
    multi_view_depth: PositiveInt = 8
    multi_view_heads: PositiveInt = 4
    multi_view_hooks: tuple[PositiveInt, PositiveInt] = (3, 5)
    dpt_features: PositiveInt = 32
    dpt_layer_dims: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (16, 32, 48, 64)
    scale_dim: PositiveInt = 64


HeadName = Literal["dense_head", "scene_flow_head", "pose_head", "scale_head"]


class GeometrySettings(PretrainSettings):
    """`vggrpo world train-geometry`."""

    architecture: GeometryArchitecture = GeometryArchitecture()
    muon_lr: PositiveFloat = Field(0.02, description="peak learning rate of Muon on the matrices")
    matching_blocks: tuple[NonNegativeInt, ...] = Field(
        (2, 4),
        description="global blocks of the multi-view transformer whose heads 0 and 1 are taught to match",
    )
    attention_weight: NonNegativeFloat = Field(
        1.0, description="weight of the loss on those heads' attention"
    )
    token_weight: NonNegativeFloat = Field(2.0, description="weight of the loss on the last tokens")
    adamw_heads: tuple[HeadName, ...] = Field(
        ("dense_head", "scene_flow_head", "pose_head", "scale_head"),
        description="heads that AdamW trains: Muon makes full-size updates of the smallest gradients, "
        "under which a head's ReLUs can die",
    )
    fresh_heads: tuple[HeadName, ...] = Field(
        (), description="heads that start anew instead of from `init`, where a head has died"
    )
    dense_every: PositiveInt = Field(3, description="the dense heads run in one of this many steps")
    first_clip: NonNegativeInt = Field(
        0, description="number of the first clip; a continued training needs new ones"
    )
    clip_window: PositiveInt = Field(1024, description="clips of the world among which a step draws")
    fresh_clips: PositiveInt = Field(2, description="clips by which that window moves on each step")

    @model_validator(mode="after")
    def _something_to_renew(self) -> Self:
        if self.fresh_heads and self.init is None:
            raise ValueError(
                "fresh_heads is set, but init is not: from scratch all heads are new; leave it out"
            )
        return self

    @model_validator(mode="after")
    def _guided_heads_exist(self) -> Self:
        depth, heads = self.architecture.multi_view_depth, self.architecture.multi_view_heads
        wrong = [block for block in self.matching_blocks if block % 2 or block >= depth]
        if wrong:
            raise ValueError(
                f"matching_blocks names {', '.join(map(str, wrong))}, but the global blocks of a multi-view "
                f"transformer of {depth} blocks are the even numbers below {depth}"
            )
        if heads < 2:
            raise ValueError(f"multi_view_heads is {heads}, but two heads are guided: give 2 or more")
        return self


class TransformerArchitecture(Settings):
    """Arguments of diffusers' WanTransformer3DModel, and of the small text encoder beside it."""

    num_attention_heads: PositiveInt = 6
    attention_head_dim: PositiveInt = 32
    num_layers: PositiveInt = 6
    ffn_dim: PositiveInt = 576
    patch_size: tuple[PositiveInt, PositiveInt, PositiveInt] = (1, 2, 2)
    text_dim: PositiveInt = 64
    text_layers: PositiveInt = 2
    text_length: PositiveInt = 32


class VideoSettings(PretrainSettings):
    """`vggrpo world train-video`."""

    architecture: TransformerArchitecture = TransformerArchitecture()
    vae: Path = Field(description="folder of a trained autoencoder (`vggrpo world train-vae`)")
    num_clips: PositiveInt = Field(4096, description="training clips, rendered and encoded once")
    flow_shift: PositiveFloat = Field(3.0, description="shift of the sigma grid, in training and sampling")
    image_steps: NonNegativeInt = Field(
        0, description="first steps, which see the clips' first latent frames only: pictures are cheaper"
    )
    image_batch_size: PositiveInt = Field(128, description="pictures in such a step")
    prediction: Literal["velocity", "clean"] = Field(
        "velocity",
        description="what the denoiser predicts: with patches of many latent values, the clean latents are "
        "far easier than the velocity, which holds all of the noise",
    )
    sigma_floor: PositiveFloat = Field(
        0.3, description="with `clean`, the squared error at sigma counts 1 / max(sigma, this)^2"
    )
    muon_lr: PositiveFloat = Field(0.02, description="peak learning rate of Muon on the matrices")
    caption_dropout: float = Field(0.1, ge=0, lt=1, description="share of captions replaced by the empty one")

    @model_validator(mode="after")
    def _ends_on_clips(self) -> Self:
        if self.image_steps >= self.loop.last_step:
            raise ValueError(
                f"image_steps is {self.image_steps}, but the training has {self.loop.last_step} steps: none "
                "would see a clip"
            )
        return self
