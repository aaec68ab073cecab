"""The part that all geometry networks begin with: frames to the features of a DINOv2 image encoder."""

from torch import Tensor, nn

from vggrpo.backbones.images import check_frames, normalise_images
from vggrpo.backbones.network_config import NetworkConfig
from vggrpo.backbones.vit import ImageEncoder


class ImageNetwork(nn.Module):
    """Base of a geometry network; `encoder` is its first part.

    Args:
        config: the network's dimensions.
        num_registers, antialias: of `ImageEncoder`.
    """

    def __init__(self, config: NetworkConfig, *, num_registers: int = 0, antialias: bool = False) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        self.encoder = ImageEncoder(
            patch_size=config.patch_size,
            dim=config.encoder_dim,
            depth=config.encoder_depth,
            num_heads=config.encoder_heads,
            mlp_ratio=config.mlp_ratio,
            position_grid=config.position_grid,
            num_registers=num_registers,
            antialias=antialias,
        )

    def embed(self, frames: Tensor) -> Tensor:
        """Frames [B, T, H, W, 3] in [0, 1] to the tokens before encoder block 0, [B*T, S + h*w, C].

        Raises:
            ValueError: if the frames are not of that shape or their sides no multiples of the patch size.
        """
        check_frames(frames, self.patch_size)
        return self.encoder.embed(normalise_images(frames.flatten(0, 1)))

    def encode(self, frames: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Encoder features [B, T, h*w, C] of frames as in `embed`, and their grid (h, w)."""
        features = self.encoder.finish(self.embed(frames))
        return features.unflatten(0, frames.shape[:2]), self.grid(frames)

    def grid(self, frames: Tensor) -> tuple[int, int]:
        """(h, w) of the patches of frames [B, T, H, W, 3]."""
        return frames.shape[2] // self.patch_size, frames.shape[3] // self.patch_size
