"""Advantages, policy losses, and the trainers."""

from vggrpo.training.advantages import group_advantages, group_statistics
from vggrpo.training.losses import PolicyLoss, policy_loss

__all__ = ["PolicyLoss", "group_advantages", "group_statistics", "policy_loss"]
