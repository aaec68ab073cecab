"""VGGRPO: post-training of video diffusion models with a 4D latent geometry reward (arXiv 2603.26599)."""

__version__ = "0.1.0"
