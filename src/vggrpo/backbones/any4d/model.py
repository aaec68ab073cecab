"""Any4D as a `GeometryBackbone`: frames or stitched tokens in, `SceneGeometry` out."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from vggrpo.backbones.any4d.adapter import scene_from_prediction
from vggrpo.backbones.any4d.config import Any4DConfig
from vggrpo.backbones.any4d.initialisation import reset_parameters
from vggrpo.backbones.any4d.keys import from_upstream
from vggrpo.backbones.any4d.network import Any4DNetwork
from vggrpo.backbones.any4d.prediction import Any4DPrediction
from vggrpo.backbones.any4d.storage import (
    assign_weights,
    load_weights,
    read_config,
    read_upstream,
    write_model,
)
from vggrpo.backbones.base import GeometryBackbone, StitchPoint
from vggrpo.config.errors import CorruptFileError
from vggrpo.geometry import SceneGeometry


class Any4D(GeometryBackbone):
    """The Any4D network with its stitch points E0 ... E<depth> around the encoder blocks, and F.

    F lies after the encoder's final norm. The scale token, the mark of view 0 and all inputs of the heads
    come from behind these points, so nothing is lost at any of them.
    """

    def __init__(self, config: Any4DConfig, anchor_first_view: bool = True) -> None:
        """`anchor_first_view`: scenes in the frame of view 0's camera, see `scene_from_prediction`."""
        super().__init__()
        self.config = config
        self.patch_size = config.patch_size
        self.anchor_first_view = anchor_first_view
        self.network = Any4DNetwork(config)
        self.dropped_before: str | None = None
        """The stitch point before which everything has been deleted; None for a whole model."""

    @property
    def stitch_points(self) -> tuple[StitchPoint, ...]:
        return tuple(
            StitchPoint(name, self.config.encoder_dim, num_special_tokens=0 if name == "F" else 1)
            for name in self.config.stitch_points
        )

    def forward(self, frames: Tensor) -> SceneGeometry:
        self._require_whole()
        return scene_from_prediction(self.network.predict(frames), self.anchor_first_view)

    def tokens_at(self, frames: Tensor, points: Iterable[str]) -> dict[str, tuple[Tensor, Tensor]]:
        self._require_whole()
        numbers = {name: self._number(name) for name in points}
        last = max(numbers.values(), default=-1)
        states = list(zip(range(last + 1), self._encoder_states(frames), strict=False))
        return {name: states[number][1] for name, number in numbers.items()}

    def position_code(self, point: str, grid: tuple[int, int]) -> Tensor | None:
        if self._number(point) > 0:
            return None
        self._require_whole()
        return self.network.encoder.position_code(grid)[0]

    def finish_from(
        self, point: str, patch_tokens: Tensor, special_tokens: Tensor, grid: tuple[int, int]
    ) -> SceneGeometry:
        prediction = self.predict_from(point, patch_tokens, special_tokens, grid)
        return scene_from_prediction(prediction, self.anchor_first_view)

    def predict_from(
        self, point: str, patch_tokens: Tensor, special_tokens: Tensor, grid: tuple[int, int]
    ) -> Any4DPrediction:
        """As `finish_from`, but the network's raw prediction.

        Raises:
            ValueError: if there is no such point, it has been dropped, or the tokens do not have its shape.
        """
        number = self._number(point)
        if self.dropped_before is not None and number < self._number(self.dropped_before):
            raise ValueError(
                f"stitch point is {point!r}, but the layers before {self.dropped_before} have been dropped; "
                f"enter at {self.dropped_before} or later, or load the whole model"
            )
        self._check_tokens(point, patch_tokens, special_tokens, grid)
        if point == "F":
            return self.network.predict_from_features(patch_tokens, grid)
        tokens = torch.cat([special_tokens, patch_tokens], dim=2).flatten(0, 1)
        features = self.network.encoder.finish(tokens, first_block=number)
        return self.network.predict_from_features(features.unflatten(0, patch_tokens.shape[:2]), grid)

    def drop_before(self, point: str) -> None:
        number = self._number(point)
        encoder = self.network.encoder
        encoder.drop_before(min(number, self.config.encoder_depth))
        if point == "F" and hasattr(encoder, "norm"):
            del encoder.norm
        if self.dropped_before is None or number > self._number(self.dropped_before):
            self.dropped_before = point

    def lora_target_modules(self, point: str) -> Iterator[str]:
        number = self._number(point)
        before = ["network.encoder.patch_embed", *(f"network.encoder.blocks.{k}." for k in range(number))]
        return (name for name in super().lora_target_modules(point) if not name.startswith(tuple(before)))

    def reset_parameters(self, *, depth: float = 1.0, generator: torch.Generator | None = None) -> None:
        """Draws all weights anew for training from scratch, see `any4d.initialisation.reset_parameters`."""
        reset_parameters(self.network, depth=depth, generator=generator)

    def save_pretrained(self, folder: Path) -> None:
        write_model(folder, self.config, self.dropped_before, self.network.state_dict())

    @classmethod
    def from_pretrained(cls, folder: Path | str, anchor_first_view: bool = True) -> "Any4D":
        """A model written by `save_pretrained`, frozen, in evaluation mode, on the CPU.

        Raises:
            FileNotFoundError: if the folder lacks a file.
            CorruptFileError: if config.json or the weights are damaged or do not fit each other.
        """
        config, dropped_before = read_config(Path(folder))
        with torch.device("meta"):
            model = cls(config, anchor_first_view)
        if dropped_before is not None:
            model.drop_before(dropped_before)
        load_weights(Path(folder), model.network)
        return model.requires_grad_(False).eval()

    @classmethod
    def from_upstream(
        cls, path: Path | str, config: Any4DConfig | None = None, anchor_first_view: bool = True
    ) -> "Any4D":
        """Any4D's published checkpoint (.pth or .safetensors), frozen, in evaluation mode, on the CPU.

        `config` is the official one unless given.

        Raises:
            FileNotFoundError: if there is no such file.
            CorruptFileError: if it cannot be read, or is not an Any4D of these dimensions.
        """
        config = config or Any4DConfig.official()
        with torch.device("meta"):
            model = cls(config, anchor_first_view)
        upstream = read_upstream(Path(path))
        try:
            tensors = from_upstream(upstream, model.network.state_dict(), config)
        except ValueError as error:
            raise CorruptFileError(f"{path} is not an Any4D of these dimensions: {error}") from error
        assign_weights(model.network, tensors)
        return model.requires_grad_(False).eval()

    def _number(self, point: str) -> int:
        return self.stitch_points.index(self.stitch_point(point))

    def _encoder_states(self, frames: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """(patch tokens, special tokens) at every stitch point in turn; each is computed when asked for."""
        encoder, views = self.network.encoder, frames.shape[:2]

        def split(tokens: Tensor) -> tuple[Tensor, Tensor]:
            tokens = tokens.unflatten(0, views)
            return tokens[:, :, encoder.num_special_tokens :], tokens[:, :, : encoder.num_special_tokens]

        tokens = self.network.embed(frames)
        yield split(tokens)
        for block in encoder.blocks:
            tokens = block(tokens)
            yield split(tokens)
        features = encoder.finish(tokens, first_block=len(encoder.blocks)).unflatten(0, views)
        yield features, features[:, :, :0]

    def _require_whole(self) -> None:
        if self.dropped_before is not None:
            raise ValueError(
                f"this geometry model can no longer read frames: its layers before {self.dropped_before} "
                "have been dropped; load the whole model for that"
            )

    def _check_tokens(self, point: str, patch: Tensor, special: Tensor, grid: tuple[int, int]) -> None:
        width, num_special = self.config.encoder_dim, self.stitch_point(point).num_special_tokens
        for name, tokens, count in (
            ("patch_tokens", patch, grid[0] * grid[1]),
            ("special_tokens", special, num_special),
        ):
            if tokens.ndim != 4 or tokens.shape[:2] != patch.shape[:2] or tokens.shape[2:] != (count, width):
                raise ValueError(
                    f"{name} have shape {list(tokens.shape)}, but at {point} with a grid of "
                    f"{grid[0]}x{grid[1]} [B, T, {count}, {width}] is expected"
                )
