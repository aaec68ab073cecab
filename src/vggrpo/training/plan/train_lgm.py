"""The plan of `vggrpo train-lgm`."""

from dataclasses import dataclass

import torch

from vggrpo.config import LGMSettings
from vggrpo.lgm import LatentGeometryModel
from vggrpo.training.lgm import make_trainable
from vggrpo.training.lgm_data import BYTES_PER_PIXEL
from vggrpo.training.lgm_gate import NOISE_LEVELS
from vggrpo.training.plan.counting import (
    FLOAT32,
    Cost,
    Known,
    empty_weights,
    module_bytes,
    num_parameters,
    once,
    optimizer_bytes,
    without_values,
)
from vggrpo.training.plan.models import (
    GeometryPlan,
    VideoPlan,
    geometry_on_meta,
    saved_on_meta,
    stitched_on_meta,
)
from vggrpo.training.plan.plan import (
    GIB,
    PAPER_GPU_HOURS,
    Assumptions,
    ModelSize,
    Phase,
    Plan,
    Remedy,
    efficiency_changes,
    problems,
    stacked,
)
from vggrpo.training.sources import num_held_out_generated, num_held_out_videos


@dataclass(frozen=True)
class LGMCosts:
    """Of the computations that a latent geometry model is made with."""

    denoise: Cost
    """A velocity of `batch_size` clips."""
    decode: Cost
    """One clip."""
    encode: Cost
    """One clip."""
    teach: Cost
    """The uncut model on `batch_size` clips."""
    look: Cost
    """The latent geometry model on `batch_size` clips."""
    distil: Cost
    """An optimizer step."""


