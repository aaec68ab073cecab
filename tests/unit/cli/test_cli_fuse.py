"""`vggrpo fuse` by its command line."""

import pytest
import torch
from diffusers import WanPipeline

from vggrpo.backbones.wan import WanBackbone
from vggrpo.cli.main import main


@pytest.fixture
def lora(tiny_pipeline, tmp_path):
    """A LoRA whose factors are nowhere zero, and the velocity of the policy at scale .5."""
    policy = WanBackbone(tiny_pipeline)
    policy.add_lora(2, 4)
    generator = torch.Generator().manual_seed(0)
    for parameter in policy.trainable_parameters().values():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    policy.save_lora(tmp_path / "lora")
    policy.load_lora(tmp_path / "lora", scale=0.5)
    return tmp_path / "lora", velocity(policy)


def velocity(backbone):
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(1, 4, 2, 4, 4, generator=generator)
    with torch.no_grad():
        return backbone.velocity(latents, 0.6, torch.randn(1, 24, 16, generator=generator))


def fuse(tiny_pipeline, *words):
    return main(["fuse", "--base-model", str(tiny_pipeline), *map(str, words)])


def test_a_pipeline_and_a_comfy_file_are_the_scaled_policy(tiny_pipeline, tmp_path, lora, capsys):
    folder, expected = lora
    given = ("--lora", folder, "--lora-scale", "0.5")
    assert fuse(tiny_pipeline, *given, "--output", tmp_path / "fused") == 0
    assert str(tmp_path / "fused") in capsys.readouterr().out
    torch.testing.assert_close(velocity(WanBackbone(tmp_path / "fused")), expected, atol=1e-5, rtol=1e-5)

    file = tmp_path / "comfy" / "aligned.safetensors"
    assert fuse(tiny_pipeline, *given, "--into", "comfyui", "--output", file) == 0
    backbone = WanBackbone(tiny_pipeline)
    pipeline = WanPipeline.from_pretrained(tiny_pipeline, transformer=backbone.transformer)
    pipeline.load_lora_weights(file.parent, weight_name=file.name)
    torch.testing.assert_close(velocity(backbone), expected, atol=1e-5, rtol=1e-5)


def test_mistakes_are_named_before_anything_is_written(tiny_pipeline, tmp_path, lora, capsys):
    folder, _ = lora
    assert fuse(tiny_pipeline, "--lora", folder, "--output", folder) == 1
    assert f"{folder} exists already; name another --output" in capsys.readouterr().err
    assert fuse(tiny_pipeline, "--lora", tmp_path / "none", "--output", tmp_path / "out") == 1
    assert "there is no LoRA folder or file" in capsys.readouterr().err
    for words, message in (
        (("--lora", folder, folder, "--lora-scale", "1"), "there are 1 of lora_scale for 2 of lora"),
        (("--lora", folder, folder, "--into", "comfyui"), "there are 2 LoRAs"),
        (("--lora", folder, "--into", "comfyui"), "name one"),
        (("--lora", folder, "--lora-scale", "-1", "--into", "comfyui"), "needs a positive one"),
    ):
        with pytest.raises(SystemExit) as ended:
            fuse(tiny_pipeline, *words, "--output", tmp_path / "out")
        assert ended.value.code == 2
        captured = capsys.readouterr()
        assert message in " ".join((captured.out + captured.err).replace("│", " ").split())
    assert not (tmp_path / "out").exists()
