"""VGGT as a `GeometryBackbone`: frames or stitched tokens in, `SceneGeometry` out."""

from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor

from vggrpo.backbones.base import StitchPoint
from vggrpo.backbones.network_backbone import NetworkBackbone
from vggrpo.backbones.vggt.adapter import scene_from_prediction
from vggrpo.backbones.vggt.config import VGGTConfig
from vggrpo.backbones.vggt.keys import SIGNATURE, key_map
from vggrpo.backbones.vggt.network import VGGTNetwork
from vggrpo.backbones.vggt.prediction import VGGTPrediction
from vggrpo.geometry import SceneGeometry


class VGGT(NetworkBackbone):
    """The VGGT network with its stitch points E0 ... E<depth> around the encoder blocks, and A0, A1, ...

    A0 lies after the encoder's final norm; camera and register tokens come from behind it. A<j> lies before
    pair j of the aggregator, where those tokens are part of the state, and view 0 has its own. Nothing is
    lost at any of these points: the last lies before the first pair that feeds a head.

    Scenes need no point head (`scene_from_prediction`), so a model that is cut has none.
    """

    config_type = VGGTConfig
    network_type = VGGTNetwork
    signature = SIGNATURE
    key_map = staticmethod(key_map)

    config: VGGTConfig
    network: VGGTNetwork

    @property
    def stitch_points(self) -> tuple[StitchPoint, ...]:
        width, num_special = self.config.encoder_dim, 1 + self.config.num_registers
        return tuple(
            StitchPoint(
                name,
                width,
                num_special_tokens=0 if self._pair(number) == 0 else num_special,
                reference_specials=self._pair(number) > 0,
            )
            for number, name in enumerate(self.config.stitch_points)
        )

    def finish_from(
        self, point: str, patch_tokens: Tensor, special_tokens: Tensor, grid: tuple[int, int]
    ) -> SceneGeometry:
        prediction = self.predict_from(point, patch_tokens, special_tokens, grid, with_points=False)
        return scene_from_prediction(prediction, self.anchor_first_view)

    def predict_from(
        self,
        point: str,
        patch_tokens: Tensor,
        special_tokens: Tensor,
        grid: tuple[int, int],
        with_points: bool = True,
    ) -> VGGTPrediction:
        number = self._enter(point, patch_tokens, special_tokens, grid)
        pair = self._pair(number)
        if pair > 0:
            tokens = torch.cat([special_tokens, patch_tokens], dim=2)
            return self.network.predict_from_tokens(tokens, grid, pair, with_points)
        features = patch_tokens
        if pair < 0:
            features = self._finish_encoder(number, patch_tokens, special_tokens)
        tokens = self.network.aggregator.begin(features)
        return self.network.predict_from_tokens(tokens, grid, with_points=with_points)

    def _pair(self, number: int) -> int:
        """The pair of the aggregator that stitch point `number` lies before; negative in the encoder."""
        return number - self.config.encoder_depth - 1

    def _scene(self, frames: Tensor) -> SceneGeometry:
        return scene_from_prediction(self.network.predict(frames, with_points=False), self.anchor_first_view)

    def _states_after_encoder(
        self, features: Tensor, grid: tuple[int, int]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        yield features, features[:, :, :0]
        aggregator = self.network.aggregator
        num_special = aggregator.num_special_tokens
        for _, tokens in islice(aggregator.run(aggregator.begin(features), grid), self.config.dpt_layers[0]):
            yield tokens[:, :, num_special:], tokens[:, :, :num_special]

    def _drop_after_encoder(self, number: int) -> None:
        self.network.aggregator.drop_before(max(self._pair(number), 0))
        if hasattr(self.network, "point_head"):
            del self.network.point_head

    def _modules_before(self, number: int) -> tuple[str, ...]:
        pairs = [
            f"network.aggregator.{kind}.{j}."
            for kind in ("frame_blocks", "global_blocks")
            for j in range(self._pair(number))
        ]
        return (*super()._modules_before(number), *pairs, "network.point_head.")
