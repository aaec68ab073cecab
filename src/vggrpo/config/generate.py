"""Settings of `vggrpo generate`."""

from itertools import pairwise
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from vggrpo.config.base import EfficiencySettings, Settings
from vggrpo.config.lgm_path import LGMPath
from vggrpo.config.rewards import RewardSettings

NAMED_CAMERA_PATHS = ("orbit", "dolly", "truck", "pan")
CAMERA_PATH_FILES = (".json", ".safetensors")


class SteeringWeights(Settings):
    """Weights of the rewards that guidance climbs and best-of-N ranks by; 0 leaves a reward out."""

    camera_motion: NonNegativeFloat = 0.5
    reprojection: NonNegativeFloat = 0.5
    camera_trajectory: NonNegativeFloat = Field(1.0, description="counts where a camera_path is given")


class RewardGuidanceSettings(Settings):
    """Turns the velocity towards a higher reward at some of the steps."""

    scale: NonNegativeFloat = Field(0.0, description="factor of the reward's gradient; 0 is no guidance")
    interval: PositiveInt = Field(
        20, description="guide steps interval, 2 * interval, ..., counted from 0: 20 and 40 of 50"
    )
    start_sigma: float = Field(1.0, ge=0, le=1, description="guide no step at a higher noise level")
    stop_sigma: float = Field(0.0, ge=0, le=1, description="guide no step at a lower noise level")
    through: Literal["x0_pred", "denoiser"] = Field(
        "x0_pred",
        description="hold the velocity constant in the gradient, or take it through the denoiser too",
    )
    norm_cap: PositiveFloat | None = Field(
        1.0, description="longest correction, as a share of the velocity's length; no limit if unset"
    )

    @model_validator(mode="after")
    def _levels_fall(self) -> Self:
        if self.stop_sigma > self.start_sigma:
            raise ValueError(
                f"stop_sigma is {self.stop_sigma:g}, above start_sigma {self.start_sigma:g}; noise levels "
                "fall from start to stop"
            )
        return self


