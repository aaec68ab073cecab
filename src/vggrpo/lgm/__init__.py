"""The latent geometry model: a geometry model entered from video latents through one 3D convolution."""

from vggrpo.lgm.block_states import block_loss, per_clip, recorded_blocks
from vggrpo.lgm.connector import Connector
from vggrpo.lgm.distillation import DEFAULT_WEIGHTS, distillation_loss
from vggrpo.lgm.model import LatentGeometryModel, read_latent_spec
from vggrpo.lgm.quality import agreement, agreement_where_seen
from vggrpo.lgm.ridge import RidgeSolution, RidgeStatistics, fit_ridge
from vggrpo.lgm.search import LayerResult, LayerSearch, find_layer
from vggrpo.lgm.search_plot import layer_table, plot_layer_search
from vggrpo.lgm.unfolding import token_grid, unfold_latents
from vggrpo.lgm.views import teacher_frames

__all__ = [
    "DEFAULT_WEIGHTS",
    "Connector",
    "LatentGeometryModel",
    "LayerResult",
    "LayerSearch",
    "RidgeSolution",
    "RidgeStatistics",
    "agreement",
    "agreement_where_seen",
    "block_loss",
    "distillation_loss",
    "find_layer",
    "fit_ridge",
    "layer_table",
    "per_clip",
    "plot_layer_search",
    "read_latent_spec",
    "recorded_blocks",
    "teacher_frames",
    "token_grid",
    "unfold_latents",
]
