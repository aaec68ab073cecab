"""Any4D as a `GeometryBackbone`: frames or stitched tokens in, `SceneGeometry` out."""

from collections.abc import Iterator

import torch
from torch import Tensor

from vggrpo.backbones.any4d.adapter import scene_from_prediction
from vggrpo.backbones.any4d.config import Any4DConfig
from vggrpo.backbones.any4d.initialisation import reset_parameters
from vggrpo.backbones.any4d.keys import SIGNATURE, key_map
from vggrpo.backbones.any4d.network import Any4DNetwork
from vggrpo.backbones.any4d.prediction import Any4DPrediction
from vggrpo.backbones.base import StitchPoint
from vggrpo.backbones.network_backbone import NetworkBackbone
from vggrpo.geometry import SceneGeometry


class Any4D(NetworkBackbone):
    """The Any4D network with its stitch points E0 ... E<depth> around the encoder blocks, and F.

    F lies after the encoder's final norm. The scale token, the mark of view 0 and all inputs of the heads
    come from behind these points, so nothing is lost at any of them.
    """

    config_type = Any4DConfig
    network_type = Any4DNetwork
    signature = SIGNATURE
    key_map = staticmethod(key_map)

    config: Any4DConfig
    network: Any4DNetwork

    @property
    def stitch_points(self) -> tuple[StitchPoint, ...]:
        return tuple(
            StitchPoint(name, self.config.encoder_dim, num_special_tokens=0 if name == "F" else 1)
            for name in self.config.stitch_points
        )

    def finish_from(
        self, point: str, patch_tokens: Tensor, special_tokens: Tensor, grid: tuple[int, int]
    ) -> SceneGeometry:
        prediction = self.predict_from(point, patch_tokens, special_tokens, grid)
        return scene_from_prediction(prediction, self.anchor_first_view)

    def predict_from(
        self, point: str, patch_tokens: Tensor, special_tokens: Tensor, grid: tuple[int, int]
    ) -> Any4DPrediction:
        number = self._enter(point, patch_tokens, special_tokens, grid)
        features = patch_tokens
        if point != "F":
            features = self._finish_encoder(number, patch_tokens, special_tokens)
        return self.network.predict_from_features(features, grid)

    def reset_parameters(self, *, depth: float = 1.0, generator: torch.Generator | None = None) -> None:
        """Draws all weights anew for training from scratch, see `any4d.initialisation.reset_parameters`."""
        reset_parameters(self.network, depth=depth, generator=generator)

    def _scene(self, frames: Tensor) -> SceneGeometry:
        return scene_from_prediction(self.network.predict(frames), self.anchor_first_view)

    def _states_after_encoder(
        self, features: Tensor, grid: tuple[int, int]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        yield features, features[:, :, :0]
