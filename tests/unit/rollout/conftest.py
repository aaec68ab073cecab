"""Two policies: a linear one that is the same to the bit in any batch, and a tiny real Wan transformer."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from diffusers import UniPCMultistepScheduler, WanTransformer3DModel
from torch import nn

from vggrpo.backbones.base import VideoBackbone
from vggrpo.backbones.wan import WanBackbone

LATENT_SHAPE = (4, 2, 4, 6)
TEXT_SHAPE = (3, 16)


class LinearPolicy(VideoBackbone):
    """velocity = (1 + sigma + lora) x - mean(prompt): elementwise, so a sample never feels its batch."""

    def __init__(self) -> None:
        self.lora = nn.Parameter(torch.tensor(0.0))
        self.lora_scale = 1.0
        self.calls: list[tuple[int, float, float]] = []
        """(batch size, sigma, cfg_scale) of every velocity."""

    def velocity(self, latents, sigma, prompt_embeds, negative_prompt_embeds=None, cfg_scale=1.0):
        self.calls.append((len(latents), sigma, cfg_scale))

        def predict(embeds):
            assert embeds.shape == (len(latents), *TEXT_SHAPE)
            text = embeds.mean(dim=(1, 2)).reshape(-1, 1, 1, 1, 1)
            return (1 + sigma + self.lora_scale * self.lora) * latents - text

        if cfg_scale == 1.0:
            return predict(prompt_embeds)
        unguided = predict(negative_prompt_embeds)
        return unguided + cfg_scale * (predict(prompt_embeds) - unguided)

    @contextmanager
    def lora_disabled(self) -> Iterator[None]:
        self.lora_scale = 0.0
        yield
        self.lora_scale = 1.0


# Sampling and scoring need the two methods above and no other.
LinearPolicy.__abstractmethods__ = frozenset()


@pytest.fixture
def linear_policy() -> LinearPolicy:
    return LinearPolicy()


@pytest.fixture(scope="session")
def wan_folder(tmp_path_factory):
    """A pipeline folder with the parts that a velocity needs."""
    folder = tmp_path_factory.mktemp("tiny_wan")
    torch.manual_seed(0)
    transformer = WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=LATENT_SHAPE[0],
        out_channels=LATENT_SHAPE[0],
        text_dim=TEXT_SHAPE[1],
        freq_dim=16,
        ffn_dim=32,
        num_layers=2,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=16,
    )
    transformer.save_pretrained(folder / "transformer")
    UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000, flow_shift=3.0
    ).save_pretrained(folder / "scheduler")
    index = {"_class_name": "WanPipeline", "transformer": ["diffusers", "WanTransformer3DModel"]}
    (folder / "model_index.json").write_text(json.dumps(index), "utf-8")
    return folder


@pytest.fixture
def wan_policy(wan_folder) -> WanBackbone:
    """A LoRA policy that has left the base model."""
    policy = WanBackbone(wan_folder)
    policy.add_lora(rank=4, alpha=8.0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.trainable_parameters().values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return policy


@pytest.fixture(params=["linear", "wan"])
def policy(request) -> VideoBackbone:
    return request.getfixturevalue(f"{request.param}_policy")


@pytest.fixture
def embeds():
    """(prompts [5, L, D], negative prompt [L, D])."""
    drawn = torch.randn((6, *TEXT_SHAPE), generator=torch.Generator().manual_seed(2))
    return drawn[:5], drawn[5]
