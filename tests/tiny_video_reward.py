"""A VideoReward checkpoint in the published layout, with a tiny random Qwen2-VL, written by peft itself."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

TEMPLATE = (
    "\nJudge how it looks: <|VQ_reward|>\nJudge how it moves: <|MQ_reward|>\n"
    "It was to show {text_prompt}. Judge whether it does: <|TA_reward|>\n"
)
CHAT_TOKENS = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|video_pad|>")
REWARD_TOKENS = ("<|VQ_reward|>", "<|MQ_reward|>", "<|TA_reward|>")
NORMALISATION = {
    "VQ_mean": 3.6757,
    "VQ_std": 2.2476,
    "MQ_mean": 1.1646,
    "MQ_std": 1.3811,
    "TA_mean": 2.8105,
    "TA_std": 2.5121,
}
LORA_RANK, LORA_ALPHA = 4, 8


def model_config(**changes: Any) -> dict[str, Any]:
    """model_config.json, with fields that nobody here reads; `changes` replace whole parts."""
    return {
        "data_config": {
            "meta_data": "train.csv",
            "max_frame_pixels": 200704,
            "num_frames": None,
            "fps": 2.0,
            "eval_dim": ["VQ", "MQ", "TA"],
            "prompt_template_type": "detailed_special",
            "sample_type": "uniform",
        },
        "training_args": {"learning_rate": 2e-6},
        "model_config": {
            "model_name_or_path": "Qwen/Qwen2-VL-2B-Instruct",
            "output_dim": 1,
            "use_special_tokens": True,
            "reward_token": "special",
        },
        "peft_lora_config": {
            "lora_enable": True,
            "lora_r": LORA_RANK,
            "lora_alpha": LORA_ALPHA,
            "use_rslora": False,
        },
        "inference_config": NORMALISATION,
        **changes,
    }


def base_config() -> dict[str, Any]:
    """config.json of a tiny Qwen2-VL, flat as the published ones are. Its vocabulary is larger than the
    tokenizer, as theirs is."""
    return {
        "model_type": "qwen2_vl",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
        "tie_word_embeddings": True,
        "vocab_size": 400,
        "image_token_id": 399,
        "video_token_id": 260,
        "vision_start_token_id": 258,
        "vision_end_token_id": 259,
        "vision_config": {
            "depth": 1,
            "embed_dim": 32,
            "hidden_size": 32,
            "num_heads": 2,
            "mlp_ratio": 2,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
    }


def write_tokenizer(path: Path, special: tuple[str, ...]) -> Tokenizer:
    """A byte-level tokenizer of 256 letters and these tokens after them."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: number for number, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(special))
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))
    return tokenizer


@dataclass(frozen=True)
class TinyVideoReward:
    """The checkpoint's folder, the base model's, and the network of peft that it was saved from."""

    folder: Path
    base: Path
    tokenizer: Tokenizer
    peft_model: nn.Module

    @property
    def weights(self) -> Path:
        return self.folder / "checkpoint-20" / "model.pth"

    def state(self) -> dict[str, Tensor]:
        """The published tensors."""
        tensors: dict[str, Tensor] = torch.load(self.weights, weights_only=True)
        return tensors

    def reference(self, ids: Tensor, patches: Tensor, grid: Tensor) -> Tensor:
        """Raw scores [3] of one clip as the authors' code computes them: the video's features are put into
        the embeddings, and the language model is called without positions."""
        model: Any = self.peft_model.base_model.model
        embeddings = model.get_input_embeddings()(ids[None])
        features = model.model.visual(patches, grid_thw=grid).pooler_output
        embeddings[ids[None] == model.config.video_token_id] = features
        hidden = model.model.language_model(inputs_embeds=embeddings).last_hidden_state[0]
        outputs = hidden @ model.rm_head.weight.T  # [L, O]
        places = [ids.tolist().index(self.tokenizer.token_to_id(token)) for token in REWARD_TOKENS]
        picked = [outputs[place, min(i, outputs.shape[1] - 1)] for i, place in enumerate(places)]
        return torch.stack(picked)


def make_video_reward(folder: Path, output_dim: int = 1) -> TinyVideoReward:
    """Writes everything below `folder`, as training on transformers 4.45 would have named it."""
    torch.manual_seed(0)
    base, checkpoint = folder / "qwen", folder / "reward" / "checkpoint-20"
    tokenizer = write_tokenizer(checkpoint / "tokenizer" / "tokenizer.json", CHAT_TOKENS + REWARD_TOKENS)
    base.mkdir()
    (base / "config.json").write_text(json.dumps(base_config()))
    model = Qwen2VLForConditionalGeneration(Qwen2VLConfig.from_dict(base_config()))
    model.rm_head = nn.Linear(32, output_dim, bias=False)
    model.resize_token_embeddings(tokenizer.get_vocab_size())
    skipped = ("lm_head", "rm_head", "embed_tokens", "visual")
    targets = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not any(part in name for part in skipped)
    ]
    lora = LoraConfig(r=LORA_RANK, lora_alpha=LORA_ALPHA, target_modules=targets, lora_dropout=0.05)
    wrapped = get_peft_model(model, lora).eval()
    with torch.no_grad():
        for name, value in wrapped.named_parameters():
            scale = 0.3 if "lora_" in name or value.ndim > 1 else 0.0
            value.add_(scale * torch.randn(value.shape))
    published = {
        key.replace("model.model.language_model.", "model.model.").replace(
            "model.model.visual.", "model.visual."
        ): value
        for key, value in wrapped.state_dict().items()
    }
    torch.save(published, checkpoint / "model.pth")
    reward = folder / "reward"
    (reward / "model_config.json").write_text(
        json.dumps(
            model_config(
                model_config={
                    **model_config()["model_config"],
                    "output_dim": output_dim,
                }
            )
        )
    )
    (reward / "prompt_template.py").write_text(
        f"import missing_package\nDETAILED_PROMPT_WITH_SPECIAL_TOKEN = {TEMPLATE!r}\nOTHER = 1\n"
    )
    return TinyVideoReward(reward, base, tokenizer, wrapped)
