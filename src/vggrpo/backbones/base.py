"""The two interfaces behind which every frozen foundation model lives.

Code outside `backbones/` knows only these: a video model is text in, latents and velocities out; a
geometry model is frames in, `SceneGeometry` out, and can be entered at any of its stitch points.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from vggrpo.flow import SigmaSchedule
from vggrpo.geometry import SceneGeometry


@dataclass(frozen=True)
class LatentSpec:
    """What a consumer of latents must know about the autoencoder that made them."""

    channels: int
    spatial_stride: int
    temporal_stride: int
    fingerprint: str
    """SHA-256 of the autoencoder's weights and configuration: another's latents mean something else."""

    def latent_shape(self, num_frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """(C, T_lat, H_lat, W_lat) of a clip.

        Raises:
            ValueError: if `num_frames` is not n * temporal_stride + 1, or a side is not a multiple of the
                stride.
        """
        if num_frames < 1 or (num_frames - 1) % self.temporal_stride:
            below = max((num_frames - 1) // self.temporal_stride, 0) * self.temporal_stride + 1
            raise ValueError(
                f"num_frames is {num_frames}, but the autoencoder needs {self.temporal_stride}n + 1 frames; "
                f"use {below} or {below + self.temporal_stride}"
            )
        for name, side in (("height", height), ("width", width)):
            multiple = self.spatial_stride
            if side <= 0 or side % multiple:
                lower = max(side, 0) // multiple * multiple
                raise ValueError(
                    f"{name} is {side}, but the autoencoder needs a multiple of {multiple}; "
                    f"use {lower or multiple} or {lower + multiple}"
                )
        return (
            self.channels,
            (num_frames - 1) // self.temporal_stride + 1,
            height // self.spatial_stride,
            width // self.spatial_stride,
        )

    def view_frames(self, num_latent_frames: int) -> list[int]:
        """The video frame that each latent frame stands for: [0, 4, 8, ...] at a temporal stride of 4."""
        return [i * self.temporal_stride for i in range(num_latent_frames)]


class VideoBackbone(ABC):
    """A text-to-video flow model over normalised latents [B, C, T_lat, H_lat, W_lat], with optional LoRA.

    Its parts (text encoder, autoencoder, denoiser) are loaded when first used and can be released: while a
    policy trains, neither the autoencoder nor the text encoder is in memory.
    """

    device: torch.device
    """Where the parts are, and where latents and embeddings are expected and returned."""

    @property
    @abstractmethod
    def latent_spec(self) -> LatentSpec:
        """What consumers of this model's latents must know."""

    @property
    @abstractmethod
    def text_fingerprint(self) -> str:
        """SHA-256 of what determines text embeddings: the key of their caches."""

    @abstractmethod
    def identity(self) -> dict[str, str | float]:
        """What determines the base model's samples (fingerprints of its parts, and settings), fit for JSON.

        Reads the weight files, but loads nothing.
        """

    @abstractmethod
    def latent_shape(self, num_frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """(C, T_lat, H_lat, W_lat) of a clip that the denoiser can make; loads no weights.

        Raises:
            ValueError: if the autoencoder or the denoiser cannot take this size.
        """

    @abstractmethod
    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Text embeddings [N, L, D], float32, zero past each prompt's end. Loads the text encoder."""

    @abstractmethod
    def velocity(
        self,
        latents: Tensor,
        sigma: Tensor | float,
        prompt_embeds: Tensor,
        negative_prompt_embeds: Tensor | None = None,
        cfg_scale: float = 1.0,
    ) -> Tensor:
        """The flow's velocity (noise - x0) [B, C, T, H, W] at `sigma` ([B] or a number), in float32.

        `cfg_scale` 1 costs one forward; any other value needs `negative_prompt_embeds` and costs two, or
        one of twice the batch.
        """

    @abstractmethod
    def encode_video(self, frames: Tensor) -> Tensor:
        """Frames [B, T, H, W, 3] in [0, 1] to normalised latents (posterior mode). Loads the autoencoder.

        Raises:
            ValueError: if the autoencoder cannot take the frames' number or size.
        """

    @abstractmethod
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Normalised latents to frames [B, T, H, W, 3] in [0, 1]. Loads the autoencoder."""

    @abstractmethod
    def schedule(self, num_steps: int, latent_shape: Sequence[int] | None = None) -> SigmaSchedule:
        """The model's own float sigma grid of `num_steps` steps, ending in 0.

        `latent_shape` is the clip's, (C, T_lat, H_lat, W_lat): some models shift their grid by it.

        Raises:
            ValueError: if the grid depends on the clip's size, and it is not given.
        """

    @abstractmethod
    def add_lora(self, rank: int, alpha: float, targets: str = "attention", seed: int = 0) -> None:
        """Makes the denoiser a trainable policy: LoRA on "attention" or "attention+ffn", the rest frozen.

        The policy starts as the base model; `seed` draws the half of the factors that is not zero.
        """

    @abstractmethod
    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """The policy's parameters by name, float32."""

    @abstractmethod
    def lora_disabled(self) -> AbstractContextManager[None]:
        """Within the context the policy is exactly the base model (the reference policy)."""

    @abstractmethod
    def save_lora(self, folder: Path) -> None:
        """Writes LoRA weights that plain `pipe.load_lora_weights(folder)` loads, alpha included."""

    @abstractmethod
    def load_lora(self, folder: Path, scale: float = 1.0) -> None:
        """Loads LoRA weights written by `save_lora` (or by diffusers) for inference or further training."""

    @abstractmethod
    def load_loras(self, loras: Sequence[tuple[Path, float]]) -> None:
        """Loads several LoRAs, (folder, scale) each, whose effects add up, for inference."""

    @abstractmethod
    def check_lora(self, folder: Path) -> None:
        """Makes sure that a LoRA fits this model, without loading the model.

        Raises:
            FileNotFoundError, CorruptFileError: if the LoRA is missing, damaged or in another format.
            ConfigError: if it is another model's.
        """

    @abstractmethod
    def shard(self, mesh: DeviceMesh) -> None:
        """Shares the denoiser's frozen weights out over the processes of a mesh; a LoRA stays whole on each.

        From then on a forward pass is an exchange: all processes must make the same ones.
        """

    @abstractmethod
    def share_tokens(self, mesh: DeviceMesh, latent_shape: Sequence[int]) -> None:
        """Shares the tokens of clips [C, T_lat, H_lat, W_lat] out over the dimension "ulysses" of a mesh.

        Its processes must make the same forward passes, of the same clips; each gets the whole velocity. The
        gradient of a parameter is the sum of theirs.

        Raises:
            ConfigError: if attention heads or tokens cannot be divided by the processes, or this family's
                attention cannot be computed so.
        """

    @abstractmethod
    def release(self, *parts: str) -> None:
        """Frees "text_encoder" and/or "vae"; they load again when next used."""


@dataclass(frozen=True)
class HeadInput:
    """Patch tokens from the middle of a geometry backbone that its dense heads read."""

    name: str
    """"fused", "hook11", ... of Any4D; "layer4", ... of VGGT."""
    width: int


NOTHING_LOST: Mapping[str, Tensor] = MappingProxyType({})


@dataclass(frozen=True)
class StitchPoint:
    """A place at which a geometry backbone can be entered with tokens instead of images."""

    name: str
    """"E0", "E1", ... before an image-encoder block; "F" (Any4D) or "A0" (VGGT) after the encoder; "M0", ...
    before a block of Any4D's multi-view transformer; "A1", ... before a pair of blocks of VGGT's
    aggregator."""
    width: int
    """Channels of the patch tokens there."""
    num_special_tokens: int
    """Tokens beside the patches (class and register tokens) that must be supplied too."""
    reference_specials: bool = False
    """Whether view 0 has special tokens unlike the other views', by which the model knows its reference."""
    reference_patches: bool = False
    """Whether view 0's patch tokens are marked likewise, in their mean."""
    lost: tuple[HeadInput, ...] = ()
    """What the heads read from before this point, in their order: it must be supplied too."""


class GeometryBackbone(nn.Module, ABC):
    """A feed-forward geometry model: T views of one scene to cameras, depth, points and (4D models) scene
    flow."""

    patch_size: int

    @property
    @abstractmethod
    def stitch_points(self) -> tuple[StitchPoint, ...]:
        """The entry points at which nothing is lost that the heads read, from the first to the last."""

    @property
    @abstractmethod
    def deep_stitch_points(self) -> tuple[StitchPoint, ...]:
        """The entry points behind those, at which something is lost."""

    def stitch_point(self, name: str) -> StitchPoint:
        """The stitch point of that name.

        Raises:
            ValueError: if there is none.
        """
        for point in (*self.stitch_points, *self.deep_stitch_points):
            if point.name == name:
                return point
        names = ", ".join(point.name for point in self.stitch_points)
        deep = [point.name for point in self.deep_stitch_points]
        raise ValueError(
            f"stitch point is {name!r}, but this geometry model has {names} and, with auxiliary connectors, "
            f"{deep[0]} ... {deep[-1]}"
        )

    @abstractmethod
    def tokens_at(self, frames: Tensor, points: Iterable[str]) -> dict[str, tuple[Tensor, Tensor]]:
        """Runs the model on frames [B, T, H, W, 3] in [0, 1] up to the last of `points`.

        These may also be names of head inputs. Returns per point the patch tokens [B, T, h*w, width] and the
        special tokens [B, T, S, width] (S may be 0).
        """

    @abstractmethod
    def position_code(self, point: str, grid: tuple[int, int]) -> Tensor | None:
        """What the model itself adds per position to the patch tokens at `point`, [h*w, width]; None if
        unknown there."""

    @abstractmethod
    def finish_from(
        self,
        point: str,
        patch_tokens: Tensor,
        special_tokens: Tensor,
        grid: tuple[int, int],
        lost: Mapping[str, Tensor] = NOTHING_LOST,
    ) -> SceneGeometry:
        """The rest of the model: patch tokens [B, T, h*w, width] and special tokens [B, T, S, width] to
        geometry.

        `lost` are the point's lost head inputs by name, [B, T, h*w, width of each]. The geometry's raster is
        `patch_size * grid`. Differentiable.
        """

    @abstractmethod
    def forward(self, frames: Tensor) -> SceneGeometry:
        """Frames [B, T, H, W, 3] in [0, 1], sides multiples of `patch_size`, to geometry on the same
        raster."""

    @abstractmethod
    def block_names(self, point: str) -> list[str]:
        """Names of the transformer blocks that run after `point`."""

    @abstractmethod
    def drop_before(self, point: str) -> None:
        """Deletes the layers that `finish_from(point, ...)` never runs, to free their memory."""

    @abstractmethod
    def enable_gradient_checkpointing(self) -> None:
        """From now on backward passes compute blocks and dense heads anew instead of keeping what they
        need."""

    @abstractmethod
    def save_pretrained(self, folder: Path) -> None:
        """Writes config.json and model.safetensors."""

    def lora_target_modules(self, point: str) -> Iterator[str]:
        """Names of the Linear and convolution layers that run after `point` (every one but those dropped)."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                yield name
