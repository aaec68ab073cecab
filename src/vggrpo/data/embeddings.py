"""Text embeddings kept on disk, so that training never loads the text encoder twice."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from vggrpo.backbones.base import VideoBackbone
from vggrpo.config.errors import CorruptFileError
from vggrpo.io import load_metadata, load_tensors, save_tensors

ENCODE_BATCH = 32
"""Prompts encoded between two writes: what an interruption can cost."""


class TextEmbeddingCache:
    """Embeddings by text encoder and prompt, one small file each; a changed text encoder finds nothing.

    Several processes may share a folder: files appear complete or not at all.
    """

    def __init__(self, folder: Path | str, backbone: VideoBackbone) -> None:
        """`backbone` encodes what is not in `folder` yet; its text encoder is loaded only then."""
        self.folder = Path(folder) / backbone.text_fingerprint[:16]
        self.backbone = backbone

    def file(self, prompt: str) -> Path:
        """Where the embedding of `prompt` is or will be."""
        return self.folder / f"{hashlib.sha256(prompt.encode()).hexdigest()[:32]}.safetensors"

    def embed(self, prompts: Sequence[str]) -> Tensor:
        """Text embeddings [N, L, D], float32, as `backbone.encode_prompts` makes them.

        Raises:
            ValueError: if there is no prompt.
            CorruptFileError: if a cached file is damaged.
        """
        if not prompts:
            raise ValueError("prompts is empty; give at least one")
        missing = [prompt for prompt in dict.fromkeys(prompts) if not self.file(prompt).is_file()]
        for start in range(0, len(missing), ENCODE_BATCH):
            batch = missing[start : start + ENCODE_BATCH]
            for prompt, embeds in zip(batch, self.backbone.encode_prompts(batch), strict=True):
                self._write(prompt, embeds)
        return torch.stack([self._read(prompt) for prompt in prompts])

    def _write(self, prompt: str, embeds: Tensor) -> None:
        filled = embeds.any(dim=1).nonzero()
        used = int(filled[-1]) + 1 if len(filled) else 0
        save_tensors(self.file(prompt), {"embeds": embeds[:used]}, {"prompt": prompt, "length": len(embeds)})

    def _read(self, prompt: str) -> Tensor:
        file = self.file(prompt)
        try:
            embeds, metadata = load_tensors(file)["embeds"], load_metadata(file)
        except CorruptFileError as error:
            raise CorruptFileError(f"{error}; delete {file} and it is made again") from error
        return torch.cat([embeds, embeds.new_zeros(metadata["length"] - len(embeds), embeds.shape[1])])