class LGMPlanner:
    """Counts the computations of `train-lgm`, and what they add up to."""

    def __init__(self, settings: LGMSettings) -> None:
        """
        Raises:
            ConfigError: if models or the stitch point do not exist, or do not fit the sizes.
        """
        s = self.settings = settings
        self.video = VideoPlan(s.base_model, s, (s.num_frames, s.height, s.width))
        self.teacher = GeometryPlan(geometry_on_meta(s.geometry_model), self.video)
        self.point_is_known = s.init is not None or s.stitch_point != "auto"
        trained = self._stitched()
        make_trainable(trained, s)
        self.finished, self.trained = (
            GeometryPlan(model, self.video) for model in (self._stitched(), trained)
        )

    def _stitched(self) -> LatentGeometryModel:
        if self.settings.init is not None:
            return saved_on_meta(self.settings.init, self.video)
        geometry = geometry_on_meta(self.settings.geometry_model)
        point = self.settings.stitch_point if self.point_is_known else geometry.stitch_points[0].name
        return stitched_on_meta(geometry, point, self.video)

    def costs(self, known: Known | None = None) -> LGMCosts:
        """Measures every computation once; those in `known`, of other memory settings of the same run, not
        again."""
        s, video = self.settings, self.video
        size, precision, known = s.batch_size, (s.precision, s.weights), {} if known is None else known
        memory = (s.micro_batch, s.gradient_checkpointing, s.efficiency.offload_activations)
        with without_values():
            empty_weights(
                video.transformer, video.vae, self.teacher.model, self.finished.model, self.trained.model
            )
            return LGMCosts(
                denoise=once(
                    known,
                    ("denoise", precision, size, s.efficiency.cfg_batched),
                    lambda: video.denoise(size, s.cfg_scale != 1.0),
                ),
                decode=once(known, ("decode", s.efficiency.tiled_decoding), video.decode),
                encode=once(known, "encode", video.encode),
                teach=once(known, ("teach", size), lambda: self.teacher.look(size)),
                look=once(known, ("look", size), lambda: self.finished.look(size)),
                distil=once(known, ("distil", precision, size, memory), self._distil),
            )

    def _distil(self) -> Cost:
        size = self.settings.batch_size
        part = self.settings.micro_batch or size
        cost = self.trained.look_and_backpropagate(part, self.settings.precision)
        return Cost(cost.flops * size / part, cost.peak)

    @property
    def num_real(self) -> int:
        """Real clips that are made, held-out ones included."""
        s = self.settings
        return max(s.real_clips, s.fit_clips + s.held_out_clips) + num_held_out_videos(s)

    @property
    def num_generated(self) -> int:
        """Generated clips that are made, held-out ones included."""
        return max(self.settings.generated_clips, 1) + num_held_out_generated(self.settings)

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        s = self.settings
        return max(1, (s.real_clips + s.generated_clips) * s.epochs // s.batch_size)

    @property
    def clip_bytes(self) -> int:
        """Of a cached clip on the disk."""
        views, height, width = self.teacher.raster
        latents = int(torch.Size(self.video.latent_shape).numel()) * FLOAT32
        return views * height * width * BYTES_PER_PIXEL + latents

    def phases(self, costs: LGMCosts) -> list[Phase]:
        """Of the whole run."""
        s, size = self.settings, self.settings.batch_size
        teach, look = costs.teach.flops / size, costs.look.flops / size
        again = costs.decode.flops + teach
        generating = s.infer_steps * costs.denoise.flops / size + again
        clips = self.num_generated * generating + self.num_real * (costs.encode.flops + teach)
        evaluations = self.steps // s.evaluate_every + 2
        distillation = self.steps * costs.distil.flops + evaluations * 2 * s.held_out_clips * look
        gate = s.gate_clips * (look + costs.decode.flops + costs.encode.flops + again)
        gate += num_held_out_videos(s) * (look + again)
        gate += s.noise_clips * (len(NOISE_LEVELS) * look + (len(NOISE_LEVELS) - 1) * again)

        trained = module_bytes(self.trained.model) + optimizer_bytes(self.trained.model)
        teacher, vae = module_bytes(self.teacher.model), module_bytes(self.video.vae)
        # The model that was trained waits on the CPU meanwhile.
        measuring = vae + teacher + module_bytes(self.finished.model)
        converting = max(size * costs.decode.peak, size * costs.encode.peak, costs.teach.peak)
        denoiser = module_bytes(self.video.transformer)
        if s.efficiency.offload:
            making = max(denoiser + costs.denoise.peak, vae + converting, self.video.text_encoder_bytes)
        else:
            making = vae + max(denoiser + max(costs.denoise.peak, converting), self.video.text_encoder_bytes)
        return [
            Phase("clips", clips, teacher + making),
            Phase("distillation", distillation, trained + costs.distil.peak),
            Phase("gate", gate, measuring + max(converting, costs.look.peak)),
        ]


def plan_lgm(settings: LGMSettings, assumptions: Assumptions) -> Plan:
    """What `train-lgm` of `settings` costs on such a GPU. Reads no weights.

    The layer search's regressions are not counted.

    Raises:
        ConfigError: if models or the stitch point do not exist, or do not fit the sizes.
    """
    planner, known = LGMPlanner(settings), Known()
    phases = planner.phases(planner.costs(known))

    def measured(changed: LGMSettings) -> list[Phase]:
        other = LGMPlanner(changed)
        return other.phases(other.costs(known))

    seconds = {phase.name: assumptions.seconds(phase.flops) for phase in phases}
    hours, distilling = sum(seconds.values()) / 3600, seconds["distillation"]
    num_clips = planner.num_real + planner.num_generated
    figures = {
        "clips": f"{planner.num_real} real, {planner.num_generated} generated, "
        f"{num_clips * planner.clip_bytes / GIB:,.1f} GiB on the disk",
        "distillation": f"{planner.steps} optimizer steps, {planner.steps * 3600 / distilling:,.0f} an hour",
        "in all": f"{hours:,.1f} GPU-hours (the paper, with the policy's training: {PAPER_GPU_HOURS}); the "
        "layer search's regressions are not counted",
    }
    if not planner.point_is_known:
        figures["LGM"] = "counted is the first stitch point, the most expensive one; the search chooses later"
    trained = planner.trained.model
    return Plan(
        title=f"train-lgm of {settings.geometry_model} for {settings.base_model}, clips of "
        f"{settings.num_frames}x{settings.height}x{settings.width}",
        models=[
            ModelSize("LGM in training", num_parameters(trained), num_parameters(trained, trainable=True)),
            ModelSize("uncut geometry model", num_parameters(planner.teacher.model)),
            ModelSize("denoiser", num_parameters(planner.video.transformer)),
            ModelSize("autoencoder", num_parameters(planner.video.vae)),
        ],
        phases=phases,
        per="run",
        figures=figures,
        problems=problems(phases, remedies(settings), measured, assumptions),
        assumptions=assumptions,
    )


def remedies(settings: LGMSettings) -> list[Remedy[LGMSettings]]:
    """Settings that need less memory on the GPU, each on top of those before."""
    changes: list[tuple[str, dict[str, object]]] = []
    if not settings.gradient_checkpointing:
        changes.append(("--gradient-checkpointing", {"gradient_checkpointing": True}))
    if (settings.micro_batch or settings.batch_size) > 1:
        changes.append(("--micro-batch 1", {"micro_batch": 1}))
    batch = settings.batch_size // 2
    while batch >= 1:
        changes.append((f"--batch-size {batch}", {"batch_size": batch}))
        batch //= 2
    if settings.weights == "float32":
        half: dict[str, object] = {"precision": "bfloat16", "weights": "bfloat16"}
        changes.append(("--precision bfloat16 --weights bfloat16", half))
    names = ("cfg_batched", "offload", "offload_activations", "tiled_decoding")
    changes += efficiency_changes(settings.efficiency, names)
    return stacked(settings, changes)
