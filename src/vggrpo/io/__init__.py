"""Video files, tensor files, run folders, atomic writes, manifests, progress and named random streams."""

from vggrpo.io.atomic import atomic_file, atomic_folder, read_json, write_bytes, write_json, write_text
from vggrpo.io.histograms import Histogram
from vggrpo.io.manifest import file_sha256, verify_manifest, write_manifest
from vggrpo.io.metrics import read_records
from vggrpo.io.progress import ProgressBar, format_duration, progress
from vggrpo.io.runs import Checkpoint, RunFolder, settings_to_yaml
from vggrpo.io.seeding import derive_seed, make_generator
from vggrpo.io.tensors import load_metadata, load_tensors, save_tensors, tensor_names, tensors_sha256
from vggrpo.io.video import check_video_writing, read_video, write_video

__all__ = [
    "Checkpoint",
    "Histogram",
    "ProgressBar",
    "RunFolder",
    "atomic_file",
    "atomic_folder",
    "check_video_writing",
    "derive_seed",
    "file_sha256",
    "format_duration",
    "load_metadata",
    "load_tensors",
    "make_generator",
    "progress",
    "read_json",
    "read_records",
    "read_video",
    "save_tensors",
    "settings_to_yaml",
    "tensor_names",
    "tensors_sha256",
    "verify_manifest",
    "write_bytes",
    "write_json",
    "write_manifest",
    "write_text",
    "write_video",
]
