"""A family of the real classes at the smallest dimensions that run, untrained, on disk."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from vggrpo.backbones.any4d import Any4D, Any4DConfig
from vggrpo.world import VOCABULARY
from vggrpo.world.micro import (
    MicroTextConfig,
    MicroTransformerConfig,
    MicroVAEConfig,
    build_scheduler,
    build_text_encoder,
    build_tokenizer,
    build_transformer,
    build_vae,
    save_pipeline,
)

FRAMES, HEIGHT, WIDTH = 9, 32, 32


@dataclass(frozen=True)
class Family:
    """Folders of a video model and a geometry model, and the flags that name them and their clips' size."""

    video: Path
    geometry: Path

    @property
    def flags(self) -> list[str]:
        return [
            *("--base-model", str(self.video), "--geometry-model", str(self.geometry)),
            *("--num-frames", str(FRAMES), "--height", str(HEIGHT), "--width", str(WIDTH)),
        ]


def build_family(folder: Path, seed: int = 0) -> Family:
    """Seeded random weights; the same seed gives the same files."""
    torch.manual_seed(seed)
    vae = build_vae(MicroVAEConfig(base_dim=4, z_dim=4, num_res_blocks=1))
    text = MicroTextConfig(d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    tokenizer = build_tokenizer(VOCABULARY, 32)
    text_encoder = build_text_encoder(len(tokenizer), text)
    transformer = build_transformer(
        4,
        16,
        MicroTransformerConfig(
            num_attention_heads=2, attention_head_dim=12, num_layers=2, ffn_dim=24, patch_size=(1, 2, 2), freq_dim=16
        ),
    )
    save_pipeline(
        folder / "video",
        vae=vae,
        transformer=transformer,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        scheduler=build_scheduler(),
    )
    geometry = Any4D(
        Any4DConfig(
            patch_size=8,
            encoder_dim=16,
            encoder_depth=2,
            encoder_heads=2,
            multi_view_dim=16,
            multi_view_depth=4,
            multi_view_heads=2,
            multi_view_hooks=(1, 2),
            dpt_features=8,
            dpt_layer_dims=(4, 8, 8, 8),
            position_grid=4,
            scale_dim=8,
        )
    )
    geometry.reset_parameters(depth=3.0, generator=torch.Generator().manual_seed(seed))
    # Rays that fan out, as any trained model's do: without them no pinhole can be fitted.
    with torch.no_grad():
        for parameter in geometry.network.dense_head.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)))
    (folder / "geometry").mkdir()
    geometry.save_pretrained(folder / "geometry")
    return Family(folder / "video", folder / "geometry")


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return build_family(tmp_path_factory.mktemp("family"))
