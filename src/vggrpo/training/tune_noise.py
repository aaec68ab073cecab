"""`vggrpo tune-noise`: rollouts of a grid of noise settings beside the ODE's samples from the same noises.

Every group of every cell is a file of its own, so that an interrupted run continues with the groups that are
missing. The figures are made from the files at the end.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from vggrpo.backbones import VideoBackbone
from vggrpo.config import ODE, ConfigError, NoiseCell, RunError, TuneNoiseSettings
from vggrpo.config.errors import CorruptFileError
from vggrpo.data import Prompt
from vggrpo.evaluation import latent_moments, pixel_statistics
from vggrpo.io import (
    RunFolder,
    derive_seed,
    file_sha256,
    load_tensors,
    progress,
    read_json,
    save_tensors,
    write_json,
    write_text,
    write_video,
)
from vggrpo.io.manifest import MANIFEST_NAME
from vggrpo.lgm import LatentGeometryModel
from vggrpo.rollout import RolloutGroup, sample_group
from vggrpo.training.rewards import build_rewards
from vggrpo.training.runtime import choose_device, open_video_model, prepare
from vggrpo.training.scoring import counted_weights, score_group
from vggrpo.training.sources import open_prompts, prompts_hash
from vggrpo.training.texts import PromptTexts
from vggrpo.training.tune_noise_figures import (
    LATENT,
    PIXELS,
    REWARD,
    Measures,
    NoiseTuning,
    ScoreScale,
    summarise,
)
from vggrpo.training.tune_noise_plot import plot_noise

RESULT = "tune_noise"
INPUTS_FILE = "inputs.json"
FEWEST_PROMPTS = 3
"""With fewer there are no intervals, and so no recommendation."""


def tune_noise(settings: TuneNoiseSettings) -> NoiseTuning:
    """Measures the grid and writes tune_noise.json, .csv and .png into the run folder.

    Everything that can be wrong with prompts, sizes and models is checked before any work starts.

    Raises:
        ConfigError: for prompts or models that do not exist or do not fit.
        RunError: if the folder holds a run, or the run to resume was made with other models or prompts.
        ValueError: if the latent geometry model belongs to another autoencoder, or the rewards fail on every
            ODE sample.
    """
    prepare(settings)
    device = choose_device(settings.device)
    prompts = open_prompts(settings.prompts, "train", settings.num_prompts)
    if len(prompts) < FEWEST_PROMPTS:
        raise ConfigError(
            f"{settings.prompts} holds {len(prompts)} prompts, but intervals need at least {FEWEST_PROMPTS}"
        )
    policy = open_video_model(settings.base_model, settings, device)
    try:
        policy.latent_shape(settings.num_frames, settings.height, settings.width)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    lgm = LatentGeometryModel.from_pretrained(settings.lgm_path).to(device)
    lgm.check_latents(policy.latent_spec, settings.base_model)

    run = RunFolder.start(settings.output, settings, resume=settings.resume)
    check_inputs(run.path, inputs_of(policy, settings.lgm_path, prompts))
    grid = NoiseGrid(settings, run, policy, lgm, prompts)
    measured = grid.measure()
    tuning = summarise(
        measured,
        grid.weights,
        [prompt.id for prompt in prompts],
        settings.tolerance,
        settings.latent_tolerance,
    )
    write_tuning(tuning, run.path)
    return tuning


def inputs_of(policy: VideoBackbone, lgm_path: Path, prompts: list[Prompt]) -> dict[str, object]:
    """What the measurements depend on beside the settings: hashes of models and prompts."""
    return {
        "base_model": policy.identity(),
        "lgm_path": file_sha256(lgm_path / MANIFEST_NAME),
        "prompts": prompts_hash(prompts),
    }


def check_inputs(folder: Path, inputs: Mapping[str, object]) -> None:
    """Notes the inputs of a new run, and makes sure that those of a resumed one are the same.

    Raises:
        RunError: naming those that are not.
    """
    file = folder / INPUTS_FILE
    if not file.exists():
        write_json(file, inputs)
        return
    noted = read_json(file)
    changed = [name for name, value in inputs.items() if noted.get(name) != value]
    if changed:
        raise RunError(
            f"{folder} was measured with another content of {' and '.join(changed)}; put back what was "
            "there, or start a new run with another --output"
        )


class NoiseGrid:
    """Measures groups of rollouts, cell by cell.

    Args:
        settings: of the run.
        run: its folder.
        policy: the video model.
        lgm: frozen; its autoencoder must be the policy's.
        prompts: one group each, in every cell.
    """

    def __init__(
        self,
        settings: TuneNoiseSettings,
        run: RunFolder,
        policy: VideoBackbone,
        lgm: LatentGeometryModel,
        prompts: list[Prompt],
    ) -> None:
        self.settings, self.run, self.policy, self.lgm, self.prompts = settings, run, policy, lgm, prompts
        rewards = build_rewards(settings.rewards)
        self.weights = counted_weights(settings.reward_weights, rewards)
        self.rewards = {name: rewards[name] for name in self.weights}
        self.latent_shape = policy.latent_shape(settings.num_frames, settings.height, settings.width)
        self.schedule = policy.schedule(settings.train_steps, self.latent_shape)
        texts = PromptTexts(settings, run, policy)
        self.prompt_embeds, self.negative_prompt_embeds = texts.embed(prompts), texts.negative
        policy.release("text_encoder")

    def file(self, cell: NoiseCell, prompt: Prompt) -> Path:
        """Where the measures of a group are or will be."""
        return self.run.path / "cells" / cell.name / f"{prompt.id}.safetensors"

    def measure(self) -> dict[NoiseCell, Measures]:
        """The measures of all cells, the ODE first; groups whose file exists are not sampled again.

        Raises:
            ValueError: if the rewards fail on every ODE sample.
            CorruptFileError: if a file is damaged.
        """
        cells = (ODE, *self.settings.cells)
        files = [self.file(cell, prompt) for cell in cells for prompt in self.prompts]
        measured: dict[NoiseCell, Measures] = {}
        done = sum(file.exists() for file in files)
        with progress("measure rollouts", len(files), done, unit="group") as bar:
            for cell in cells:
                for place, prompt in enumerate(self.prompts):
                    file = self.file(cell, prompt)
                    if not file.exists():
                        save_tensors(file, self.measure_group(cell, place))
                        bar.advance()
                measured[cell] = self.load(cell)
                if cell == ODE:
                    ScoreScale.of(measured[cell], self.weights)  # refuses before the grid, not after it
        return measured

    def measure_group(self, cell: NoiseCell, place: int) -> dict[str, Tensor]:
        """One group: `Measures` without their first dimension."""
        group = self.rollout(cell, place)
        scores = score_group(group, self.lgm, self.rewards, self.settings.rollout_batch)
        measures = {REWARD + name: reward for name, reward in scores.rewards.items()}
        measures["valid"] = scores.valid
        measures |= {LATENT + name: moment for name, moment in latent_moments(group.latents[:]).items()}
        if self.settings.decode:
            frames = self.policy.decode_latents(group.latents[:1]).float().cpu().clamp(0, 1)
            video = self.run.samples / cell.name / f"{self.prompts[place].id}.mp4"
            write_video(video, (frames[0] * 255).round().to(torch.uint8), self.settings.fps)
            measures |= {PIXELS + name: value[0] for name, value in pixel_statistics(frames).items()}
        return measures

    def rollout(self, cell: NoiseCell, place: int) -> RolloutGroup:
        """K trajectories of the prompt at `place`; the noises of a member are the same in every cell."""
        settings, prompt = self.settings, self.prompts[place]
        stream = (settings.seed, "tune-noise", prompt.id)
        return sample_group(
            self.policy,
            self.prompt_embeds[place].to(self.policy.device),
            self.schedule,
            seeds=[derive_seed(*stream, k) for k in range(settings.group_size)],
            latent_shape=self.latent_shape,
            prompt_id=prompt.id,
            transition=cell.transition,
            noise_scale=cell.noise_scale,
            window=(cell.start, cell.length),
            cfg_scale=settings.cfg_scale,
            negative_prompt_embeds=self.negative_prompt_embeds,
            shared_noise_seed=derive_seed(*stream) if settings.shared_noise else None,
            micro_batch=settings.rollout_batch,
            storage_device="cpu",
        )

    def load(self, cell: NoiseCell) -> Measures:
        """The measures of a finished cell."""
        groups = []
        for prompt in self.prompts:
            file = self.file(cell, prompt)
            try:
                groups.append(load_tensors(file))
            except CorruptFileError as error:
                raise CorruptFileError(f"{error}; delete {file} and it is measured again") from error
        return {name: torch.stack([group[name] for group in groups]) for name in groups[0]}


def write_tuning(tuning: NoiseTuning, folder: Path) -> None:
    """tune_noise.png and .csv, then .json, whose presence says that the grid is done."""
    plot_noise(tuning, folder / f"{RESULT}.png")
    write_text(folder / f"{RESULT}.csv", tuning.as_csv())
    write_json(folder / f"{RESULT}.json", tuning.as_dict())
