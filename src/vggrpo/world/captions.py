"""The grammar of captions, its vocabulary, and the split that a caption belongs to.

A caption names objects, surroundings, object motion and camera move:
"a red sphere and a striped blue box in a green room, the red sphere moves left, the camera orbits right".
Whether the camera shakes is never said, so that a model of captioned clips draws steady and shaky ones alike.
"""

import hashlib
import random
from dataclasses import dataclass

from vggrpo.world.draws import pick
from vggrpo.world.specs import CameraFamily, ObjectMotion, Pattern, Shape

SPLITS = ("train", "validation", "test")
SPLIT_SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}
MAX_WORDS = 30
"""Of a caption, commas counted as words."""

SHAPES: tuple[Shape, ...] = ("sphere", "box", "cylinder")
OBJECT_COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "white")
ROOM_COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "white", "gray")
FIELD_COLOURS = ("green", "yellow", "brown", "gray", "white", "orange")
SKY_COLOURS = ("blue", "pink", "orange", "gray", "purple")
OBJECT_PATTERNS: tuple[Pattern, ...] = ("plain", "striped", "checkered")
FLOOR_PATTERNS: tuple[Pattern, ...] = ("striped", "checkered", "cloudy")

OBJECT_MOVES: dict[str, ObjectMotion] = {
    "moves left": "linear",
    "moves right": "linear",
    "moves closer": "linear",
    "moves away": "linear",
    "circles": "circular",
    "spins": "spinning",
}
CAMERA_MOVES: dict[str, CameraFamily] = {
    "moves forward": "dolly",
    "moves backward": "dolly",
    "slides left": "slide",
    "slides right": "slide",
    "orbits left": "orbit",
    "orbits right": "orbit",
    "pans left": "pan",
    "pans right": "pan",
    "rises": "crane",
    "sinks": "crane",
    "drifts": "handheld",
}
FAMILIES: tuple[CameraFamily, ...] = ("dolly", "slide", "orbit", "pan", "crane", "handheld")


def _vocabulary() -> list[str]:
    words = {
        "a",
        "an",
        "and",
        "in",
        "on",
        "the",
        "with",
        "under",
        "camera",
        "room",
        "field",
        "floor",
        "sky",
        ",",
    }
    words.update(SHAPES, OBJECT_PATTERNS, FLOOR_PATTERNS)
    words.update(OBJECT_COLOURS, ROOM_COLOURS, FIELD_COLOURS, SKY_COLOURS)
    for phrase in (*OBJECT_MOVES, *CAMERA_MOVES):
        words.update(phrase.split())
    words.discard("plain")
    return sorted(words)


VOCABULARY: list[str] = _vocabulary()
"""Every word a caption may contain, and the comma."""


def _with_article(words: str) -> str:
    return f"an {words}" if words.startswith("o") else f"a {words}"


@dataclass(frozen=True)
class ObjectPlan:
    """What a caption says about one object; `move` is "" where it rests."""

    shape: Shape
    colour: str
    pattern: Pattern
    move: str = ""

    @property
    def name(self) -> str:
        """Colour and shape, unique in a plan."""
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class ScenePlan:
    """Everything that a caption says: the discrete part of a scene."""

    objects: tuple[ObjectPlan, ...]
    is_room: bool
    colour: str
    """Of the walls, or of the open ground."""
    floor_pattern: Pattern
    sky_colour: str
    """Only of open ground."""
    camera_move: str

    @property
    def caption(self) -> str:
        """The plan in words."""
        names = []
        for thing in self.objects:
            names.append(
                _with_article(thing.name if thing.pattern == "plain" else f"{thing.pattern} {thing.name}")
            )
        things = names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
        if self.is_room:
            place = f"in {_with_article(self.colour)} room with a {self.floor_pattern} floor"
        else:
            place = (
                f"on a {self.floor_pattern} {self.colour} field under {_with_article(self.sky_colour)} sky"
            )
        moves = " and ".join(f"the {thing.name} {thing.move}" for thing in self.objects if thing.move)
        parts = [f"{things} {place}", *([moves] if moves else []), f"the camera {self.camera_move}"]
        return ", ".join(parts)


def caption_words(caption: str) -> list[str]:
    """The words of a caption, commas being words."""
    return caption.replace(",", " ,").split()


def split_of_caption(caption: str) -> str:
    """The one split that may contain this caption string: a hash of the string decides."""
    digest = hashlib.sha256(b"caption split:" + caption.encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    for split in SPLITS:
        position -= SPLIT_SHARES[split]
        if position < 0:
            return split
    return SPLITS[-1]


def sample_plan(rng: random.Random) -> ScenePlan:
    """One random plan, of any split, whose caption has at most `MAX_WORDS` words."""
    while True:
        plan = _draw_plan(rng)
        if len(caption_words(plan.caption)) <= MAX_WORDS:
            return plan


def _draw_plan(rng: random.Random) -> ScenePlan:
    is_room = rng.random() < 0.6
    colour = pick(rng, ROOM_COLOURS if is_room else FIELD_COLOURS)
    colours = [name for name in OBJECT_COLOURS if name != colour]
    num_objects = pick(rng, (1, 1, 2, 2, 2, 3))
    num_movers = 0 if rng.random() < 0.38 else (2 if num_objects > 1 and rng.random() < 0.25 else 1)
    first_mover = int(rng.random() * num_objects)
    movers = {(first_mover + k) % num_objects for k in range(num_movers)}
    objects = []
    for k in range(num_objects):
        own_colour = colours.pop(int(rng.random() * len(colours)))
        shape = pick(rng, SHAPES)
        pattern = pick(rng, OBJECT_PATTERNS)
        motion = pick(rng, ("linear", "linear", "circular", "spinning"))
        move = (
            pick(rng, [phrase for phrase, kind in OBJECT_MOVES.items() if kind == motion])
            if k in movers
            else ""
        )
        if move == "spins" and pattern == "plain" and shape != "box":
            pattern = pick(rng, ("striped", "checkered"))
        objects.append(ObjectPlan(shape, own_colour, pattern, move))
    family = pick(rng, FAMILIES)
    camera_move = pick(rng, [move for move, moved in CAMERA_MOVES.items() if moved == family])
    return ScenePlan(
        objects=tuple(objects),
        is_room=is_room,
        colour=colour,
        floor_pattern=pick(rng, FLOOR_PATTERNS),
        sky_colour="" if is_room else pick(rng, [name for name in SKY_COLOURS if name != colour]),
        camera_move=camera_move,
    )
