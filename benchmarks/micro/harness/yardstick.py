"""How all policies of the benchmarks are measured: one set of prompts, noises, models and reward options.

Prompts are captions of the world's split "test": no model has seen one, and nothing of a training is chosen
by them. A setting of guidance is (`steered.CHOICE` holds the same captions), and is judged by others.
A policy that was trained with other options of the rewards is still measured with the recipe's.
"""

import json
from pathlib import Path
from typing import Any

import torch

from harness.workspace import Workspace
from vggrpo.backbones.pipelines import lora_file
from vggrpo.config import TrainSettings
from vggrpo.evaluation import EvaluationRecords, Sampler, bootstrap_mean, flow_jerk
from vggrpo.io import file_sha256, progress, read_json, write_json, write_text
from vggrpo.io.manifest import MANIFEST_NAME
from vggrpo.training.evaluate_policy import evaluate_policy
from vggrpo.training.runtime import choose_device, open_video_model
from vggrpo.training.sources import prompts_hash, world_prompts
from vggrpo.training.tune_noise import check_inputs
from vggrpo.world import render_clips, sample_scene

SPLIT = "test"
NUM_PROMPTS, NUM_NOISES, STEPS = 64, 2, 50
STEADY_CLIPS = 64
BASE = "base"
SEED = 0
"""Of the noises: the same for policies of all seeds, so that the base model is measured once."""


class Yardstick:
    """Measures policies; what is measured already is read from its file.

    Args:
        workspace: whose folder keeps the records.
        lgm: folder of the latent geometry model.
    """

    def __init__(self, workspace: Workspace, lgm: Path) -> None:
        self.folder = workspace.root / "evaluations"
        quick = workspace.options.quick
        self.num_prompts, self.steps = (4, 3) if quick else (NUM_PROMPTS, STEPS)
        self.steady_clips = 3 if quick else STEADY_CLIPS
        prompts = self.folder / "prompts.jsonl"
        self.prompts = world_prompts(SPLIT, self.num_prompts)
        lines = [json.dumps({"id": p.id, "prompt": p.text, "kind": p.kind}) for p in self.prompts]
        write_text(prompts, "".join(f"{line}\n" for line in lines))
        changes = {
            "evaluation_prompts": str(prompts),
            "num_evaluation_prompts": self.num_prompts,
            "evaluation_noises": NUM_NOISES,
        }
        self.settings: TrainSettings = workspace.policy_settings(lgm, seed=SEED, changes=changes)

    @property
    def train_steps(self) -> int:
        """Denoising steps of the training's own sampler."""
        return self.settings.train_steps

    def measure(
        self, name: str, lora: Path | None, sampler: Sampler = "ode", steps: int | None = None
    ) -> EvaluationRecords:
        """The records of a policy, `lora`, or of the base model, None.

        Args:
            name: of their folder.
            lora: folder of LoRA weights.
            sampler: "ode", or "sde", the training's.
            steps: denoising steps; those of the benchmarks if not given.

        Raises:
            RunError: if the folder holds records of another policy, or measured otherwise.
        """
        steps = steps or self.steps
        folder = self.folder / name / f"{sampler}-{steps}"
        check_inputs(folder, self._inputs(lora))
        return evaluate_policy(self.settings, lora, sampler, steps, folder / "records.json")

    def steady_flow_jerk(self) -> dict[str, Any]:
        """Mean flow jerk of steady real clips of the split after the autoencoder, with its interval.

        A policy's videos come out of the same decoder: steadier than this they cannot be asked to be.
        """
        file = self.folder / "steady_real_clips.json"
        if not file.exists():
            write_json(file, self._measure_steady_clips())
        return read_json(file)

    @torch.no_grad()
    def _measure_steady_clips(self) -> dict[str, Any]:
        s = self.settings
        video = open_video_model(s.base_model, s, choose_device(s.device))
        jerks: list[float] = []
        index = 0
        with progress("measure steady real clips", total=self.steady_clips, unit="clip") as bar:
            while len(jerks) < self.steady_clips:
                scene = sample_scene(SPLIT, index)
                index += 1
                if scene.is_shaky:
                    continue
                clip = render_clips([scene], height=s.height, width=s.width, num_frames=s.num_frames)
                decoded = video.decode_latents(video.encode_video(clip.frames.to(video.device)))
                jerks.append(float(flow_jerk(decoded.float().cpu())))
                bar.advance()
        interval = bootstrap_mean(jerks)
        return {"mean": interval.mean, "low": interval.low, "high": interval.high, "clips": len(jerks)}

    def _inputs(self, lora: Path | None) -> dict[str, Any]:
        """What records depend on beside sampler and steps."""
        settings = self.settings.model_dump(mode="json", exclude={"output", "resume", "threads"})
        return {
            "lora": None if lora is None else file_sha256(lora_file(lora)),
            "lgm": file_sha256(self.settings.lgm_path / MANIFEST_NAME),
            "prompts": prompts_hash(self.prompts),
            "settings": settings,
        }
