"""What the connector's convolution sees: the receptive field of every token, as rows of a regression."""

from torch import Tensor
from torch.nn import functional as F

KERNEL_SIZE = (5, 5, 5)
"""The connector's kernel over (time, height, width), odd in each direction."""
STRIDE = (1, 2, 2)
"""The connector's stride: one view per latent frame, one token per 2x2 latent pixels."""


def same_padding(kernel_size: tuple[int, int, int]) -> tuple[int, int, int]:
    """Zeros on each side that make output n centre on latent n * stride: (k - 1) / 2.

    Raises:
        ValueError: if a side of the kernel is even or below 1.
    """
    if any(k < 1 or k % 2 == 0 for k in kernel_size):
        raise ValueError(f"kernel_size is {kernel_size}, but each side must be odd, so that it has a centre")
    kt, kh, kw = kernel_size
    return kt // 2, kh // 2, kw // 2


def token_grid(
    latent_height: int, latent_width: int, stride: tuple[int, int, int] = STRIDE
) -> tuple[int, int]:
    """(h, w) of the tokens of a latent frame: ceil(H_lat / stride) x ceil(W_lat / stride)."""
    return -(-latent_height // stride[1]), -(-latent_width // stride[2])


def unfold_latents(
    latents: Tensor,
    kernel_size: tuple[int, int, int] = KERNEL_SIZE,
    stride: tuple[int, int, int] = STRIDE,
) -> Tensor:
    """The zero-padded window around every token, [B, C, T, H, W] to [B, T', h, w, C, kt, kh, kw].

    Flattened over its last four dimensions, a window times `conv.weight.flatten(1).T` is the output of a
    `Conv3d` of the same kernel and stride and of padding `same_padding(kernel_size)`, borders included. The
    result is a view of the padded latents: index it before reshaping it, or it takes kt * kh * kw times
    their memory.
    """
    pt, ph, pw = same_padding(kernel_size)
    padded = F.pad(latents, (pw, pw, ph, ph, pt, pt))
    windows = padded
    for dim, size, step in zip((2, 3, 4), kernel_size, stride, strict=True):
        windows = windows.unfold(dim, size, step)
    return windows.permute(0, 2, 3, 4, 1, 5, 6, 7)
