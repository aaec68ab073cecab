"""What a clip of the procedural world is made of: plain data, sampled by `sampling`, drawn by `rendering`.

The scene frame has +x to the right, +y down and +z away from cameras at azimuth 0, with the floor at y = 0.
Rendered geometry is in the world frame, which is the camera frame of frame 0.
"""

from dataclasses import dataclass
from typing import Literal

Shape = Literal["sphere", "box", "cylinder"]
Pattern = Literal["plain", "striped", "checkered", "cloudy"]
CameraFamily = Literal["dolly", "slide", "orbit", "pan", "crane", "handheld"]
ObjectMotion = Literal["rest", "linear", "circular", "spinning"]
Vector = tuple[float, float, float]

MAX_OBJECTS = 3
PATH_CHANNELS = ("pivot_x", "pivot_y", "pivot_z", "azimuth", "radius", "height", "yaw", "pitch")


@dataclass(frozen=True)
class Texture:
    """A solid texture: the colour is a function of the point x in the surface's own rigid frame.

    With y_k = wave(wave_vectors[k] . x + phases[k]), wave being a sine of period 1 made of parabolas, the
    colours are mixed by clamp(1/2 + weights . (y_0 y_1 y_2, y_0, y_0 + y_1 + y_2), 0, 1): a checker, stripes
    or a cloud.
    """

    pattern: Pattern
    colour: Vector
    second_colour: Vector
    wave_vectors: tuple[Vector, Vector, Vector]
    """Cycles per scene unit."""
    phases: Vector
    weights: Vector


@dataclass(frozen=True)
class WorldObject:
    """A rigid object. Its local y axis is vertical: a cylinder stands."""

    shape: Shape
    half_extents: Vector
    """(r, r, r) of a sphere, half the sides of a box, (r, half the height, r) of a cylinder."""
    position: Vector
    """Of the centre in the scene frame at the start."""
    yaw: float
    texture: Texture
    motion: ObjectMotion = "rest"
    travel: Vector = (0.0, 0.0, 0.0)
    """Displacement over the clip of a linear motion."""
    circle_radius: float = 0.0
    circle_start: float = 0.0
    circle_sweep: float = 0.0
    """Radians over the clip."""
    spin: float = 0.0
    """Radians about the vertical over the clip."""


@dataclass(frozen=True)
class CameraPath:
    """A camera that looks at a pivot from `azimuth`, `radius` and `height` above it, turned by yaw and pitch.

    Every channel of `PATH_CHANNELS` moves from start to end and may swing sinusoidally around that line.
    Shake adds, per frame, a rotation (rad) and a displacement (scene units) in the camera's own frame.
    """

    family: CameraFamily
    fov_degrees: float
    """Horizontal field of view."""
    start: tuple[float, ...]
    end: tuple[float, ...]
    swing: tuple[float, ...]
    swing_cycles: tuple[float, ...]
    swing_phase: tuple[float, ...]
    shake_rotation: float = 0.0
    shake_position: float = 0.0
    shake_seed: int = 0


@dataclass(frozen=True)
class Surroundings:
    """A closed room, or open ground under a sky that is a dome at a finite distance."""

    is_room: bool
    lower: Vector
    """Of a room: least x, y (the ceiling) and z. Its floor is y = 0."""
    upper: Vector
    dome_radius: float
    """Of open ground: the sky is the sphere of this radius around the scene's origin."""
    floor: Texture
    wall: Texture
    """The four walls; of open ground, the sky."""
    ceiling: Texture


@dataclass(frozen=True)
class SceneSpec:
    """One clip of the world: everything that decides its pixels and its geometry."""

    split: str
    index: int
    caption: str
    surroundings: Surroundings
    objects: tuple[WorldObject, ...]
    camera: CameraPath
    light: Vector
    """Unit vector from the scene to the light."""
    ambient: float

    @property
    def is_dynamic(self) -> bool:
        """Whether any object moves."""
        return any(thing.motion != "rest" for thing in self.objects)

    @property
    def is_shaky(self) -> bool:
        """Whether the camera shakes."""
        return self.camera.shake_rotation > 0 or self.camera.shake_position > 0
