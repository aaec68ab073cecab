"""A procedural 4D world with exact ground truth and captions."""

from vggrpo.world.captions import MAX_WORDS, SPLITS, VOCABULARY, caption_words, split_of_caption
from vggrpo.world.faults import FAULT_KINDS, Fault, FaultKind
from vggrpo.world.rendering import HEIGHT, KEY_STRIDE, NUM_FRAMES, WIDTH, WorldClips, render_clips
from vggrpo.world.sampling import sample_scene
from vggrpo.world.specs import CameraPath, SceneSpec, Surroundings, Texture, WorldObject
from vggrpo.world.streams import captions, clip_stream

__all__ = [
    "FAULT_KINDS",
    "HEIGHT",
    "KEY_STRIDE",
    "MAX_WORDS",
    "NUM_FRAMES",
    "SPLITS",
    "VOCABULARY",
    "WIDTH",
    "CameraPath",
    "Fault",
    "FaultKind",
    "SceneSpec",
    "Surroundings",
    "Texture",
    "WorldClips",
    "WorldObject",
    "caption_words",
    "captions",
    "clip_stream",
    "render_clips",
    "sample_scene",
    "split_of_caption",
]
