"""Whether a latent geometry model may train a policy, by the gate that was measured when it was made."""

import math

from vggrpo.config import ConfigError, TrainSettings
from vggrpo.evaluation import GATE_FILE, Interval, LGMGate, gate_table
from vggrpo.lgm import LatentGeometryModel
from vggrpo.training.lgm_data import weights_fingerprint

WHY = (
    "A policy is pushed to whatever raises its rewards: where they do not rank generated videos as the "
    "uncut geometry model does, it learns to exploit the difference, and the videos get no better."
)


def admit(settings: TrainSettings, lgm: LatentGeometryModel, report: bool = True) -> None:
    """Prints the gate of `lgm`, which was loaded from `lgm_path`, and refuses it below `lgm_floor`.

    Without `report` nothing is printed. A reward of weight 0 is not gated. Floor 0 admits every model, also
    one without a gate.

    Raises:
        ConfigError: if a reward's share of the ceiling on generated clips is below the floor or unknown; if
            the gate is missing, of other weights, or of other options of a reward that counts.
        CorruptFileError: if the gate's file is damaged.
    """
    folder, floor = settings.lgm_path, settings.lgm_floor
    gate = LGMGate.load(folder) if (folder / GATE_FILE).is_file() else None
    doubt = _doubt(gate, lgm, settings)
    if gate is not None and doubt is None:
        if report:
            print(_report(gate, settings), flush=True)
        if failures := _failures(gate, settings):
            raise ConfigError(
                f"the latent geometry model in {folder} is not good enough to train a policy: "
                f"{'; '.join(failures)}. {WHY}\nTrain a better one with `vggrpo train-lgm` (more "
                "generated_clips, more epochs), leave the reward out (reward_weights, 0), or accept this one "
                "with a lower --lgm-floor"
            )
    elif floor > 0:
        raise ConfigError(
            f"{doubt}, so it is unknown how far its rewards can be trusted. {WHY}\nMake the model with "
            "`vggrpo train-lgm`, which measures the gate, or train without one with --lgm-floor 0"
        )
    elif report:
        print(f"{doubt}; lgm_floor is 0, so the policy is trained without a gate", flush=True)


def _doubt(gate: LGMGate | None, lgm: LatentGeometryModel, settings: TrainSettings) -> str | None:
    """Why the gate says nothing about this training; None if it does."""
    folder = settings.lgm_path
    if gate is None:
        return f"the latent geometry model in {folder} has no {GATE_FILE}"
    if gate.weights != weights_fingerprint(lgm):
        return f"{folder / GATE_FILE} was measured on other weights than those in the folder"
    options = settings.rewards.model_dump(mode="json")
    for name in _counted(settings):
        measured, wanted = gate.options.get(name, {}), options[name]
        different = [key for key in {**measured, **wanted} if measured.get(key) != wanted.get(key)]
        if different:
            shown = ", ".join(f"{key}: {measured.get(key)} there, {wanted.get(key)} now" for key in different)
            return f"{folder / GATE_FILE} was measured with other options of the {name} reward ({shown})"
    return None


def _counted(settings: TrainSettings) -> list[str]:
    """The rewards that the policy is trained for."""
    return [name for name, weight in settings.reward_weights.model_dump().items() if weight > 0]


def _passes(share: Interval, floor: float) -> bool:
    """Whether the share itself, not its interval, reaches the floor; an unknown one (NaN) does not."""
    return share.mean >= floor or floor == 0


def _failures(gate: LGMGate, settings: TrainSettings) -> list[str]:
    """Every reward below the floor, with its figures."""
    floor, failures = settings.lgm_floor, []
    for name in _counted(settings):
        agreement = gate.generated.rewards[name]
        share, ceiling = agreement.share, agreement.ceiling.mean
        if _passes(share, floor):
            continue
        if math.isnan(share.mean):
            failures.append(
                f"how much of the ceiling its {name} reward reaches on generated clips is unknown "
                f"({share.count} clips measured, {share.missing} failed, ceiling {ceiling:.2f}), but "
                f"lgm_floor is {floor:g}"
            )
        else:
            failures.append(
                f"its {name} reward reaches {share.mean:.2f} of the ceiling on generated clips (rank "
                f"correlation {agreement.correlation.mean:.2f} of {ceiling:.2f}), below lgm_floor {floor:g}"
            )
    return failures


def _report(gate: LGMGate, settings: TrainSettings) -> str:
    """The gate's table with a verdict on every reward."""
    counted, floor = _counted(settings), settings.lgm_floor
    verdicts = {}
    for name, agreement in gate.generated.rewards.items():
        passed = "passed" if _passes(agreement.share, floor) else "too low"
        verdicts[name] = "not used" if name not in counted else "not gated" if floor == 0 else passed
    frames, height, width = gate.clip
    return (
        f"gate of the latent geometry model in {settings.lgm_path} (clips of {gate.base_model}, {frames} "
        f"frames of {height}x{width}, teacher {gate.geometry_model}), floor {floor:g}\n"
        f"{gate_table(gate, verdicts)}"
    )
