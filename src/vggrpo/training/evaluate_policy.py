"""Evaluates a finished policy, or its base model, as its training does, with either sampler and any number of
steps.
"""

from pathlib import Path

from vggrpo.config import TrainSettings
from vggrpo.evaluation import EvaluationRecords, HeldOutEvaluator, KeyFrameTeacher, SampledBlock, Sampler
from vggrpo.io import progress
from vggrpo.training.align import held_out_settings
from vggrpo.training.models import open_models
from vggrpo.training.rewards import build_rewards
from vggrpo.training.runtime import choose_device, prepare
from vggrpo.training.sources import open_prompts


def evaluate_policy(
    settings: TrainSettings,
    lora: Path | None,
    sampler: Sampler = "ode",
    steps: int | None = None,
    file: Path | None = None,
) -> EvaluationRecords:
    """The held-out records of a policy, on the prompts and from the noises of its run's own evaluations.

    With the ODE and the run's own number of steps they are the run's own records. To compare two policies,
    call it twice with the same settings, sampler and steps.

    Args:
        settings: of the run, for example its `config.yaml`; change `num_evaluation_prompts` and
            `evaluation_noises` there for another number of samples. Nothing is written into its folder.
        lora: the policy's LoRA (`<run>/lora`, `<run>/best`); None evaluates the base model.
        sampler: "ode", or "sde" with the stochastic steps of the training's rollouts.
        steps: denoising steps; `infer_steps` if not given. `settings.train_steps` with "sde" is exactly the
            sampler of the training (of a window that moves, at its first place).
        file: where the records are kept while it runs; a call that was interrupted goes on from there.

    Raises:
        ConfigError: for prompts or models that do not exist or do not fit, or too few steps.
        FileNotFoundError, CorruptFileError: if the LoRA is missing, damaged, or another model's.
        ValueError: if the latent geometry model belongs to another autoencoder.
    """
    prepare(settings)
    device = choose_device(settings.device)
    prompts = open_prompts(
        settings.evaluation_prompts, "validation", settings.num_evaluation_prompts, "--evaluation-prompts"
    )
    sampling = held_out_settings(settings, sampler, steps)
    models = open_models(settings, device)
    policy = models.policy
    embeds = policy.encode_prompts([prompt.text for prompt in prompts])
    negative = policy.encode_prompts([settings.negative_prompt])[0] if settings.cfg_scale != 1.0 else None
    policy.release("text_encoder")
    if lora is not None:
        policy.load_lora(lora)
    evaluator = HeldOutEvaluator(
        policy,
        models.lgm,
        KeyFrameTeacher(models.geometry.to(device), policy.latent_spec),
        build_rewards(settings.rewards),
        prompts,
        sampling,
        embeds,
        negative,
    )
    done = EvaluationRecords.load(file) if file is not None and file.exists() else EvaluationRecords()
    who = "the base model" if lora is None else str(lora)
    description = f"evaluate {who} ({sampler}, {sampling.num_steps} steps)"

    def keep(records: EvaluationRecords, block: SampledBlock) -> None:
        if file is not None:
            records.save(file)

    with progress(description, evaluator.num_samples, len(done), unit="sample") as bar:
        return evaluator.evaluate(
            done,
            keep,
            lambda count, total: bar.advance(max(int(count) - bar.done, 0)),
        )
