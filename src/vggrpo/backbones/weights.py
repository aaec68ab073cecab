"""What a published weight file of a geometry model holds, without building the model."""

from dataclasses import dataclass
from pathlib import Path

from vggrpo.backbones.checkpoint import KeyReport, read_checkpoint
from vggrpo.backbones.geometry_loading import NETWORKS, identify_network, locate_weights
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
    """Compares the published weights of a geometry model with what its network needs.

    Args:
        name_or_path: a weight file, a folder that holds one, a repository, or a name ("any4d", "vggt").
        config: the network's dimensions; the official ones by default.

    Raises:
        ConfigError: if the name is unknown, or the file holds no network that is known here.
        FileNotFoundError: if there is no such file, or it cannot be fetched.
        CorruptFileError: if the file is damaged.
    """
    path = locate_weights(resolve_model(name_or_path, "geometry"))
    tensors = read_checkpoint(path)
    network = identify_network(tensors, path)
    return WeightReport(path, network, NETWORKS[network].compare_checkpoint(tensors, config))
