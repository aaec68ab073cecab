"""Qwen2-VL with a head that reads scores at three tokens of the instruction."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Qwen2VLConfig, Qwen2VLModel


class VideoRewardNetwork(nn.Module):
    """Token ids and patches of videos to raw scores of visual quality, motion quality and text alignment.

    Source: Liu et al., Improving Video Generation with Human Feedback (arXiv 2501.13918), VideoReward.
    """

    def __init__(self, backbone: Qwen2VLModel, output_dim: int) -> None:
        """`output_dim` is 1 (one head for all three scores) or 3 (score i is output i at token i)."""
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.config.text_config.hidden_size, output_dim, bias=False)

    @property
    def patch_sizes(self) -> tuple[int, int, int]:
        """Frames and pixels (square) of a patch, and patches a side that become one token."""
        vision = self.backbone.config.vision_config
        return vision.temporal_patch_size, vision.patch_size, vision.spatial_merge_size

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, patches: Tensor, grid: Tensor, reward_ids: Tensor
    ) -> Tensor:
        """Raw scores [B, 3].

        Args:
            input_ids: [B, L], padded on the right; each row holds each reward token once.
            attention_mask: [B, L], 1 where there is a token.
            patches: [N, P], of all videos one after the other.
            grid: [B, 3], patches of each video along time, height and width.
            reward_ids: [3], ids of the reward tokens.

        Raises:
            ValueError: if a row lacks a reward token, or holds one twice.
        """
        found = input_ids[:, None, :] == reward_ids[:, None]  # [B, 3, L]
        if not bool((found.sum(-1) == 1).all()):
            raise ValueError("the instruction must hold each of the three reward tokens once")
        batch, length = input_ids.shape
        # Plain positions 0..L-1 in all three axes, though Qwen2-VL itself gives the patches of a video
        # positions in space and time: the published weights were trained without them.
        positions = torch.arange(length, device=input_ids.device).expand(3, batch, length)
        hidden = self.backbone(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=positions,
            pixel_values_videos=patches,
            video_grid_thw=grid,
            use_cache=False,
        ).last_hidden_state
        where = found.int().argmax(-1)  # [B, 3]
        read = hidden[torch.arange(batch, device=hidden.device)[:, None], where]  # [B, 3, D]
        # In float32: a score rounded to bfloat16 would tie with its neighbours.
        outputs = read.float() @ self.head.weight.float().T  # [B, 3, O]
        return outputs[..., 0] if outputs.shape[-1] == 1 else outputs.diagonal(dim1=1, dim2=2)


def backbone_config(base: Mapping[str, Any], vocabulary: int) -> Qwen2VLConfig:
    """The configuration of Qwen2-VL with as many embeddings as the checkpoint has.

    Args:
        base: the base model's config.json.
        vocabulary: rows of the embedding; the reward tokens change their number.
    """
    config = Qwen2VLConfig.from_dict(dict(base))
    config.text_config.vocab_size = vocabulary
    return config
