"""A 4D scene from video latents, without decoding them.

vggrpo generate --prompts "a red box in a blue room" --output videos --save-latents
python examples/latent_geometry.py runs/lgm/model videos/a-red-box-in-a-blue-room-*_seed0.safetensors
"""

import sys

from vggrpo.io import load_tensors
from vggrpo.lgm import LatentGeometryModel

lgm = LatentGeometryModel.from_pretrained(sys.argv[1])
latents = load_tensors(sys.argv[2])["latents"]  # [C, T, H, W], normalised
scene = lgm(latents[None])

print("camera centres", scene.camera_to_world[0, :, :3, 3])  # [T, 3]
print("depth", scene.depth_z.shape, "points", scene.world_points.shape)
