"""`efficiency.offload_activations`: what a backward pass needs is kept elsewhere and comes back unchanged."""

import pytest
import torch
from torch import Tensor

from vggrpo.backbones import load_video_backbone
from vggrpo.config import EfficiencySettings


def kept_and_gradients(pipeline, checkpointing: bool, offload: bool) -> tuple[int, dict[str, Tensor]]:
    """Bytes that autograd keeps of a guided velocity by itself, and the LoRA's gradients."""
    model = load_video_backbone(
        pipeline,
        gradient_checkpointing=checkpointing,
        efficiency=EfficiencySettings(offload_activations=offload),
    )
    model.add_lora(4, 8.0)
    generator = torch.Generator().manual_seed(2)
    for parameter in model.trainable_parameters().values():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    latents = torch.randn(2, *model.latent_shape(5, 16, 16), generator=generator)
    embeds = torch.randn(2, 1, 6, 16, generator=generator)
    kept = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        velocity = model.velocity(latents, 0.6, embeds[0], embeds[1], cfg_scale=3.0)
    velocity.square().mean().backward()
    return kept, {name: p.grad for name, p in model.trainable_parameters().items() if p.grad is not None}


@pytest.mark.parametrize("checkpointing", [False, True])
def test_nothing_is_kept_on_the_device_and_gradients_are_the_same_bits(tiny_pipeline, checkpointing):
    kept, gradients = kept_and_gradients(tiny_pipeline, checkpointing, False)
    left, same = kept_and_gradients(tiny_pipeline, checkpointing, True)
    assert left == 0 < kept
    assert same.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert gradient.abs().max() > 0
        assert torch.equal(same[name], gradient), name
