"""Any4D as a `GeometryBackbone`: frames or stitched tokens in, `SceneGeometry` out."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from vggrpo.backbones.any4d.adapter import scene_from_prediction
from vggrpo.backbones.any4d.config import Any4DConfig
from vggrpo.backbones.any4d.initialisation import reset_parameters
from vggrpo.backbones.any4d.keys import SIGNATURE, key_map
from vggrpo.backbones.any4d.network import Any4DNetwork
from vggrpo.backbones.any4d.prediction import Any4DPrediction
from vggrpo.backbones.base import NOTHING_LOST, HeadInput, StitchPoint
from vggrpo.backbones.network_backbone import NamedTokens, NetworkBackbone
from vggrpo.geometry import SceneGeometry


class Any4D(NetworkBackbone):
    """The Any4D network with its stitch points E0 ... E<depth> around the encoder blocks, F, and M0, M1, ...

    F lies after the encoder's final norm. The scale token, the mark of view 0 and all inputs of the heads
    come from behind these points, so nothing is lost at any of them. M<j> lies before block j of the
    multi-view transformer. There the dense heads have lost the features that this transformer reads, and the
    hooked outputs of the blocks before; the clip's scale token is given as a special token of every view, of
    which view 0's counts.
    """

    config_type = Any4DConfig
    network_type = Any4DNetwork
    signature = SIGNATURE
    key_map = staticmethod(key_map)

    config: Any4DConfig
    network: Any4DNetwork

    def finish_from(
        self,
        point: str,
        patch_tokens: Tensor,
        special_tokens: Tensor,
        grid: tuple[int, int],
        lost: Mapping[str, Tensor] = NOTHING_LOST,
    ) -> SceneGeometry:
        prediction = self.predict_from(point, patch_tokens, special_tokens, grid, lost)
        return scene_from_prediction(prediction)

    def predict_from(
        self,
        point: str,
        patch_tokens: Tensor,
        special_tokens: Tensor,
        grid: tuple[int, int],
        lost: Mapping[str, Tensor] = NOTHING_LOST,
    ) -> Any4DPrediction:
        number = self._enter(point, patch_tokens, special_tokens, grid, lost)
        block = self._block(number)
        if block >= 0:
            hooked, scale = self.network.multi_view.finish(patch_tokens, special_tokens[:, 0], block)
            supplied = [lost[head_input.name] for head_input in self.stitch_point(point).lost]
            return self.network.predict_from_head_inputs([*supplied, *hooked], scale, grid)
        features = patch_tokens
        if point != "F":
            features = self._finish_encoder(number, patch_tokens, special_tokens)
        return self.network.predict_from_features(features, grid)

    def reset_parameters(self, *, depth: float = 1.0, generator: torch.Generator | None = None) -> None:
        """Draws all weights anew for training from scratch, see `any4d.initialisation.reset_parameters`."""
        reset_parameters(self.network, depth=depth, generator=generator)

    def _block(self, number: int) -> int:
        """The multi-view block that stitch point `number` lies before; negative up to F."""
        return number - self.config.encoder_depth - 2

    def _point(self, number: int, name: str) -> StitchPoint:
        c, block = self.config, self._block(number)
        if block < 0:
            return StitchPoint(name, c.encoder_dim, num_special_tokens=0 if name == "F" else 1)
        hooks = (HeadInput(f"hook{hook}", c.multi_view_dim) for hook in c.multi_view_hooks if hook < block)
        lost = (HeadInput("fused", c.encoder_dim), *hooks)
        return StitchPoint(name, c.multi_view_dim, 1, reference_patches=True, lost=lost)

    def _scene(self, frames: Tensor) -> SceneGeometry:
        return scene_from_prediction(self.network.predict(frames))

    def _states_after_encoder(self, features: Tensor, grid: tuple[int, int]) -> Iterator[NamedTokens]:
        nothing = features[:, :, :0]
        yield "F", (features, nothing)
        fused = self.network.fuse(features)
        yield "fused", (fused, nothing)
        transformer = self.network.multi_view
        state = transformer.begin(fused, self.network.scale_token)
        yield "M0", _scale_in_views(*state)
        for block, (patches, scale) in enumerate(transformer.run(*state)):
            if block in transformer.hooks:
                yield f"hook{block}", (transformer.norm(patches), nothing)
            yield f"M{block + 1}", _scale_in_views(patches, scale)

    def _drop_after_encoder(self, number: int) -> None:
        block = self._block(number)
        if block >= 0:
            self.network.multi_view.drop_before(block)
            for name in ("fusion_norm", "scale_token"):
                if hasattr(self.network, name):
                    delattr(self.network, name)

    def _modules_before(self, number: int) -> tuple[str, ...]:
        block = self._block(number)
        blocks = [f"network.multi_view.blocks.{j}." for j in range(block)]
        project = ["network.multi_view.project"] if block >= 0 else []
        return (*super()._modules_before(number), *project, *blocks)


def _scale_in_views(patches: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Patches [B, T, P, D], and the scale token [B, 1, D] as a special token of every view, [B, T, 1, D]."""
    return patches, scale[:, None].expand(-1, patches.shape[1], -1, -1)
