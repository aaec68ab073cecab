import pytest
import torch
from diffusers import AutoencoderKLWan, WanPipeline, WanTransformer3DModel
from transformers import PreTrainedTokenizerFast

from vggrpo.world import VOCABULARY, captions, micro


@pytest.fixture(scope="module")
def parts():
    torch.manual_seed(0)
    tokenizer = micro.build_tokenizer(VOCABULARY)
    return {
        "vae": micro.build_vae(),
        "transformer": micro.build_transformer(16, 64),
        "text_encoder": micro.build_text_encoder(len(tokenizer)),
        "tokenizer": tokenizer,
        "scheduler": micro.build_scheduler(),
    }


def test_default_dimensions_are_the_micro_familys(parts):
    frames = torch.rand(1, 3, 17, 48, 64)
    with torch.no_grad():
        latents = parts["vae"].encode(frames).latent_dist.mode()
        assert parts["vae"].decode(latents).sample.shape == frames.shape
    assert latents.shape == (1, 16, 5, 12, 16)
    assert parts["vae"].config.scale_factor_spatial == 4
    tokens = parts["transformer"].patch_embedding(latents)
    assert tokens[0, 0].numel() == 240


def test_ids_follow_the_list_and_survive_a_round_trip(parts, tmp_path):
    tokenizer = parts["tokenizer"]
    for index, word in enumerate(VOCABULARY):
        assert tokenizer(word)["input_ids"] == [3 + index, 1]
    tokenizer.save_pretrained(tmp_path)
    reloaded = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    texts = [*captions("train", 50), "A RED box ,  moving. zeppelins!", "", "a " * 50]
    options = {"padding": "max_length", "truncation": True, "max_length": 32}
    assert reloaded(texts, **options).data == tokenizer(texts, **options).data
    assert (reloaded.model_max_length, len(reloaded)) == (32, 3 + len(VOCABULARY))


def test_every_caption_is_known_and_fits(parts):
    for caption in captions("train", 300) + captions("validation", 100):
        ids = parts["tokenizer"](caption)["input_ids"]
        assert parts["tokenizer"].unk_token_id not in ids
        assert len(ids) <= 32


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [
        (["red", "box", "red"], r"lists 'red' more than once"),
        (["Red"], r"'Red' can never be produced"),
        (["left-to-right"], r"'left-to-right' can never be produced"),
        (["<pad>"], r"special token '<pad>'"),
    ],
)
def test_vocabularies_that_cannot_work_are_refused(vocabulary, message):
    with pytest.raises(ValueError, match=message):
        micro.build_tokenizer(vocabulary)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_saved_folder_is_a_complete_pipeline(parts, tmp_path, dtype):
    mean, std = torch.linspace(-1, 1, 16), torch.linspace(0.5, 2, 16)
    before = {name: value.clone() for name, value in parts["transformer"].state_dict().items()}
    micro.save_pipeline(tmp_path, **parts, latents_mean=mean, latents_std=std, storage_dtype=dtype)
    for name, value in parts["transformer"].state_dict().items():
        assert torch.equal(value, before[name])
    assert parts["vae"].config.latents_mean == [0.0] * 16

    pipeline = WanPipeline.from_pretrained(tmp_path)
    torch.testing.assert_close(torch.tensor(pipeline.vae.config.latents_mean), mean)
    torch.testing.assert_close(torch.tensor(pipeline.vae.config.latents_std), std)
    assert pipeline.scheduler.config.flow_shift == 3.0
    tolerance = {torch.float32: 0.0, torch.float16: 2**-10, torch.bfloat16: 2**-7}[dtype]
    for part in ("transformer", "vae", "text_encoder"):
        module = getattr(pipeline, part)
        for name, value in parts[part].state_dict().items():
            loaded = module.state_dict()[name]
            assert loaded.dtype == torch.float32
            torch.testing.assert_close(loaded, value, rtol=tolerance, atol=1e-7 if tolerance else 0.0)
    size = sum(file.stat().st_size for file in tmp_path.rglob("*.safetensors"))
    assert size < (22e6 if dtype == torch.float32 else 12e6)

    pipeline.set_progress_bar_config(disable=True)
    frames = pipeline(
        "a red box",
        height=48,
        width=64,
        num_frames=5,
        num_inference_steps=2,
        guidance_scale=2.0,
        output_type="pt",
    ).frames
    assert frames.shape == (1, 5, 3, 48, 64)
    assert torch.isfinite(frames).all()


def test_parts_that_do_not_fit_together_are_refused(parts, tmp_path):
    def save(**changed):
        micro.save_pipeline(tmp_path / "never", **{**parts, **changed})

    with pytest.raises(ValueError, match=r"takes 4 latent channels, but the autoencoder makes 16"):
        save(transformer=micro.build_transformer(4, 64))
    with pytest.raises(ValueError, match=r"width 32, but the text encoder makes 64"):
        save(transformer=micro.build_transformer(16, 32))
    with pytest.raises(ValueError, match=r"tokenizer has .* ids, but the text encoder knows 5"):
        save(text_encoder=micro.build_text_encoder(5))
    with pytest.raises(ValueError, match=r"must be given together"):
        save(latents_mean=torch.zeros(16))
    with pytest.raises(ValueError, match=r"std must be positive"):
        save(latents_mean=torch.zeros(16), latents_std=torch.zeros(16))
    with pytest.raises(ValueError, match=r"mean has shape \(3,\)"):
        save(latents_mean=torch.zeros(3), latents_std=torch.ones(3))
    with pytest.raises(ValueError, match=r"mean holds values that are not finite"):
        save(latents_mean=torch.full((16,), torch.nan), latents_std=torch.ones(16))
    assert not (tmp_path / "never").exists()


def test_weights_outside_the_range_of_the_storage_type_are_refused(parts, tmp_path):
    torch.manual_seed(0)
    vae = micro.build_vae()
    vae.post_quant_conv.weight.data[0] = 1e6
    with pytest.raises(ValueError, match=r"post_quant_conv.weight of AutoencoderKLWan is not finite"):
        micro.save_pipeline(tmp_path, **{**parts, "vae": vae}, storage_dtype=torch.float16)


def test_downsampling_other_than_four_frames_is_refused():
    with pytest.raises(ValueError, match=r"exactly two entries must be True"):
        micro.build_vae(micro.MicroVAEConfig(temporal_downsample=(True, False)))
    with pytest.raises(ValueError, match=r"makes 3 downsamplings"):
        micro.build_vae(micro.MicroVAEConfig(dim_mult=(1, 2, 4, 4)))


def test_classes_are_those_of_the_real_model(parts):
    assert type(parts["vae"]) is AutoencoderKLWan
    assert type(parts["transformer"]) is WanTransformer3DModel
