"""The models of a plan: the real classes at their real dimensions, on the meta device."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from torch import Tensor, nn
from transformers import UMT5Config, UMT5EncoderModel

from vggrpo.backbones import GeometryBackbone, LatentSpec
from vggrpo.backbones.checkpoint import checkpoint_names
from vggrpo.backbones.geometry_loading import NETWORKS, identify_network, locate_weights, own_network
from vggrpo.backbones.pipelines import lora
from vggrpo.backbones.wan.official import pipeline_shape
from vggrpo.backbones.wan.vae import WAN21_STRIDES
from vggrpo.config import ConfigError, ModelRunSettings, resolve_model
from vggrpo.lgm import Connector, LatentGeometryModel
from vggrpo.lgm.model import GEOMETRY_FOLDER, read_lgm_config
from vggrpo.lgm.unfolding import STRIDE, token_grid
from vggrpo.training.plan.counting import Cost, extrapolated, measure, num_parameters, saved_elsewhere
from vggrpo.training.runtime import autocast

FEW_BLOCKS = (4, 5)
"""Blocks of which denoisers are counted; every further one costs as much."""
FEW_VIEWS = (3, 4)
"""Latent frames of which autoencoders are counted; every further one costs as much."""


class VideoPlan:
    """A Wan model on clips of a size, its transformer held in the types that a run holds it in.

    Its costs are measured within `without_values`, after `empty_weights` of its modules.
    """

    def __init__(
        self, name: str, settings: ModelRunSettings, clip: tuple[int, int, int], checkpointing: bool = False
    ) -> None:
        """`clip`: (num_frames, height, width).

        Raises:
            ConfigError: if there is no such model, or it cannot make such clips.
        """
        shape = pipeline_shape(name)
        vae = {**WAN21_STRIDES, **shape.vae}
        self.latent_spec = LatentSpec(
            vae["z_dim"], vae["scale_factor_spatial"], vae["scale_factor_temporal"], fingerprint="plan"
        )
        try:
            self.latent_shape = self.latent_spec.latent_shape(*clip)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        self.num_frames, self.height, self.width = clip
        self.precision = settings.precision
        self.efficiency = settings.efficiency
        self.text_shape: tuple[int, int] = (shape.text_length, shape.transformer["text_dim"])
        """(L, D) of a prompt's embedding."""
        dtype = torch.bfloat16 if settings.weights == "bfloat16" else torch.float32
        with torch.device("meta"):
            self.transformer = WanTransformer3DModel.from_config(shape.transformer)
            self.vae = AutoencoderKLWan.from_config(shape.vae)
            text_encoder = UMT5EncoderModel(UMT5Config(**shape.text_encoder))
        _hold_in(self.transformer, dtype)
        for module in (self.transformer, self.vae):
            module.requires_grad_(False).eval()
        if checkpointing:
            self.transformer.enable_gradient_checkpointing()
        self.text_encoder_bytes = num_parameters(text_encoder) * dtype.itemsize

    def latents(self, batch: int) -> Tensor:
        """[B, C, T, H, W] of whole clips."""
        return torch.empty(batch, *self.latent_shape)

    def denoise(self, batch: int, guided: bool) -> Cost:
        """A velocity of `batch` samples; without gradients."""
        with torch.no_grad():
            return self._over_blocks(lambda: self._velocity(batch, guided))

    def denoise_and_backpropagate(self, batch: int, guided: bool, with_base: bool) -> Cost:
        """The policy's velocity with gradients, the base model's beside it if `with_base`, and the backward
        pass."""

        def run() -> None:
            velocity = self._velocity(batch, guided)
            loss = velocity.square().mean()
            if with_base:
                with torch.no_grad(), lora.lora_disabled(self.transformer):
                    base = self._velocity(batch, guided)
                loss = loss + (velocity - base).square().mean()
            loss.backward()

        cost = self._over_blocks(run)
        self.transformer.zero_grad()
        return cost

    def decode(self) -> Cost:
        """One clip's latents to frames."""
        height, width = self.height, self.width
        tiles = 1
        if self.efficiency.tiled_decoding:
            steps = (self.vae.tile_sample_stride_height, self.vae.tile_sample_stride_width)
            tiles = -(-height // steps[0]) * -(-width // steps[1])
            height = min(height, self.vae.tile_sample_min_height)
            width = min(width, self.vae.tile_sample_min_width)
        stride = self.latent_spec.spatial_stride

        def run(views: int) -> Tensor:
            latents = torch.empty(1, self.latent_spec.channels, views, height // stride, width // stride)
            return self.vae.decode(latents, return_dict=False)[0]

        cost = self._over_time(run)
        if tiles == 1:
            return cost
        # Tiles, the blended rows and the video exist at once. Those at the edges are counted as whole ones.
        video = 3 * self.num_frames * self.height * self.width * torch.float32.itemsize
        return Cost(tiles * cost.flops, cost.peak + 3 * video)

    def encode(self) -> Cost:
        """One clip's frames to latents."""

        def run(views: int) -> Tensor:
            num_frames = (views - 1) * self.latent_spec.temporal_stride + 1
            video = torch.empty(1, 3, num_frames, self.height, self.width)
            return self.vae.encode(video).latent_dist.mode()

        return self._over_time(run)

    def _velocity(self, batch: int, guided: bool) -> Tensor:
        """As `WanBackbone.velocity`, of whole clips."""
        latents, timesteps = self.latents(batch), torch.empty(batch)
        embeds = torch.empty(batch, *self.text_shape)

        def one_pass(times: int) -> Tensor:
            inputs: tuple[Tensor, ...] = (latents, timesteps, embeds)
            if times > 1:
                inputs = tuple(torch.cat([tensor] * times) for tensor in inputs)
            with autocast(self.precision), saved_elsewhere(self.efficiency.offload_activations):
                return self.transformer(*inputs, return_dict=False)[0].float()

        if not guided:
            return one_pass(1)
        if self.efficiency.cfg_batched:
            velocity, unguided = one_pass(2).chunk(2)
        else:
            velocity, unguided = one_pass(1), one_pass(1)
        return unguided + 2.0 * (velocity - unguided)

    def _over_blocks(self, run: Callable[[], object]) -> Cost:
        blocks = self.transformer.blocks

        def cost_of(number: int) -> Cost:
            self.transformer.blocks = blocks[:number]
            try:
                return measure(run)
            finally:
                self.transformer.blocks = blocks

        return extrapolated(cost_of, len(blocks), FEW_BLOCKS)

    def _over_time(self, run: Callable[[int], Tensor]) -> Cost:
        with torch.no_grad():
            return extrapolated(lambda views: measure(partial(run, views)), self.latent_shape[1], FEW_VIEWS)


class GeometryPlan:
    """A geometry model, uncut or entered from latents, on a video model's clips; used as `VideoPlan`."""

    def __init__(self, model: GeometryBackbone | LatentGeometryModel, video: VideoPlan) -> None:
        self.model, self.video = model, video

    def look(self, batch: int) -> Cost:
        """The scenes of `batch` clips; without gradients."""
        with torch.no_grad():
            return measure(lambda: self.model(self._input(batch)))

    def look_and_backpropagate(self, batch: int, precision: str) -> Cost:
        """The scenes with gradients, and the backward pass of all that is in them."""

        def run() -> None:
            with autocast(precision), saved_elsewhere(self.video.efficiency.offload_activations):
                scene = self.model(self._input(batch))
            parts = [tensor.float().square().mean() for tensor in scene.as_dict().values()]
            torch.stack(parts).sum().backward()

        cost = measure(run)
        self.model.zero_grad()
        return cost

    @property
    def raster(self) -> tuple[int, int, int]:
        """(views, height, width) of a scene."""
        backbone = self.model.backbone if isinstance(self.model, LatentGeometryModel) else self.model
        _, views, height, width = self.video.latent_shape
        h, w = token_grid(height, width, STRIDE)
        return views, backbone.patch_size * h, backbone.patch_size * w

    def _input(self, batch: int) -> Tensor:
        if isinstance(self.model, LatentGeometryModel):
            return self.video.latents(batch)
        return torch.empty(batch, *self.raster, 3)


def geometry_on_meta(name: str) -> GeometryBackbone:
    """A geometry model by name, in a folder, or in a weight file; reads no values of weights.

    Raises:
        ConfigError: if there is no such model, or it is in a repository whose weights alone say which it is.
        FileNotFoundError, CorruptFileError: if its files are missing or damaged.
    """
    source = resolve_model(name, "geometry")
    if source.folder is not None and (own := own_network(source, source.folder)) is not None:
        return own.meta_from_pretrained(source.folder)
    model_type = source.network
    if model_type is None:
        if source.folder is None:
            raise ConfigError(
                f"only the weights of {name} say which network it is; plan with any4d or vggt instead"
            )
        path = locate_weights(source)
        model_type = identify_network(checkpoint_names(path), path)
    network = NETWORKS[model_type]
    return network.on_meta(network.config_type.official())


def stitched_on_meta(geometry: GeometryBackbone, point: str, video: VideoPlan) -> LatentGeometryModel:
    """A geometry model entered at `point` from a video model's latents. Takes the geometry model over.

    Raises:
        ConfigError: if there is no such point.
    """
    try:
        stitch = geometry.stitch_point(point)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    _, _, height, width = video.latent_shape
    with torch.device("meta"):
        connector = Connector.for_point(stitch, video.latent_spec.channels, token_grid(height, width, STRIDE))
    return LatentGeometryModel(geometry, connector, point, video.latent_spec, "plan", "plan")


def saved_on_meta(folder: Path, video: VideoPlan) -> LatentGeometryModel:
    """A latent geometry model in its folder, without its weights.

    Raises:
        FileNotFoundError, CorruptFileError: if the folder holds no such model, or is damaged.
        ConfigError: if it reads latents of another shape than the video model's.
    """
    config = read_lgm_config(folder)
    with torch.device("meta"):
        connector = Connector.from_config(config["connector"])
    geometry = geometry_on_meta(str(folder / GEOMETRY_FOLDER))
    try:
        return LatentGeometryModel(
            geometry, connector, config["stitch_point"], video.latent_spec, "plan", "plan"
        )
    except ValueError as error:
        raise ConfigError(f"{folder} is the latent geometry model of another video model: {error}") from error


def _hold_in(transformer: nn.Module, dtype: torch.dtype) -> None:
    """The types of `WanTransformer3DModel.from_pretrained(dtype=dtype)`: some parts stay in float32."""
    kept = set(getattr(transformer, "_keep_in_fp32_modules", None) or ())
    for name, parameter in transformer.named_parameters():
        if kept.isdisjoint(name.split(".")):
            parameter.data = parameter.data.to(dtype)
