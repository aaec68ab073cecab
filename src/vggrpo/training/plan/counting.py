"""Operations and memory of a computation on tensors without values."""

import warnings
import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

aten = torch.ops.aten
FLOAT32 = torch.float32.itemsize


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query.shape, key.shape, value.shape)


def _attention_backward(grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(grad.shape, query.shape, key.shape, value.shape)


FORMULAS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    # torch's counter lacks the CPU's fused attention, which is what tensors without values take. It keeps in
    # memory what the GPU's fused kernels keep.
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


@dataclass(frozen=True)
class Cost:
    """Of one computation."""

    flops: float
    """Floating-point operations; a multiplication with an addition is two."""
    peak: int
    """Bytes alive at once at the worst moment, beside those that were there before."""


@contextmanager
def without_values() -> Iterator[None]:
    """Within the context new tensors have shapes, types and no memory."""
    with FakeTensorMode(allow_non_fake_inputs=True), warnings.catch_warnings():
        # Wan's query and key norms keep float32 weights under autocast; its backbone is silent about it too.
        warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")
        yield


def empty_weights(*modules: nn.Module) -> None:
    """Makes modules of the meta device fit for `without_values`; to be called within it."""
    for part in (part for module in modules for part in module.modules()):
        for name, parameter in part._parameters.items():
            if parameter is not None:
                empty = torch.empty(parameter.shape, dtype=parameter.dtype)
                part._parameters[name] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


def saved_elsewhere(enabled: bool) -> AbstractContextManager[object]:
    """Within the context what a backward pass will need takes no memory until its turn comes, if `enabled`;
    to be used within `without_values`."""
    if not enabled:
        return nullcontext()
    return torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: (tensor.shape, tensor.stride(), tensor.dtype),
        lambda saved: torch.empty_strided(saved[0], saved[1], dtype=saved[2]),
    )


def measure(run: Callable[[], object]) -> Cost:
    """The cost of calling `run`. Also counts computations with values."""
    with Meter() as meter:
        run()
    return Cost(float(meter.flops), meter.peak)


Known = dict[Hashable, Cost]
"""Costs by what they are of."""


def once(known: Known, key: Hashable, cost_of: Callable[[], Cost]) -> Cost:
    """The cost in `known` under `key`; measured and kept there if there is none."""
    if key not in known:
        known[key] = cost_of()
    return known[key]


def extrapolated(cost_of: Callable[[int], Cost], number: int, few: tuple[int, int]) -> Cost:
    """The cost of `number` equal parts, from those of two small numbers of them: a straight line.

    For a `number` that is hardly larger the cost itself.
    """
    if number <= few[1]:
        return cost_of(number)
    less, more = cost_of(few[0]), cost_of(few[1])
    slope = Cost((more.flops - less.flops) / (few[1] - few[0]), (more.peak - less.peak) // (few[1] - few[0]))
    rest = number - few[1]
    return Cost(more.flops + rest * slope.flops, more.peak + rest * slope.peak)


class Meter(TorchDispatchMode):
    """Counts what operations within the context do, and the bytes of the tensors that they make.

    torch's own FlopCounterMode follows modules, and so keeps alive what checkpointed blocks recompute.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0
        self.alive = 0
        self.peak = 0
        self._known: dict[int, weakref.ref] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is aten._local_scalar_dense.default and is_valueless(args[0]):
            # A check of values, `if bool(wrong.any()): raise`, on tensors that have none: nothing is wrong.
            return 0
        result = func(*args, **kwargs)
        if func.overloadpacket in FORMULAS:
            self.flops += FORMULAS[func.overloadpacket](*args, **kwargs, out_val=result)
        inputs = {
            id(leaf.untyped_storage()) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)
        }
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and id(leaf.untyped_storage()) not in inputs:
                self._add(leaf.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._known:
            return

        def free(_: object) -> None:
            if self._known.pop(key, None) is not None:
                self.alive -= size

        self._known[key] = weakref.ref(storage, free)
        self.alive += size
        self.peak = max(self.peak, self.alive)


def is_valueless(tensor: Tensor) -> bool:
    """Whether a tensor was made within `without_values`."""
    return isinstance(tensor, torch._subclasses.FakeTensor)


def module_bytes(module: nn.Module) -> int:
    """Bytes of a module's parameters and buffers."""
    tensors = (*module.parameters(), *module.buffers())
    return sum(tensor.numel() * tensor.itemsize for tensor in tensors)


def num_parameters(module: nn.Module, trainable: bool = False) -> int:
    """Numbers in a module's parameters, or in those that are trained."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)


def optimizer_bytes(module: nn.Module) -> int:
    """Bytes that training adds to a module: of each trained parameter its gradient and AdamW's two moments,
    float32."""
    return 3 * FLOAT32 * num_parameters(module, trainable=True)
