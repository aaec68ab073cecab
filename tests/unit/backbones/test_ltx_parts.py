"""LTX-Video's autoencoder, and its folder: recognised, loaded part by part, reported on and fused."""

import json
import shutil

import pytest
import sentencepiece
import torch
from diffusers import AutoencoderKLLTXVideo, LTXPipeline

from tiny_models import tiny_ltx
from vggrpo.backbones import load_video_backbone
from vggrpo.backbones.ltx import LTXBackbone
from vggrpo.backbones.pipelines import load_tokenizer
from vggrpo.backbones.pipelines.report import pipeline_report
from vggrpo.backbones.wan import WanBackbone
from vggrpo.backbones.wan.official import pipeline_shape
from vggrpo.cli.main import main
from vggrpo.config import ConfigError
from vggrpo.world import VOCABULARY

DENOISING = {
    "timestep_conditioning": True,
    "decoder_inject_noise": (True, True, True, True, True),
    "scaling_factor": 0.7,
}
"""An autoencoder as that of version 0.9.1, whose decoder denoises and adds noise inside."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_ltx(tmp_path_factory.mktemp("ltx") / "pipeline")


@pytest.fixture(scope="module", params=[{}, DENOISING], ids=["plain", "denoising"])
def vae_folder(request, folder, tmp_path_factory):
    return tiny_ltx(tmp_path_factory.mktemp("ltx-vae") / "pipeline", **request.param)


@pytest.fixture
def copied(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    return tmp_path / "copy"


@torch.no_grad()
def test_frames_and_latents_equal_plain_diffusers(vae_folder):
    backbone = LTXBackbone(vae_folder)
    vae = AutoencoderKLLTXVideo.from_pretrained(vae_folder, subfolder="vae")
    statistics = (vae.latents_mean, vae.latents_std, vae.config.scaling_factor)
    frames = torch.rand(2, 17, 64, 96, 3, generator=torch.Generator().manual_seed(0))
    latents = backbone.encode_video(frames)
    assert latents.shape == (2, *backbone.latent_shape(17, 64, 96)) == (2, 8, 3, 2, 3)
    raw = vae.encode(2 * frames.permute(0, 4, 1, 2, 3) - 1).latent_dist.mode()
    torch.testing.assert_close(
        latents, LTXPipeline._normalize_latents(raw, *statistics), atol=1e-5, rtol=1e-5
    )

    decoded = backbone.decode_latents(latents)
    assert decoded.shape == frames.shape
    levels = torch.zeros(2) if vae.config.timestep_conditioning else None
    raw = LTXPipeline._denormalize_latents(latents, *statistics)
    videos = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        videos.append(vae.decode(raw, levels).sample.permute(0, 2, 3, 4, 1) / 2 + 0.5)
    assert videos[0].min() < 0
    assert videos[0].max() > 1
    torch.testing.assert_close(decoded, videos[0].clamp(0, 1), atol=1e-5, rtol=1e-5)
    assert torch.equal(*videos) == (not any(vae.config.decoder_inject_noise))
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    assert torch.equal(backbone.decode_latents(latents), decoded)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_latent_frame_sees_eight_frames_and_those_before(folder):
    """So `view_frames` names the last frame that each latent frame may know."""
    backbone = LTXBackbone(folder)
    frames = torch.rand(1, 25, 32, 32, 3, generator=torch.Generator().manual_seed(0))
    latents = backbone.encode_video(frames)
    views = backbone.latent_spec.view_frames(latents.shape[2])
    assert views == [0, 8, 16, 24]
    for view, frame in enumerate(views):
        changed = frames.clone()
        changed[:, frame + 1 :] = 0
        other = backbone.encode_video(changed)
        torch.testing.assert_close(other[:, :, : view + 1], latents[:, :, : view + 1], atol=1e-5, rtol=1e-5)
        changed[:, frame] = 0
        other = backbone.encode_video(changed)
        assert (other[:, :, view] - latents[:, :, view]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        ((16, 64, 64), r"num_frames is 16, but the autoencoder needs 8n \+ 1 frames; use 9 or 17"),
        ((17, 72, 64), "height is 72, but the (denoiser|autoencoder) needs a multiple of 32; use "),
        ((17, 64, 48), "width is 48, but the (denoiser|autoencoder) needs a multiple of 32; use "),
    ],
)
def test_clips_that_cannot_be_made_are_refused_before_anything_is_loaded(folder, clip, message):
    backbone = LTXBackbone(folder)
    with pytest.raises(ValueError, match=message):
        backbone.latent_shape(*clip)
    with pytest.raises(ValueError, match=message):
        backbone.encode_video(torch.rand(1, *clip, 3))
    assert backbone._vae is None


def test_a_folder_says_which_family_it_is(folder, copied, tiny_pipeline):
    backbone = load_video_backbone(folder)
    assert isinstance(backbone, LTXBackbone)
    assert isinstance(load_video_backbone(tiny_pipeline), WanBackbone)
    backbone.schedule(4, backbone.latent_shape(9, 64, 64))
    assert (backbone._transformer, backbone._vae, backbone._text_encoder) == (None, None, None)
    with pytest.raises(ValueError, match=r"is a LTXPipeline, expected a WanPipeline"):
        WanBackbone(folder)
    index = json.loads((copied / "model_index.json").read_text())
    (copied / "model_index.json").write_text(json.dumps({**index, "_class_name": "LTXConditionPipeline"}))
    with pytest.raises(ValueError, match=r"LTXConditionPipeline, but .* are WanPipeline and LTXPipeline"):
        load_video_backbone(copied)


def test_a_denoiser_of_larger_patches_is_refused(copied):
    file = copied / "transformer" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"patch_size": 2}))
    with pytest.raises(ValueError, match=r"the denoiser's patch_size is 2; only LTX-Video's own, 1"):
        LTXBackbone(copied)


def test_a_folders_report_and_plan(folder, copied):
    report = pipeline_report(folder)
    assert report.fits
    assert report.lines()[0].endswith(": LTXPipeline")
    index = json.loads((copied / "model_index.json").read_text())
    (copied / "model_index.json").write_text(json.dumps({**index, "_class_name": "FluxPipeline"}))
    with pytest.raises(ConfigError, match=r"is a FluxPipeline; known here are WanPipeline, LTXPipeline"):
        pipeline_report(copied)
    with pytest.raises(ConfigError, match=r"is a LTXPipeline, and a plan can be made for Wan models only"):
        pipeline_shape(str(folder))


def test_a_tokenizer_of_sentence_pieces_alone(copied, folder, monkeypatch):
    """As LTX-Video is published: spiece.model, and no tokenizer.json."""
    place = copied / "tokenizer"
    (place / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no file .*tokenizer.json"):
        load_tokenizer(place)
    sentences = iter(" ".join(VOCABULARY[i : i + 6]) for i in range(len(VOCABULARY) - 6))
    with (place / "spiece.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=sentences,
            model_writer=file,
            vocab_size=40,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            minloglevel=2,
            hard_vocab_limit=False,
        )
    (place / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "T5Tokenizer", "extra_ids": 4, "model_max_length": 128})
    )
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(place / "spiece.model"))
    tokenizer = load_tokenizer(place)
    for prompt in ("a red box in a blue room", "", "A  Green\tsphere, two ", "zeppelin"):
        assert tokenizer(prompt)["input_ids"] == [*pieces.encode(prompt), 1]
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1)

    backbone = LTXBackbone(copied)
    assert backbone.text_fingerprint != LTXBackbone(folder).text_fingerprint
    assert backbone.encode_prompts(["a red box"]).shape == (1, 128, 16)
    monkeypatch.setattr("vggrpo.backbones.pipelines.tokens.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"spiece.model is read by the package sentencepiece"):
        load_tokenizer(place)


@torch.no_grad()
def test_a_fused_pipeline_is_the_policy(folder, tmp_path, capsys):
    policy = LTXBackbone(folder)
    policy.add_lora(4, 6.0)
    for parameter in policy.trainable_parameters().values():
        parameter.copy_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    policy.save_lora(tmp_path / "lora")
    words = ["fuse", "--base-model", str(folder), "--lora", str(tmp_path / "lora")]
    assert main([*words, "--output", str(tmp_path / "fused")]) == 0
    assert "LTXPipeline.from_pretrained" in capsys.readouterr().out
    inputs = (torch.randn(1, 8, 2, 2, 2), 0.6, policy.encode_prompts(["a red box"]))
    fused = load_video_backbone(tmp_path / "fused").velocity(*inputs)
    torch.testing.assert_close(fused, policy.velocity(*inputs), atol=1e-5, rtol=1e-5)
    assert main([*words, "--into", "comfyui", "--output", str(tmp_path / "comfy.safetensors")]) == 1
    assert "is no Wan model" in capsys.readouterr().err
