"""How the ranks hold and compute one denoiser together, where they do not each for itself."""

import os
from collections.abc import Sequence

from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from vggrpo.backbones import VideoBackbone
from vggrpo.config import ConfigError
from vggrpo.training.ranks import Ranks


def spread(policy: VideoBackbone, ranks: Ranks, parallel: str, latent_shape: Sequence[int]) -> None:
    """Shares the policy's frozen weights out over the ranks, and its tokens over those of a team.

    Args:
        policy: with its LoRA, which stays whole on every rank.
        ranks: of the run; alone nothing is shared out.
        parallel: the setting: "ddp", "fsdp" or "hsdp".
        latent_shape: [C, T_lat, H_lat, W_lat] of the clips.

    Raises:
        ConfigError: if heads or tokens, or the ranks of a machine, cannot be divided so.
    """
    if ranks.size == 1:
        return
    device_type = ranks.device.partition(":")[0]
    if parallel != "ddp":
        machine = int(os.environ.get("LOCAL_WORLD_SIZE", ranks.size))
        policy.shard(weights_mesh(device_type, ranks.size, machine if parallel == "hsdp" else ranks.size))
    if ranks.context > 1:
        policy.share_tokens(tokens_mesh(device_type, ranks), latent_shape)


def weights_mesh(device_type: str, size: int, sharers: int) -> DeviceMesh:
    """Of `size` ranks, with a whole model among every `sharers` neighbours.

    Raises:
        ConfigError: if the ranks cannot be divided so.
    """
    if sharers == size:
        return init_device_mesh(device_type, (size,), mesh_dim_names=("share",))
    if size % sharers:
        raise ConfigError(
            f"parallel is hsdp, but {size} processes are not a multiple of the {sharers} of this machine: "
            "start as many on each, or use parallel fsdp"
        )
    return init_device_mesh(device_type, (size // sharers, sharers), mesh_dim_names=("copy", "share"))


def tokens_mesh(device_type: str, ranks: Ranks) -> DeviceMesh:
    """Of all ranks, those of a team along the last dimension."""
    names = ("team", "ring", "ulysses")
    return init_device_mesh(device_type, (ranks.num_shares, 1, ranks.context), mesh_dim_names=names)
