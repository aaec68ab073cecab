"""Streaming ridge regression from a convolution's receptive fields to tokens: the connector's closed-form
start.

With x the unfolded latents of one token (C * kt * kh * kw values) and y its target (the teacher's token
minus the positional part), the connector's weights are

    W, b = argmin  sum |x W + b - y|^2 + lambda |W|^2,      lambda = ridge * trace(S_xx) / dim(x)

where S_xx is the centred second moment of x and the bias is not penalised. Only sums over tokens are kept,
in float64: X^T X (one for all candidate layers), X^T Y and the sums per position. From these the solution,
its positional part and its error on *other* sums follow in closed form, so one pass over the data serves
every layer, every lambda and the held-out error.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vggrpo.lgm.unfolding import KERNEL_SIZE, STRIDE, unfold_latents

_CHUNK_ELEMENTS = 2**24  # float64 values of unfolded latents held at a time: 128 MiB
_GRAM_BLOCK = 256  # columns of X^T X computed at a time, from the diagonal on: half of a symmetric matrix


@dataclass(frozen=True)
class RidgeSolution:
    """A fitted connector: `tokens = conv3d(latents, weight, bias) + position`."""

    weight: Tensor
    """[width, C, kt, kh, kw], float64."""
    bias: Tensor
    """[width]."""
    position: Tensor
    """[h, w, width]: what is added per position; [2, h, w, width], in view 0 and in the others, where these
    differ."""
    ridge: float
    """The penalty, relative to the mean eigenvalue of the inputs' second moment."""

    @property
    def matrix(self) -> Tensor:
        """Weight and bias as one matrix [C * kt * kh * kw + 1, width], the bias last."""
        return torch.cat([self.weight.flatten(1).T, self.bias[None]])

    def cpu(self) -> "RidgeSolution":
        """The same solution on the CPU."""
        return RidgeSolution(self.weight.cpu(), self.bias.cpu(), self.position.cpu(), self.ridge)


@dataclass
class _TokenSums:
    """Sums over tokens that depend on the layer."""

    cross: Tensor
    """X^T Y [D + 1, width]."""
    per_position: Tensor
    """Sum of the tokens at each position of view 0 and of the others [2 * h*w, width]."""
    square: Tensor
    """Sum of |y|^2, a scalar."""


