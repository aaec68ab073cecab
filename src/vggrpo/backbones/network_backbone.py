"""What Any4D and VGGT share as geometry backbones: entering, cutting, files; each adds what lies behind the
encoder."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from vggrpo.backbones.base import NOTHING_LOST, GeometryBackbone, StitchPoint
from vggrpo.backbones.checkpoint import KeyMap, KeyReport, read_checkpoint
from vggrpo.backbones.image_network import ImageNetwork
from vggrpo.backbones.network_config import NetworkConfig
from vggrpo.backbones.storage import assign_weights, load_weights, read_config, write_model
from vggrpo.backbones.vit import Block, Recomputable
from vggrpo.config.errors import CorruptFileError
from vggrpo.geometry import SceneGeometry

NamedTokens = tuple[str, tuple[Tensor, Tensor]]
"""A stitch point or head input: name, patch tokens [B, T, h*w, width] and special tokens [B, T, S, width]."""


class NetworkBackbone(GeometryBackbone):
    """A geometry network with stitch points around its image encoder's blocks, and later ones of its own.

    Stitch points are numbered: 0 ... depth lie before each encoder block and after the last one, those of the
    network follow, deep ones last.
    """

    config_type: ClassVar[type[NetworkConfig]]
    network_type: ClassVar[type[ImageNetwork]]
    signature: ClassVar[str]
    """Prefix by which upstream's checkpoints are told from those of other projects."""

    config: NetworkConfig
    network: ImageNetwork

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_size = config.patch_size
        self.network = self.network_type(config)
        self.dropped_before: str | None = None
        """The stitch point before which everything has been deleted; None for a whole model."""

    @staticmethod
    @abstractmethod
    def key_map(config: Any) -> KeyMap:
        """Upstream's parameter names for a network of these dimensions."""

    @abstractmethod
    def predict_from(
        self,
        point: str,
        patch_tokens: Tensor,
        special_tokens: Tensor,
        grid: tuple[int, int],
        lost: Mapping[str, Tensor] = NOTHING_LOST,
    ) -> Any:
        """As `finish_from`, but the network's raw prediction.

        Raises:
            ValueError: if there is no such point, it has been dropped, or the tokens or what is lost do not
                have its shapes.
        """

    @abstractmethod
    def _point(self, number: int, name: str) -> StitchPoint:
        """What must be known of stitch point `number`."""

    @abstractmethod
    def _scene(self, frames: Tensor) -> SceneGeometry:
        """The scene of frames [B, T, H, W, 3], by the whole model."""

    @abstractmethod
    def _states_after_encoder(self, features: Tensor, grid: tuple[int, int]) -> Iterator[NamedTokens]:
        """The tokens at each stitch point and head input behind the encoder, from its features on."""

    def _drop_after_encoder(self, number: int) -> None:
        """Deletes what lies between the encoder and stitch point `number`, and all that no scene needs."""

    def _modules_before(self, number: int) -> tuple[str, ...]:
        """How the names begin of modules that `finish_from` never runs from stitch point `number` on."""
        blocks = range(min(number, self.config.encoder_depth))
        return ("network.encoder.patch_embed", *(f"network.encoder.blocks.{k}." for k in blocks))

    @property
    def stitch_points(self) -> tuple[StitchPoint, ...]:
        return tuple(self._point(number, name) for number, name in enumerate(self.config.stitch_points))

    @property
    def deep_stitch_points(self) -> tuple[StitchPoint, ...]:
        names, first = self.config.deep_stitch_points, len(self.config.stitch_points)
        return tuple(self._point(number, name) for number, name in enumerate(names, first))

    def forward(self, frames: Tensor) -> SceneGeometry:
        self._require_whole()
        return self._scene(frames)

    def tokens_at(self, frames: Tensor, points: Iterable[str]) -> dict[str, tuple[Tensor, Tensor]]:
        self._require_whole()
        names = list(points)
        head_inputs = {lost.name for point in self.deep_stitch_points for lost in point.lost}
        for name in names:
            if name not in head_inputs:
                self.stitch_point(name)
        states, found = self._states(frames), dict[str, tuple[Tensor, Tensor]]()
        while not found.keys() >= set(names):
            name, tokens = next(states)
            if name in names:
                found[name] = tokens
        return {name: found[name] for name in names}

    def position_code(self, point: str, grid: tuple[int, int]) -> Tensor | None:
        if self._number(point) > 0:
            return None
        self._require_whole()
        return self.network.encoder.position_code(grid)[0]

    def block_names(self, point: str) -> list[str]:
        before = self._modules_before(self._number(point))
        return [
            name
            for name, module in self.named_modules()
            if isinstance(module, Block) and not f"{name}.".startswith(before)
        ]

    def drop_before(self, point: str) -> None:
        number = self._number(point)
        self.network.encoder.drop_before(number)
        self._drop_after_encoder(number)
        if self.dropped_before is None or number > self._number(self.dropped_before):
            self.dropped_before = point

    def enable_gradient_checkpointing(self) -> None:
        for module in self.modules():
            if isinstance(module, Recomputable):
                module.recompute = True

    def lora_target_modules(self, point: str) -> Iterator[str]:
        before = self._modules_before(self._number(point))
        return (name for name in super().lora_target_modules(point) if not name.startswith(before))

    def save_pretrained(self, folder: Path) -> None:
        write_model(folder, self.config, self.dropped_before, self.network.state_dict())

    @classmethod
    def on_meta(cls, config: NetworkConfig) -> Self:
        """A model without memory for its weights: shapes only."""
        with torch.device("meta"):
            return cls(config)

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> Self:
        """A model written by `save_pretrained`, frozen, in evaluation mode, on the CPU.

        Raises:
            FileNotFoundError: if the folder lacks a file.
            CorruptFileError: if config.json or the weights are damaged or do not fit each other.
        """
        model = cls.meta_from_pretrained(folder)
        load_weights(Path(folder), model.network)
        return model.requires_grad_(False).eval()

    @classmethod
    def meta_from_pretrained(cls, folder: Path | str) -> Self:
        """As `from_pretrained`, but without memory for its weights, which are not looked at."""
        config, dropped_before = read_config(Path(folder), cls.config_type)
        model = cls.on_meta(config)
        if dropped_before is not None:
            model.drop_before(dropped_before)
        return model

    @classmethod
    def from_upstream(cls, path: Path | str, config: NetworkConfig | None = None) -> Self:
        """The network's published checkpoint (PyTorch or .safetensors), frozen, in evaluation mode, on the
        CPU.

        `config` is the official one unless given.

        Raises:
            FileNotFoundError: if there is no such file.
            CorruptFileError: if it cannot be read, or is not this network at these dimensions.
        """
        return cls.from_checkpoint(read_checkpoint(Path(path)), str(path), config)

    @classmethod
    def from_checkpoint(
        cls, tensors: Mapping[str, Tensor], source: str, config: NetworkConfig | None = None
    ) -> Self:
        """As `from_upstream`, of tensors that have been read already; `source` names them in errors."""
        model = cls.on_meta(config or cls.config_type.official())
        try:
            own = cls.key_map(model.config).translate(tensors, model.network.state_dict())
        except ValueError as error:
            raise CorruptFileError(
                f"{source} is not {cls.config_type.title} of these dimensions: {error}"
            ) from error
        assign_weights(model.network, own)
        return model.requires_grad_(False).eval()

    @classmethod
    def compare_checkpoint(
        cls, tensors: Mapping[str, Tensor], config: NetworkConfig | None = None
    ) -> KeyReport:
        """What `from_checkpoint` would do with each tensor; builds no model."""
        model = cls.on_meta(config or cls.config_type.official())
        return cls.key_map(model.config).compare(tensors, model.network.state_dict())

    def _number(self, point: str) -> int:
        return (*self.stitch_points, *self.deep_stitch_points).index(self.stitch_point(point))

    def _states(self, frames: Tensor) -> Iterator[NamedTokens]:
        """The tokens at every stitch point and head input in turn; each is computed when asked for."""
        encoder, views = self.network.encoder, frames.shape[:2]

        def split(tokens: Tensor) -> tuple[Tensor, Tensor]:
            tokens = tokens.unflatten(0, views)
            return tokens[:, :, encoder.num_special_tokens :], tokens[:, :, : encoder.num_special_tokens]

        tokens = self.network.embed(frames)
        yield "E0", split(tokens)
        for number, block in enumerate(encoder.blocks, 1):
            tokens = block(tokens)
            yield f"E{number}", split(tokens)
        features = encoder.finish(tokens, first_block=len(encoder.blocks)).unflatten(0, views)
        yield from self._states_after_encoder(features, self.network.grid(frames))

    def _finish_encoder(self, number: int, patch_tokens: Tensor, special_tokens: Tensor) -> Tensor:
        """Encoder features [B, T, h*w, C] of the tokens before encoder block `number`."""
        tokens = torch.cat([special_tokens, patch_tokens], dim=2).flatten(0, 1)
        features = self.network.encoder.finish(tokens, first_block=number)
        return features.unflatten(0, patch_tokens.shape[:2])

    def _enter(
        self,
        point: str,
        patch_tokens: Tensor,
        special_tokens: Tensor,
        grid: tuple[int, int],
        lost: Mapping[str, Tensor],
    ) -> int:
        """The point's number, after all that can be wrong has been checked."""
        stitch_point, number = self.stitch_point(point), self._number(point)
        if self.dropped_before is not None and number < self._number(self.dropped_before):
            raise ValueError(
                f"stitch point is {point!r}, but the layers before {self.dropped_before} have been dropped; "
                f"enter at {self.dropped_before} or later, or load the whole model"
            )
        _check_tokens(stitch_point, patch_tokens, special_tokens, grid, lost)
        return number

    def _require_whole(self) -> None:
        if self.dropped_before is not None:
            raise ValueError(
                f"this geometry model can no longer read frames: its layers before {self.dropped_before} "
                "have been dropped; load the whole model for that"
            )


def _check_tokens(
    point: StitchPoint, patch: Tensor, special: Tensor, grid: tuple[int, int], lost: Mapping[str, Tensor]
) -> None:
    needed = [head_input.name for head_input in point.lost]
    if set(lost) != set(needed):
        raise ValueError(
            f"at {point.name} the heads have lost {', '.join(needed) or 'nothing'}, but what is supplied is "
            f"{', '.join(lost) or 'nothing'}"
        )
    places = grid[0] * grid[1]
    for name, tokens, count, width in (
        ("patch_tokens", patch, places, point.width),
        ("special_tokens", special, point.num_special_tokens, point.width),
        *((head_input.name, lost[head_input.name], places, head_input.width) for head_input in point.lost),
    ):
        expected = (count, width)
        if tokens.ndim != 4 or tokens.shape[:2] != patch.shape[:2] or tokens.shape[2:] != expected:
            raise ValueError(
                f"{name} have shape {list(tokens.shape)}, but at {point.name} with a grid of "
                f"{grid[0]}x{grid[1]} [B, T, {count}, {width}] is expected"
            )
