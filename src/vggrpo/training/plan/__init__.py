"""What a run will cost, counted before it: no weights are read and no tensor has values."""

from vggrpo.training.plan.plan import Assumptions, Plan
from vggrpo.training.plan.table import print_plan
from vggrpo.training.plan.train import plan_training
from vggrpo.training.plan.train_lgm import plan_lgm

__all__ = ["Assumptions", "Plan", "plan_lgm", "plan_training", "print_plan"]
