"""Makes a latent geometry model: search for the layer, regression for the connector, distillation for the
rest.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from vggrpo.backbones import GeometryBackbone, VideoBackbone, load_geometry_backbone
from vggrpo.backbones.pipelines.efficiency import activations_on_cpu
from vggrpo.config import ConfigError, FindLayerSettings, LGMSettings, LoopSettings, StitchSettings
from vggrpo.data import ClipCache
from vggrpo.evaluation import GATE_PLOT, plot_gate, spearman
from vggrpo.geometry import SceneGeometry
from vggrpo.io import RunFolder, read_json, write_json
from vggrpo.lgm import (
    LatentGeometryModel,
    LayerSearch,
    agreement,
    block_loss,
    distillation_loss,
    find_layer,
    per_clip,
    plot_layer_search,
    recorded_blocks,
)
from vggrpo.rewards import SceneReward
from vggrpo.training.lgm_data import ClipMaker, clip_frames, teacher_scene
from vggrpo.training.lgm_gate import measure_gate
from vggrpo.training.lgm_initial import open_initial
from vggrpo.training.loop import Job, run_job
from vggrpo.training.optim import parameter_group
from vggrpo.training.order import shuffled_places
from vggrpo.training.rewards import build_rewards
from vggrpo.training.runtime import autocast, choose_device, open_video_model, prepare, set_aside
from vggrpo.training.sources import (
    num_held_out_generated,
    num_held_out_videos,
    open_videos,
    training_prompts,
)

LAYER_SEARCH = "layer_search"
QUALITY_FILE = "quality.json"
MODEL_FOLDER = "model"


@dataclass(frozen=True)
class Stitch:
    """The two models to join, and the maker of the clips that show how."""

    video: VideoBackbone
    geometry: GeometryBackbone
    clips: ClipMaker


def open_stitch(settings: StitchSettings, points: Sequence[str]) -> Stitch:
    """Loads the models and checks the clips' size and the stitch points' names against them; makes no files.

    Raises:
        ConfigError: if something does not fit.
    """
    device = choose_device(settings.device)
    video = open_video_model(settings.base_model, settings, device)
    geometry = load_geometry_backbone(settings.geometry_model).to(device)
    try:
        video.latent_shape(settings.num_frames, settings.height, settings.width)
        for point in points:
            geometry.stitch_point(point)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    cache = settings.clip_cache or settings.output / "clips"
    return Stitch(video, geometry, ClipMaker(video, geometry, settings, cache))


def search_layer(settings: FindLayerSettings) -> tuple[LayerSearch, Path]:
    """`vggrpo find-layer`: ranks the stitch points; writes table, plot and JSON into the run folder."""
    prepare(settings)
    num_clips = settings.held_out_clips + settings.fit_clips
    open_videos(settings, num_clips)
    stitch = open_stitch(settings, settings.candidates)
    run = RunFolder.start(settings.output, settings, resume=settings.resume)
    clips = stitch.clips.real(num_clips)
    search = _search(stitch.geometry, clips, settings, settings.candidates)
    write_layer_search(search, run.path)
    return search, run.path


def _search(
    geometry: GeometryBackbone, clips: ClipCache, settings: StitchSettings, candidates: Sequence[str]
) -> LayerSearch:
    """Searches on the first held_out_clips + fit_clips clips, of which the first held_out_clips are never
    fitted to.
    """
    count = settings.held_out_clips + settings.fit_clips

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, count, settings.batch_size):
            batch = clips.batch(range(start, min(start + settings.batch_size, count)))
            yield batch["latents"], clip_frames(batch)

    return find_layer(
        geometry,
        batches(),
        settings.held_out_clips,
        candidates,
        downstream_clips=settings.downstream_clips,
    )


def write_layer_search(search: LayerSearch, folder: Path) -> None:
    """layer_search.png, then layer_search.json, whose presence says that the search is done."""
    plot_layer_search(search, folder / f"{LAYER_SEARCH}.png")
    write_json(folder / f"{LAYER_SEARCH}.json", search.as_dict())


class DistillationJob(Job):
    """Latents in; the loss is the distance to what the uncut model sees in the same clips' frames."""

    name = "train LGM"

    def __init__(
        self,
        settings: LGMSettings,
        model: LatentGeometryModel,
        training: Sequence[ClipCache],
        held_out: Mapping[str, ClipCache],
        block_states: Sequence[ClipCache] = (),
    ) -> None:
        """`training` and `block_states`: real clips, then generated ones; no states where they count
        nothing.
        """
        self.block_states = block_states
        self.block_names = model.backbone.block_names(model.stitch_point) if block_states else []
        self.settings, self.model, self.caches, self.held_out = settings, model, training, held_out
        self.device = next(model.parameters()).device
        self.rewards = build_rewards(settings.rewards)
        # A cache can hold more clips than are trained on: the layer search has a number of its own.
        counts = (settings.real_clips, settings.generated_clips)
        self.training = [(kind, index) for kind, count in enumerate(counts) for index in range(count)]
        self.loop = LoopSettings(
            steps=max(1, len(self.training) * settings.epochs // settings.batch_size),
            batch_size=settings.batch_size,
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            beta2=0.999,
            warmup_steps=max(settings.warmup_steps, 1),
            grad_clip=settings.grad_clip,
            evaluate_every=settings.evaluate_every,
            checkpoint_every=settings.checkpoint_every,
            keep_checkpoints=settings.keep_checkpoints,
        )

    def modules(self) -> Mapping[str, nn.Module]:
        return {"model": self.model}

    def optimizers(self) -> list[torch.optim.Optimizer]:
        s = self.settings
        groups = [
            parameter_group(group["params"], group["lr"], s.weight_decay)
            for group in self.model.parameter_groups(s.lr, s.lr * s.connector_lr_scale)
        ]
        return [torch.optim.AdamW(groups, betas=(self.loop.beta1, self.loop.beta2), fused=True)]

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        return self._loss(self._chosen(step))

    def losses(self, step: int) -> Iterator[tuple[Tensor, dict[str, float]]]:
        chosen = self._chosen(step)
        size = self.settings.micro_batch or len(chosen)
        for start in range(0, len(chosen), size):
            part = chosen[start : start + size]
            share = len(part) / len(chosen)
            loss, figures = self._loss(part)
            yield share * loss, {name: share * value for name, value in figures.items()}

    def _chosen(self, step: int) -> list[tuple[int, int]]:
        """The clips of a step's batch, as (cache, index)."""
        size = self.settings.batch_size
        places = shuffled_places(len(self.training), step * size, size, self.settings.seed, "lgm-epoch")
        return [self.training[place] for place in places]

    def _loss(self, chosen: Sequence[tuple[int, int]]) -> tuple[Tensor, dict[str, float]]:
        """The mean loss of clips, and its parts."""
        batch = self._batch(self.caches, chosen)
        with (
            autocast(self.settings.precision, self.device),
            activations_on_cpu(self.settings.efficiency.offload_activations, self.device),
            recorded_blocks(self.model.backbone, self.block_names) as states,
        ):
            scene = self.model(batch["latents"])
        loss, parts = distillation_loss(scene, teacher_scene(batch), self.settings.loss.model_dump())
        if self.block_states:
            student = {name: per_clip(state, len(chosen)) for name, state in states.items()}
            blocks = block_loss(student, self._batch(self.block_states, chosen))
            loss, parts = loss + self.settings.block_weight * blocks, parts | {"blocks": blocks.detach()}
        return loss, {f"lgm/{name}": value.item() for name, value in parts.items()}

    def _batch(self, caches: Sequence[ClipCache], places: Sequence[tuple[int, int]]) -> dict[str, Tensor]:
        """All that is kept of clips given as (cache, index), but their frames."""
        clips = [caches[kind][index] for kind, index in places]
        names = [name for name in clips[0] if name != "frames"]
        return {name: torch.stack([clip[name] for clip in clips]).to(self.device) for name in names}

    def evaluate(self, step: int) -> dict[str, float | None]:
        """Agreement with the teacher on held-out clips, real and generated apart."""
        figures: dict[str, float | None] = {}
        for name, quality in self.quality().items():
            figures |= {f"lgm/{name}/{metric}": value for metric, value in quality["agreement"].items()}
            figures |= {f"lgm/{name}/spearman_{r}": value for r, value in quality["spearman"].items()}
        return figures

    @torch.no_grad()
    def quality(self) -> dict[str, dict]:
        """For "real" and "generated": agreement, rank correlation of the rewards, and the rewards
        themselves.
        """
        return {
            kind: scene_quality(self._held_out_scenes(cache), self.rewards)
            for kind, cache in self.held_out.items()
        }

    def _held_out_scenes(self, cache: ClipCache) -> Iterator[tuple[SceneGeometry, SceneGeometry]]:
        """Student's and teacher's scenes, batch by batch: at full size one takes 170 MB."""
        size = self.settings.batch_size
        for start in range(0, self.settings.held_out_clips, size):
            batch = cache.batch(range(start, min(start + size, self.settings.held_out_clips)))
            yield self.model(batch["latents"].to(self.device)), teacher_scene(batch).to(self.device)


def make_trainable(model: LatentGeometryModel, settings: LGMSettings) -> None:
    """Makes of a stitched model what the distillation trains."""
    if settings.trainable == "lora":
        model.add_lora(settings.lora_rank, settings.lora_alpha, seed=settings.seed)
    else:
        model.train_all()
    if settings.gradient_checkpointing:
        model.enable_gradient_checkpointing()


def scene_quality(
    batches: Iterable[tuple[SceneGeometry, SceneGeometry]], rewards: Mapping[str, SceneReward]
) -> dict[str, dict]:
    """How well a student's scenes, and the rewards computed from them, agree with the teacher's on the same
    clips, given as batches of (student, teacher).

    The rank correlation of a reward is None where it is constant or was valid for fewer than two clips, and
    an error is None where it is not finite.
    """
    columns: dict[str, list[Tensor]] = defaultdict(list)
    for student, teacher in batches:
        for name, reward in rewards.items():
            columns[f"lgm/{name}"].append(reward(student).value)
            columns[f"teacher/{name}"].append(reward(teacher).value)
        for name, error in agreement(student, teacher).items():
            columns[f"error/{name}"].append(error)
    measured = {name: torch.cat(parts).double().cpu() for name, parts in columns.items()}
    correlations, values = {}, {}
    for name in rewards:
        ours, theirs = measured[f"lgm/{name}"], measured[f"teacher/{name}"]
        both = ours.isfinite() & theirs.isfinite()
        pair = ours[both].numpy(), theirs[both].numpy()
        correlation = spearman(*pair) if both.sum() > 1 else math.nan
        correlations[name] = None if math.isnan(correlation) else correlation
        values[name] = {"lgm": pair[0].tolist(), "teacher": pair[1].tolist()}
    means = {
        name.removeprefix("error/"): error.mean().item()
        for name, error in measured.items()
        if name.startswith("error/")
    }
    errors = {name: mean if math.isfinite(mean) else None for name, mean in means.items()}
    return {"agreement": errors, "spearman": correlations, "rewards": values}


def _stitched(stitch: Stitch, clips: ClipCache, settings: LGMSettings, folder: Path) -> LatentGeometryModel:
    """The model that the layer search on real clips recommends, with its regressed connector."""
    points = () if settings.stitch_point == "auto" else (settings.stitch_point,)
    searched = folder / f"{LAYER_SEARCH}.json"
    if searched.exists():
        # A resumed run keeps its stitch point, however close the candidates were.
        points = (read_json(searched)["recommended"],)
    search = _search(stitch.geometry, clips, settings, points)
    if not searched.exists():
        write_layer_search(search, folder)
    return LatentGeometryModel(
        stitch.geometry,
        search.connector(),
        search.recommended,
        stitch.video.latent_spec,
        video_model=settings.base_model,
        geometry_model=settings.geometry_model,
    )


def train_lgm(settings: LGMSettings) -> Path:
    """`vggrpo train-lgm`: writes the latent geometry model with its gate to `<output>/model`, and its quality
    to `quality.json`.

    Raises:
        ConfigError: if there are no clips left to train on, or something does not fit.
    """
    prepare(settings)
    if settings.real_clips + settings.generated_clips == 0:
        raise ConfigError("real_clips and generated_clips are both 0: there is nothing to train on")
    num_real = max(settings.real_clips, settings.fit_clips + settings.held_out_clips)
    open_videos(settings, num_real)
    training_prompts(settings)
    points = () if settings.stitch_point == "auto" else (settings.stitch_point,)
    stitch = open_stitch(settings, points)
    initial = open_initial(settings, stitch.video.latent_spec)
    run = RunFolder.start(settings.output, settings, resume=settings.resume)
    real = stitch.clips.real(num_real)
    generated = stitch.clips.generated(max(settings.generated_clips, 1), settings)
    held_out = {
        "real": stitch.clips.real(num_held_out_videos(settings), held_out=True),
        "generated": stitch.clips.generated(num_held_out_generated(settings), settings, held_out=True),
    }

    states = (
        [stitch.clips.block_states(cache) for cache in (real, generated)] if settings.block_weight else []
    )
    model = (initial or _stitched(stitch, real, settings, run.path)).to(stitch.video.device)
    # From here on only latents and what the teacher made of them are needed, both of them on disk.
    del stitch, initial

    make_trainable(model, settings)
    job = DistillationJob(settings, model, (real, generated), held_out, states)
    untrained_file = run.path / "untrained_quality.json"
    if not untrained_file.exists():
        write_json(untrained_file, job.quality())
    run_job(job, run, job.loop)
    folder = run.path / MODEL_FOLDER
    model.save_pretrained(folder, replace=True)
    # What is measured is what will be used: the model as saved, its LoRA merged.
    with set_aside(model):
        saved = LatentGeometryModel.from_pretrained(folder).to(job.device)
        gate = measure_gate(settings, saved, held_out["generated"], held_out["real"])
    plot_gate(gate, run.path / GATE_PLOT)
    for place in (run.path, folder):
        gate.save(place)
    # Written last: its presence says that the model is complete.
    write_json(run.path / QUALITY_FILE, job.quality())
    return folder