class GenerateSettings(Settings):
    """Makes videos from prompts."""

    base_model: str = Field(
        description="video model: a name, a Wan or LTX pipeline folder of diffusers, or a repository"
    )
    prompts: tuple[str, ...] = Field(
        min_length=1, description="prompts, or one file or set of them (static-test), or - for standard input"
    )
    output: Path = Field(description="folder of the videos and their JSON sidecars")
    seeds: tuple[NonNegativeInt, ...] = Field((0,), min_length=1, description="one video per prompt and seed")
    lora: tuple[Path, ...] = Field(
        (), description="folders of LoRA weights (`lora` in a run, or from diffusers); their effects add up"
    )
    lora_scale: tuple[float, ...] = Field(
        (), description="factor on the effect of each LoRA, in their order; 1 if not given"
    )
    negative_prompt: str = ""
    num_frames: PositiveInt = Field(description="frames of a video, a multiple of the temporal stride plus 1")
    height: PositiveInt = Field(description="pixels")
    width: PositiveInt = Field(description="pixels")
    fps: PositiveFloat = Field(description="frames per second of the files")
    infer_steps: PositiveInt = Field(50, description="denoising steps")
    cfg_scale: float = Field(ge=1, description="classifier-free guidance; 1 is none")
    flow_shift: PositiveFloat | None = Field(
        None, description="shift of the sigma grid towards noise; the video model's own if unset"
    )
    solver: Literal["euler", "heun", "unipc", "sde"] = Field(
        "euler",
        description="euler, heun (two evaluations a step) or unipc (diffusers' for Wan) of the ODE; or sde",
    )
    transition: Literal["flow_sde", "dance_sde", "cps"] = Field(
        "flow_sde", description="kind of stochastic step of the SDE"
    )
    noise_scale: PositiveFloat = Field(0.7, description="amount of noise of the SDE")

    lgm_path: LGMPath | None = Field(
        None,
        description="latent geometry model, a folder or a name: for guidance, best-of-N and scenes; the "
        "rewards of each video are written into its sidecar",
    )
    reward_guidance: RewardGuidanceSettings = RewardGuidanceSettings()
    best_of: PositiveInt = Field(
        1, description="candidates of each video, of which the one of highest reward is decoded"
    )
    prune_sigmas: tuple[float, ...] = Field(
        (), description="falling noise levels at which the worse half of the candidates is dropped"
    )
    reward_weights: SteeringWeights = SteeringWeights()
    rewards: RewardSettings = RewardSettings()
    camera_path: str | None = Field(
        None,
        description="what the camera is to follow: orbit, dolly, truck, pan, or a .json or .safetensors file",
    )
    camera_amount: float | None = Field(
        None, description="how far along a named path: degrees (orbit, pan) or median depths (dolly, truck)"
    )
    camera_path_unit: Literal["depths", "scene"] = Field(
        "depths", description="unit of lengths in a path's file: median depths of the scene, or scene units"
    )

    gradient_checkpointing: bool = Field(
        False,
        description="compute the layers of the LGM, and of the denoiser where the gradient goes through it, "
        "anew in the backward pass of reward guidance to save memory",
    )
    batch_size: PositiveInt = Field(
        1, description="videos, or candidates, denoised at once; changes results by rounding only"
    )
    overwrite: bool = Field(False, description="make videos again whose files exist")
    save_latents: bool = Field(False, description="also write each video's latents (.safetensors)")
    save_scene: bool = Field(
        False, description="also write each video's 4D scene by the LGM (.scene.safetensors)"
    )
    threads: NonNegativeInt = Field(0, description="CPU threads; 0 leaves PyTorch's choice")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="autocast type of the denoiser")
    efficiency: EfficiencySettings = EfficiencySettings()

    @property
    def lora_scales(self) -> tuple[float, ...]:
        """One for each LoRA."""
        return self.lora_scale or (1.0,) * len(self.lora)

    @property
    def steers(self) -> bool:
        """Whether rewards have a say in what is sampled."""
        return self.reward_guidance.scale > 0 or self.best_of > 1

    @model_validator(mode="after")
    def _loras_have_scales(self) -> Self:
        if self.lora_scale and not self.lora:
            scales = ", ".join(f"{scale:g}" for scale in self.lora_scale)
            raise ValueError(f"lora_scale is {scales}, but there is no lora to scale")
        if self.lora_scale and len(self.lora_scale) != len(self.lora):
            raise ValueError(
                f"lora_scale has {len(self.lora_scale)} values for {len(self.lora)} LoRAs; give one for each"
            )
        return self

    @model_validator(mode="after")
    def _only_the_sde_has_noise(self) -> Self:
        fields = type(self).model_fields
        for name in ("transition", "noise_scale"):
            if self.solver != "sde" and getattr(self, name) != fields[name].default:
                raise ValueError(f"{name} is {getattr(self, name)}, but only the solver sde has noise")
        return self

    @model_validator(mode="after")
    def _steering_is_complete(self) -> Self:
        needs = {
            "reward_guidance.scale": self.reward_guidance.scale > 0,
            "best_of": self.best_of > 1,
            "save_scene": self.save_scene,
            "camera_path": self.camera_path is not None,
        }
        wanting = [name for name, used in needs.items() if used]
        if self.lgm_path is None and wanting:
            raise ValueError(f"{wanting[0]} needs a latent geometry model; name its folder with lgm_path")
        if self.lgm_path is None and self.reward_weights != SteeringWeights():
            raise ValueError("reward_weights need a latent geometry model; name its folder with lgm_path")
        weights = self.reward_weights.model_dump()
        if self.camera_path is None:
            del weights["camera_trajectory"]
        elif weights["camera_trajectory"] == 0:
            raise ValueError(
                "reward_weights.camera_trajectory is 0, so the camera_path would count for nothing; leave "
                "one of them out"
            )
        if self.steers and not any(weights.values()):
            raise ValueError("reward_weights are all 0, so there is nothing to guide by")
        return self

    @model_validator(mode="after")
    def _candidates_can_be_halved(self) -> Self:
        levels, halvings = self.prune_sigmas, (self.best_of - 1).bit_length()
        if any(not 0 < level < 1 for level in levels) or any(b >= a for a, b in pairwise(levels)):
            raise ValueError(f"prune_sigmas are {list(levels)}, expected falling levels between 1 and 0")
        if len(levels) > halvings:
            raise ValueError(
                f"prune_sigmas has {len(levels)} levels, but best_of {self.best_of} can be halved {halvings} "
                "times; give fewer levels or more candidates"
            )
        return self

    @model_validator(mode="after")
    def _camera_path_is_complete(self) -> Self:
        path, amount = self.camera_path, self.camera_amount
        if self.camera_path_unit != "depths" and not (path or "").endswith(CAMERA_PATH_FILES):
            raise ValueError(
                f"camera_path_unit is {self.camera_path_unit}, but only the path of a file has lengths in it"
            )
        if path is None:
            if amount is not None:
                raise ValueError(f"camera_amount is {amount:g}, but there is no camera_path")
            return self
        if path in NAMED_CAMERA_PATHS:
            if amount is None:
                unit = "degrees" if path in ("orbit", "pan") else "median depths"
                raise ValueError(f"the camera path {path} needs camera_amount, in {unit}")
            return self
        if not path.endswith(CAMERA_PATH_FILES):
            raise ValueError(
                f"camera_path is {path}, expected {', '.join(NAMED_CAMERA_PATHS)}, or a file that ends in "
                + " or ".join(CAMERA_PATH_FILES)
            )
        if amount is not None:
            raise ValueError(f"camera_amount is {amount:g}, but the path of a file has its own length")
        return self
