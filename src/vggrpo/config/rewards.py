"""Options of the two geometry rewards, whose meaning stands with them in `vggrpo.rewards`."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from vggrpo.config.base import Settings


class RewardWeights(Settings):
    """Weights of the rewards' z-scores in the advantage; 0 leaves a reward out."""

    camera_motion: NonNegativeFloat = 0.5
    reprojection: NonNegativeFloat = 0.5


class CameraMotionOptions(Settings):
    """Smoothness of the camera path."""

    order: Literal["acceleration", "jerk"] = Field(
        "acceleration", description="difference of the velocities that is compared with the speed"
    )
    translation_floor: PositiveFloat = Field(
        0.01, description="noise floor of translations, as a share of the scene's median depth"
    )
    rotation_floor: PositiveFloat = Field(0.02, description="noise floor of rotations, in radians")


class ReprojectionOptions(Settings):
    """Agreement of the depth maps with the static points of all views; defaults are the paper's reading."""

    relative: bool = Field(False, description="divide the error by the scene's median depth")
    exclude_own: bool = Field(False, description="leave a view's own points out of its rendering")
    min_overlap: float = Field(
        0.0, ge=0, lt=1, description="least share of a view's pixels that must receive a point"
    )
    compare: Literal["pixel", "subpixel"] = Field(
        "pixel", description="compare depths at the pixel centre or at the projected point"
    )
    occlusion_tolerance: PositiveFloat | None = Field(
        None, description="share of the depth at which the error of a point behind the surface saturates"
    )
    edge_tolerance: PositiveFloat | None = Field(
        0.1, description="spread of depths around a subpixel comparison above which they hold an edge"
    )
    confidence_quantile: float = Field(
        0.0, ge=0, lt=1, description="share of the least confident points to leave out"
    )
    worst_k: PositiveInt = Field(3, description="views of largest error whose mean is the sample's error")
    dynamic_filter: bool = Field(True, description="leave out what moves, by the scene flow")
    flow_threshold: PositiveFloat = Field(
        0.1, description="displacement that counts as moving: scene units, or median depths if relative"
    )


class RewardSettings(Settings):
    """Options of both rewards."""

    camera_motion: CameraMotionOptions = CameraMotionOptions()
    reprojection: ReprojectionOptions = ReprojectionOptions()
