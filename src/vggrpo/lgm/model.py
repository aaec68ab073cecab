"""The latent geometry model: video latents in, 4D scene out, without ever decoding a video."""

import copy
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vggrpo.backbones import GeometryBackbone, LatentSpec, load_geometry_backbone
from vggrpo.config.errors import CorruptFileError
from vggrpo.config.lgm_path import lgm_folder
from vggrpo.config.models import model_names
from vggrpo.geometry import SceneGeometry
from vggrpo.io import atomic_folder, load_tensors, save_tensors, verify_manifest, write_json, write_manifest
from vggrpo.lgm.connector import Connector
from vggrpo.lgm.lora import inject_lora, merge_lora

FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
CONNECTOR_FILE = "connector.safetensors"
GEOMETRY_FOLDER = "geometry"


class LatentGeometryModel(nn.Module):
    """A geometry model whose layers before a stitch point are replaced by a connector from video latents.

    Frozen and in evaluation mode until `add_lora` or `train_all` is called. Gradients flow to the latents
    either way.

    Args:
        backbone: an uncut geometry model, which this model takes over: its layers before `stitch_point` are
            deleted.
        connector: latents to tokens at the stitch point (`LayerSearch.connector` fits it).
        stitch_point: name of the place at which the backbone is entered.
        latent_spec: the autoencoder whose latents the connector reads.
        video_model: name or folder of the video model with that autoencoder, for messages.
        geometry_model: name or folder that the backbone came from, for messages.

    Raises:
        ValueError: if the connector does not fit the stitch point or the latents.
    """

    def __init__(
        self,
        backbone: GeometryBackbone,
        connector: Connector,
        stitch_point: str,
        latent_spec: LatentSpec,
        video_model: str,
        geometry_model: str,
    ) -> None:
        super().__init__()
        point = backbone.stitch_point(stitch_point)
        shape = (connector.conv.out_channels, connector.num_special_tokens)
        if shape != (point.width, point.num_special_tokens):
            raise ValueError(
                f"the connector makes tokens of width {shape[0]} with {shape[1]} special ones, but "
                f"{stitch_point} needs width {point.width} with {point.num_special_tokens}; fit it at that "
                "stitch point"
            )
        if connector.reference_specials != point.reference_specials:
            needs = "of its own" if point.reference_specials else "like those of the other views"
            raise ValueError(
                f"{stitch_point} needs special tokens for view 0 that are {needs}, but the connector's are "
                "not; fit it at that stitch point"
            )
        if connector.reference_patches != point.reference_patches:
            needs = "of its own" if point.reference_patches else "like that of the other views"
            raise ValueError(
                f"{stitch_point} needs a positional part for view 0 that is {needs}, but the connector's is "
                "not; fit it at that stitch point"
            )
        lost = {head_input.name: head_input.width for head_input in point.lost}
        if connector.auxiliary_widths != lost:
            raise ValueError(
                f"the heads lose {lost or 'nothing'} (name: width) at {stitch_point}, but the connector's "
                f"auxiliary ones make {connector.auxiliary_widths or 'nothing'}; fit it at that stitch point"
            )
        if connector.conv.in_channels != latent_spec.channels:
            raise ValueError(
                f"the connector reads {connector.conv.in_channels} channels, but the latents of "
                f"{video_model} have {latent_spec.channels}; fit it on latents of that model"
            )
        backbone.drop_before(stitch_point)
        self.backbone = backbone
        self.connector = connector
        self.stitch_point = stitch_point
        self.latent_spec = latent_spec
        self.video_model = video_model
        self.geometry_model = geometry_model
        self.adaptation: dict[str, Any] = {"trainable": "none"}
        """How the backbone was trained: "none", "lora" with rank and alpha, or "full"; for the record."""
        self.requires_grad_(False).eval()

    def forward(self, latents: Tensor) -> SceneGeometry:
        """Normalised latents [B, C, T, H, W] to a scene of T views, on a raster of patch_size * (h, w).

        View i is latent frame i, that is video frame i * `view_stride`; (h, w) is (ceil(H / 2), ceil(W /
        2)) at the connector's default stride. Differentiable.

        Raises:
            ValueError: if `latents` is not of that shape.
        """
        return self.connector.finish(self.backbone, self.stitch_point, latents)

    @property
    def view_stride(self) -> int:
        """Video frames from one view to the next."""
        return self.latent_spec.temporal_stride

    def check_latents(self, latent_spec: LatentSpec, video_model: str = "the video model") -> None:
        """Makes sure that latents come from the autoencoder that this model was made for.

        Raises:
            ValueError: if they do not, naming both autoencoders and the remedy.
        """
        _check_spec(self.latent_spec, self.video_model, latent_spec, video_model)

    @classmethod
    def check_saved(cls, folder: Path | str, latent_spec: LatentSpec, video_model: str) -> None:
        """The check of `check_latents` on a folder by `save_pretrained`; loads no weights.

        Raises:
            FileNotFoundError, CorruptFileError: if the folder holds no such model, or is damaged.
            ValueError: as `check_latents`.
        """
        _check_spec(*read_latent_spec(folder), latent_spec, video_model)

    def add_lora(self, rank: int, alpha: float, seed: int = 0) -> None:
        """Makes the connector trainable, and LoRA factors on all Linear and Conv2d layers of the rest.

        Raises:
            ValueError: if rank or alpha is not above 0, or the model has LoRA already.
        """
        targets = self.backbone.lora_target_modules(self.stitch_point)
        inject_lora(self.backbone, targets, rank, alpha, seed)
        self.connector.requires_grad_(True)
        self.adaptation = {"trainable": "lora", "rank": rank, "alpha": alpha}

    def train_all(self) -> None:
        """Makes every weight trainable."""
        self.requires_grad_(True)
        self.adaptation = {"trainable": "full"}

    def enable_gradient_checkpointing(self) -> None:
        """From now on backward passes compute the backbone's blocks and dense heads anew: a third more
        operations for a small part of the memory."""
        self.backbone.enable_gradient_checkpointing()

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """What is trained, by name; connector and special tokens start with "connector."."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def parameter_groups(self, lr: float, connector_lr: float) -> list[dict[str, Any]]:
        """Groups for an optimizer: "connector" (with the special tokens) and "backbone", each with its
        learning rate.

        The connector starts from a regression, which an ordinary learning rate would destroy at once.

        Raises:
            ValueError: if nothing is trainable yet.
        """
        groups: dict[str, list[nn.Parameter]] = {"connector": [], "backbone": []}
        for name, parameter in self.trainable_parameters().items():
            groups[name.partition(".")[0]].append(parameter)
        if not groups["connector"]:
            raise ValueError("nothing is trainable; call add_lora or train_all first")
        rates = {"connector": connector_lr, "backbone": lr}
        return [
            {"name": name, "params": params, "lr": rates[name]} for name, params in groups.items() if params
        ]

    def save_pretrained(self, folder: Path | str, replace: bool = False) -> None:
        """Writes a self-contained folder, completely or not at all: LoRA is merged into the weights.

        config.json, connector.safetensors, geometry/ (the remaining layers, as the geometry model saves
        itself) and manifest.json with the hashes of all.

        Raises:
            FileExistsError: if the folder exists and `replace` is false.
            DiskFullError: if the space runs out.
        """
        merged = copy.deepcopy(self.backbone)
        merge_lora(merged)
        with atomic_folder(folder, replace=replace) as temporary:
            write_json(temporary / CONFIG_FILE, self._config())
            save_tensors(temporary / CONNECTOR_FILE, self.connector.state_dict())
            (temporary / GEOMETRY_FOLDER).mkdir()
            merged.save_pretrained(temporary / GEOMETRY_FOLDER)
            write_manifest(temporary)

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "LatentGeometryModel":
        """A model written by `save_pretrained`: frozen, in evaluation mode, on the CPU.

        Args:
            folder: where it is, or the name of one that ships with the package ("micro").

        Raises:
            FileNotFoundError: if the folder holds no such model.
            CorruptFileError: if a file is missing or damaged.
            ValueError: if it was written by a newer version.
        """
        folder = lgm_folder(Path(folder))
        config = read_lgm_config(folder)
        verify_manifest(folder)
        connector = Connector.from_config(config["connector"])
        connector.load_state_dict(load_tensors(folder / CONNECTOR_FILE))
        model = cls(
            load_geometry_backbone(folder / GEOMETRY_FOLDER),
            connector,
            config["stitch_point"],
            LatentSpec(**config["latent_spec"]),
            config["video_model"],
            config["geometry_model"],
        )
        model.adaptation = config["adaptation"]
        # Tensors read from a file start at any address, and kernels round differently on unaligned memory.
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()
        return model

    def _config(self) -> dict[str, Any]:
        return {
            "model_type": "latent_geometry_model",
            "format_version": FORMAT_VERSION,
            "stitch_point": self.stitch_point,
            "video_model": self.video_model,
            "geometry_model": self.geometry_model,
            "latent_spec": asdict(self.latent_spec),
            "view_stride": self.view_stride,
            "connector": self.connector.config,
            "adaptation": self.adaptation,
        }


def read_latent_spec(folder: Path | str) -> tuple[LatentSpec, str]:
    """What latents a saved model reads, and the name of the video model whose they are; loads no weights.

    Raises:
        FileNotFoundError, CorruptFileError: if the folder holds no such model, or is damaged.
        ValueError: if it was written by a newer version.
    """
    config = read_lgm_config(Path(folder))
    return LatentSpec(**config["latent_spec"]), config["video_model"]


def read_lgm_config(folder: Path) -> dict[str, Any]:
    """What `save_pretrained` wrote into config.json.

    Raises:
        FileNotFoundError, CorruptFileError: if the folder holds no such model, or is damaged.
        ValueError: if it was written by a newer version.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} holds no latent geometry model: it has no {CONFIG_FILE}; `vggrpo train-lgm` writes "
            f"one, the package has {', '.join(model_names('lgm'))}"
        )
    try:
        config = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise CorruptFileError(
            f"{path} is not valid JSON ({error}); train the model again or get a fresh copy"
        ) from error
    if not isinstance(config, dict) or config.get("model_type") != "latent_geometry_model":
        raise CorruptFileError(f"{path} does not describe a latent geometry model")
    if config["format_version"] != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {config['format_version']}, but this version of vggrpo reads "
            f"{FORMAT_VERSION}; install the version that wrote it, or train the model again"
        )
    return config


def _check_spec(own: LatentSpec, own_video_model: str, latent_spec: LatentSpec, video_model: str) -> None:
    if latent_spec == own:
        return
    raise ValueError(
        f"this latent geometry model reads latents of {own_video_model} "
        f"({_describe(own)}), but {video_model} has another autoencoder "
        f"({_describe(latent_spec)}); train a latent geometry model for it with `vggrpo train-lgm`, or "
        "use the video model that this one was made for"
    )


def _describe(spec: LatentSpec) -> str:
    return (
        f"autoencoder {spec.fingerprint[:12]}, {spec.channels} channels, strides "
        f"{spec.temporal_stride}x{spec.spatial_stride}x{spec.spatial_stride}"
    )
