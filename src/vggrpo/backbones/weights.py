"""What a weight file of a geometry model holds, without building the model."""

from dataclasses import dataclass
from pathlib import Path

from vggrpo.backbones.checkpoint import KeyMap, KeyReport, read_checkpoint
from vggrpo.backbones.geometry_loading import NETWORKS, identify_network, locate_weights, own_network
from vggrpo.backbones.network_config import NetworkConfig
from vggrpo.config.models import resolve_model


@dataclass(frozen=True)
class WeightReport:
    """A weight file, the network that it is taken for, and what becomes of each of its tensors."""

    path: Path
    network: str
    """"any4d" or "vggt"."""
    keys: KeyReport

    @property
    def fits(self) -> bool:
        """Whether the network loads from this file, with nothing unexplained."""
        return self.keys.fits

    def lines(self) -> list[str]:
        """The report for people."""
        return [f"{self.path}: {self.network}", *(f"  {line}" for line in self.keys.lines())]


def weight_report(name_or_path: str | Path, config: NetworkConfig | None = None) -> WeightReport:
    """Compares the weights of a geometry model, published ones or ours, with what its network needs.

    Args:
        name_or_path: a weight file, a folder that holds one, a repository, or a name ("any4d", "vggt").
        config: the dimensions of a published network; the official ones by default.

    Raises:
        ConfigError: if the name is unknown, or the file holds no network that is known here.
        FileNotFoundError: if there is no such file, or it cannot be fetched.
        CorruptFileError: if the file is damaged.
    """
    source = resolve_model(name_or_path, "geometry")
    path = locate_weights(source)
    tensors = read_checkpoint(path)
    if (own := own_network(source, path.parent)) is not None:
        needed = own.meta_from_pretrained(path.parent).network.state_dict()
        same_names = KeyMap(names={name: name for name in needed}, unused=())
        return WeightReport(path, own.config_type.model_type, same_names.compare(tensors, needed))
    network = identify_network(tensors, path)
    return WeightReport(path, network, NETWORKS[network].compare_checkpoint(tensors, config))
