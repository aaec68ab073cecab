"""Which frames the geometry model sees for given latents, and at which size."""

from torch import Tensor

from vggrpo.backbones import LatentSpec, resize_frames
from vggrpo.backbones.images import check_frames
from vggrpo.lgm.unfolding import STRIDE, token_grid


def teacher_frames(
    frames: Tensor, latent_spec: LatentSpec, patch_size: int, stride: tuple[int, int, int] = STRIDE
) -> Tensor:
    """The views that a video's latents stand for, as the geometry model needs them.

    One view per latent frame (video frames 0, 4, 8, ... of a 4x causal autoencoder), resized to
    `patch_size * (h, w)` so that the model's patches correspond one to one to the connector's tokens.

    Args:
        frames: a video [B, T, H, W, 3] in [0, 1].
        latent_spec: the autoencoder whose latents the connector reads.
        patch_size: of the geometry model.
        stride: of the connector.

    Returns:
        Frames [B, T_lat, patch_size * h, patch_size * w, 3] in [0, 1].

    Raises:
        TypeError, ValueError: if the frames are no floating-point video, or one that the autoencoder cannot
            encode.
    """
    check_frames(frames)
    _, num_frames, height, width, _ = frames.shape
    _, num_views, latent_height, latent_width = latent_spec.latent_shape(num_frames, height, width)
    h, w = token_grid(latent_height, latent_width, stride)
    views = frames[:, latent_spec.view_frames(num_views)]
    return resize_frames(views, patch_size * h, patch_size * w)
