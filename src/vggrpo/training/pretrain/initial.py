"""The weights from which a training starts when it continues an earlier one's model."""

from pathlib import Path

from torch import nn

from vggrpo.config import ConfigError


def require_same_architecture(module: nn.Module, source: nn.Module, folder: Path) -> None:
    """Makes sure that the weights of `source`, which was loaded from `folder`, fit into `module`.

    `module` may be on the meta device: a check before any work starts.

    Raises:
        ConfigError: if the two differ in their layers or dimensions.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in source.state_dict().items()}
    different = sorted(name for name in wanted.keys() | given.keys() if wanted.get(name) != given.get(name))
    if different:
        name = different[0]
        raise ConfigError(
            f"init is {folder}, whose {type(source).__name__} differs from the settings' architecture in "
            f"{len(different)} tensors, the first {name}: {given.get(name, 'absent')} there, "
            f"{wanted.get(name, 'absent')} here. Give the architecture that it was trained with"
        )