class RidgeStatistics:
    """The sums that ridge regression needs, over any number of batches, for any number of candidate layers.

    Args:
        kernel_size, stride: the connector's convolution; its padding is zeros, here as there.
    """

    def __init__(
        self, kernel_size: tuple[int, int, int] = KERNEL_SIZE, stride: tuple[int, int, int] = STRIDE
    ) -> None:
        self.kernel_size = kernel_size
        self.stride = stride
        self.num_clips = 0
        self.num_tokens = 0
        self.grid: tuple[int, int] | None = None
        self._gram = torch.empty(0)  # X^T X [D + 1, D + 1], upper triangle; the last column of X is 1
        self._gram_is_full = False
        self._rows_per_position = torch.empty(0)  # [2 * h*w, D + 1], of view 0 and of the others
        self._tokens: dict[str, _TokenSums] = {}

    def add(self, latents: Tensor, tokens: Mapping[str, Tensor]) -> None:
        """Adds a batch: latents [B, C, T, H, W] and, per candidate layer, the tokens [B, T, h*w, width].

        Raises:
            ValueError: if shapes disagree with each other or with earlier batches.
        """
        windows = unfold_latents(latents.detach().double(), self.kernel_size, self.stride)
        batch, views, h, w = windows.shape[:4]
        self._check(tokens, latents, batch, views, (h, w))
        dim = windows[0, 0, 0, 0].numel() + 1
        if self.grid is None:
            self._start(tokens, dim, (h, w), latents.device)
        elif dim != self._gram.shape[0]:
            raise ValueError(
                f"latents have {latents.shape[1]} channels, but earlier batches gave inputs of another width"
            )
        # In float64 only chunk by chunk.
        targets = {name: value.detach().reshape(-1, w, value.shape[-1]) for name, value in tokens.items()}
        lines = torch.arange(
            batch * views * h, device=latents.device
        )  # one line = the w tokens of one grid row
        for chunk in lines.split(max(1, _CHUNK_ELEMENTS // (dim * w))):
            clip, view, row = chunk // (views * h), chunk // h % views, chunk % h
            x = windows[clip, view, row].reshape(chunk.numel() * w, dim - 1)
            x = torch.cat([x, x.new_ones(x.shape[0], 1)], dim=1)
            first = (view.clamp(max=1) * h + row) * w
            position = (first[:, None] + torch.arange(w, device=row.device)).flatten()
            for start in range(0, dim, _GRAM_BLOCK):
                block = slice(start, start + _GRAM_BLOCK)
                self._gram[block, start:].addmm_(x[:, block].T, x[:, start:])
            self._rows_per_position.index_add_(0, position, x)
            for name, target in targets.items():
                y = target[chunk].flatten(0, 1).double()
                sums = self._tokens[name]
                sums.cross.addmm_(x.T, y)
                sums.per_position.index_add_(0, position, y)
                sums.square += y.square().sum()
        self._gram_is_full = False
        self.num_clips += batch
        self.num_tokens += batch * views * h * w

    def solve(
        self, ridge: float, positions: Mapping[str, Tensor | None], reference: Collection[str] = ()
    ) -> dict[str, RidgeSolution]:
        """The solution of every layer named in `positions`.

        Args:
            ridge: lambda relative to the mean eigenvalue of the inputs' second moment; above 0.
            positions: per layer the positional part [h*w, width] to take from the target, or None for the
                tokens' own mean at each position.
            reference: layers of whose tokens the mean is taken in view 0 and in the others apart.

        Raises:
            ValueError: if nothing was added, or `ridge` is too small for the inputs to be told apart.
        """
        if self.grid is None:
            raise ValueError("ridge regression has no data: add at least one batch before solving")
        if not ridge > 0:
            raise ValueError(
                f"ridge is {ridge}, but it must be above 0: neighbouring latents are nearly collinear"
            )
        gram = self._full_gram()
        n, dim = self.num_tokens, gram.shape[0] - 1
        mean_x = gram[-1, :-1] / n
        # In one step: at 48 latent channels each matrix takes 288 MB.
        second_moment = torch.addr(gram[:-1, :-1], mean_x, mean_x, alpha=-n)
        penalty = ridge * second_moment.trace() / dim
        second_moment.diagonal().add_(penalty)
        factor, failed = torch.linalg.cholesky_ex(second_moment)
        if failed.item():
            raise ValueError(
                f"ridge is {ridge}, too small for inputs that are (nearly) collinear; use a larger one, such "
                "as 1e-4"
            )
        solutions = {}
        for name, given in positions.items():
            position = self._position(name, given, name in reference)
            cross = self._residual_cross(name, position)
            mean_y = cross[-1] / n
            weight = torch.cholesky_solve(cross[:-1] - n * torch.outer(mean_x, mean_y), factor)  # [D, width]
            bias = mean_y - mean_x @ weight
            channels = dim // (self.kernel_size[0] * self.kernel_size[1] * self.kernel_size[2])
            solutions[name] = RidgeSolution(
                weight=weight.T.reshape(-1, channels, *self.kernel_size),
                bias=bias,
                position=position.unflatten(-2, self.grid),
                ridge=ridge,
            )
        return solutions

    def error(self, name: str, solution: RidgeSolution) -> float:
        """Variance-normalised error 1 - R^2 of a solution on the clips of *these* statistics; 1 = the mean
        token.

        Squared errors and variances are summed over channels; the positional part counts for neither.
        """
        gram = self._full_gram()
        position = solution.position.flatten(-3, -2).to(gram)
        cross, position = self._residual_cross(name, position), _for_both(position)
        sums = self._tokens[name]
        counts = self._rows_per_position[:, -1:]  # tokens per position, since the last column of X is 1
        square = sums.square - 2 * (position * sums.per_position).sum() + (counts * position.square()).sum()
        matrix = solution.matrix.to(gram)
        residual = square - 2 * (matrix * cross).sum() + (matrix * (gram @ matrix)).sum()
        variance = square - cross[-1].square().sum() / self.num_tokens
        return float(residual.clamp_min(0) / variance)

    def _full_gram(self) -> Tensor:
        """X^T X [D + 1, D + 1], both triangles."""
        if not self._gram_is_full:
            self._gram = self._gram.triu() + self._gram.triu(1).T
            self._gram_is_full = True
        return self._gram

    def _position(self, name: str, given: Tensor | None, reference: bool) -> Tensor:
        """The positional part of a layer: the given one, or the mean token at each position, [h*w, width];
        with `reference` that of view 0 and of the others, [2, h*w, width]."""
        sums = self._tokens[name].per_position.unflatten(0, (2, -1))
        if given is None:
            counts = self._rows_per_position[:, -1:].unflatten(0, (2, -1))
            # Clips of one view have no others, and nothing is added there.
            return sums / counts.clamp_min(1) if reference else sums.sum(0) / counts.sum(0)
        if given.shape != sums.shape[1:]:
            raise ValueError(
                f"the positional part of {name} has shape {list(given.shape)}; expected "
                f"{list(sums.shape[1:])}"
            )
        return given.detach().to(sums)

    def _residual_cross(self, name: str, position: Tensor) -> Tensor:
        """X^T (Y - position) [D + 1, width]; the positional part needs only the inputs' sums per position."""
        return self._tokens[name].cross - self._rows_per_position.T @ _for_both(position)

    def _start(
        self, tokens: Mapping[str, Tensor], dim: int, grid: tuple[int, int], device: torch.device
    ) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        self.grid = grid
        positions = 2 * grid[0] * grid[1]
        self._gram = zeros(dim, dim)
        self._rows_per_position = zeros(positions, dim)
        for name, value in tokens.items():
            width = value.shape[-1]
            self._tokens[name] = _TokenSums(zeros(dim, width), zeros(positions, width), zeros())

    def _check(
        self, tokens: Mapping[str, Tensor], latents: Tensor, batch: int, views: int, grid: tuple[int, int]
    ) -> None:
        for name, value in tokens.items():
            expected = (batch, views, grid[0] * grid[1])
            if value.ndim != 4 or value.shape[:3] != expected:
                raise ValueError(
                    f"tokens at {name} have shape {list(value.shape)}, but latents of shape "
                    f"{list(latents.shape)} need {[*expected, 'width']}: one view per latent frame, one "
                    "token per grid cell"
                )
        if self.grid is not None and (grid != self.grid or tokens.keys() != self._tokens.keys()):
            raise ValueError(
                f"this batch has a {grid[0]}x{grid[1]} grid and layers {sorted(tokens)}, but earlier ones "
                f"had {self.grid[0]}x{self.grid[1]} and {sorted(self._tokens)}"
            )


def _for_both(position: Tensor) -> Tensor:
    """A positional part [h*w, width] or [2, h*w, width] as that of view 0 and of the others, [2 * h*w,
    width]."""
    return position.expand(2, -1, -1).flatten(0, 1)


def fit_ridge(
    latents: Tensor,
    tokens: Tensor,
    position: Tensor | None = None,
    ridge: float = 1e-4,
    kernel_size: tuple[int, int, int] = KERNEL_SIZE,
    stride: tuple[int, int, int] = STRIDE,
) -> RidgeSolution:
    """The connector from latents [B, C, T, H, W] to tokens [B, T, h*w, width] of data that fit into memory.

    Args:
        latents: normalised latents.
        tokens: the teacher's patch tokens of the same clips.
        position: positional part [h*w, width]; None takes the tokens' mean at each position.
        ridge: penalty relative to the mean eigenvalue of the inputs' second moment.
        kernel_size, stride: the connector's convolution.
    """
    statistics = RidgeStatistics(kernel_size, stride)
    statistics.add(latents, {"tokens": tokens})
    return statistics.solve(ridge, {"tokens": position})["tokens"]
