"""VGGT as a `GeometryBackbone`: frames or stitched tokens in, `SceneGeometry` out."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from vggrpo.backbones.base import NOTHING_LOST, HeadInput, StitchPoint
from vggrpo.backbones.network_backbone import NamedTokens, NetworkBackbone
from vggrpo.backbones.vggt.adapter import scene_from_prediction
from vggrpo.backbones.vggt.config import VGGTConfig
from vggrpo.backbones.vggt.keys import SIGNATURE, key_map
from vggrpo.backbones.vggt.network import VGGTNetwork
from vggrpo.backbones.vggt.prediction import VGGTPrediction
from vggrpo.geometry import SceneGeometry


class VGGT(NetworkBackbone):
    """The VGGT network with its stitch points E0 ... E<depth> around the encoder blocks, and A0, A1, ...

    A0 lies after the encoder's final norm; camera and register tokens come from behind it. A<j> lies before
    pair j of the aggregator, where those tokens are part of the state, and view 0 has its own. Up to the
    first pair that feeds the heads nothing is lost; behind it the layers before are.

    Scenes need no point head (`scene_from_prediction`), so a model that is cut has none.
    """

    config_type = VGGTConfig
    network_type = VGGTNetwork
    signature = SIGNATURE
    key_map = staticmethod(key_map)

    config: VGGTConfig
    network: VGGTNetwork

    def finish_from(
        self,
        point: str,
        patch_tokens: Tensor,
        special_tokens: Tensor,
        grid: tuple[int, int],
        lost: Mapping[str, Tensor] = NOTHING_LOST,
    ) -> SceneGeometry:
        prediction = self.predict_from(point, patch_tokens, special_tokens, grid, lost, with_points=False)
        return scene_from_prediction(prediction)

    def predict_from(
        self,
        point: str,
        patch_tokens: Tensor,
        special_tokens: Tensor,
        grid: tuple[int, int],
        lost: Mapping[str, Tensor] = NOTHING_LOST,
        with_points: bool = True,
    ) -> VGGTPrediction:
        number = self._enter(point, patch_tokens, special_tokens, grid, lost)
        pair = self._pair(number)
        if pair > 0:
            tokens = torch.cat([special_tokens, patch_tokens], dim=2)
            supplied = [lost[head_input.name] for head_input in self.stitch_point(point).lost]
            return self.network.predict_from_tokens(tokens, grid, pair, with_points, supplied)
        features = patch_tokens
        if pair < 0:
            features = self._finish_encoder(number, patch_tokens, special_tokens)
        tokens = self.network.aggregator.begin(features)
        return self.network.predict_from_tokens(tokens, grid, with_points=with_points)

    def _pair(self, number: int) -> int:
        """The pair of the aggregator that stitch point `number` lies before; negative in the encoder."""
        return number - self.config.encoder_depth - 1

    def _point(self, number: int, name: str) -> StitchPoint:
        width, pair = self.config.encoder_dim, self._pair(number)
        return StitchPoint(
            name,
            width,
            num_special_tokens=0 if pair == 0 else 1 + self.config.num_registers,
            reference_specials=pair > 0,
            reference_patches=pair > 0,
            lost=tuple(
                HeadInput(f"layer{layer}", 2 * width) for layer in self.config.dpt_layers if layer < pair
            ),
        )

    def _scene(self, frames: Tensor) -> SceneGeometry:
        return scene_from_prediction(self.network.predict(frames, with_points=False))

    def _states_after_encoder(self, features: Tensor, grid: tuple[int, int]) -> Iterator[NamedTokens]:
        nothing = features[:, :, :0]
        yield "A0", (features, nothing)
        aggregator = self.network.aggregator
        num_special = aggregator.num_special_tokens
        pairs = enumerate(aggregator.run(aggregator.begin(features), grid))
        for pair, (frame, tokens) in pairs:
            if pair in aggregator.layers:
                yield f"layer{pair}", (torch.cat([frame, tokens], dim=-1)[:, :, num_special:], nothing)
            yield f"A{pair + 1}", (tokens[:, :, num_special:], tokens[:, :, :num_special])

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
