"""Initialisation of networks from seeds, independently of global random state, and hashes that identify a network."""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cl_lib.errors import InputError
from cl_lib.models.structure import examine
from cl_lib.noise import SeededRandom
from cl_lib.types import Shape

ModelFactory = Callable[[Shape, int], nn.Module]


def build(model: nn.Module | ModelFactory, shape: Shape, classes: int, seeds: Sequence[int]) -> list[nn.Module]:
    """Build one module for each seed.

    A factory is called as ``model(shape, classes)`` with torch's random numbers drawn from the seed, so that each seed
    has different weights. An ``nn.Module`` is copied, so that all seeds start from its weights.

    Raises
    ------
    InputError
        If the factory fails, or the model does not return ``(N, classes)`` for inputs ``(N, *shape)``.
    """
    if isinstance(model, nn.Module):
        modules = [_copied(model)] * len(seeds)
    else:
        modules = [_drawn(model, shape, classes, seed) for seed in seeds]
    _check(modules, shape, classes)
    return modules


def _copied(module: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(module)
    except Exception as error:  # a user's module may raise anything
        raise InputError(f"model: {type(module).__name__} cannot be copied ({_first_line(error)})") from error


def _drawn(factory: ModelFactory, shape: Shape, classes: int, seed: int) -> nn.Module:
    before = torch.initial_seed()
    with SeededRandom(seed):
        try:
            module = factory(shape, classes)
            if isinstance(module, nn.Module) and _lazy(module):  # lazy parameters take their shapes from a first sample
                with torch.no_grad():
                    module.eval()(torch.zeros(2, *shape))
                module.train()
        except InputError:
            raise
        except Exception as error:  # a user's function may raise anything
            raise InputError(
                f"model: cannot be built for shape {tuple(shape)} and {classes} classes: {_first_line(error)}"
            ) from error
    if torch.initial_seed() != before:
        warnings.warn(
            "model: the function calls torch.manual_seed, but its weights are drawn from the run's seed; to give all "
            "seeds the same weights pass the module itself",
            stacklevel=2,
        )
    return module


def _lazy(module: nn.Module) -> bool:
    return any(nn.parameter.is_lazy(t) for t in (*module.parameters(), *module.buffers()))


def _check(modules: Sequence[nn.Module], shape: Shape, classes: int) -> None:
    module = modules[0]
    if not isinstance(module, nn.Module):
        raise InputError(f"model: the factory made a {type(module).__name__}, not an nn.Module")
    name = type(module).__name__
    if _lazy(module):
        raise InputError(f"model: {name} has lazy parameters; run it on a sample first, or pass a function")
    if not any(p.requires_grad for p in module.parameters()):
        raise InputError(f"model: {name} has no trainable parameters")
    for place, layer in module.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.momentum is None:
            raise InputError(
                f"model.{place}.momentum=None: a cumulative average reads its number of steps, which cannot be traced; "
                "set a number, such as 0.1"
            )
    _copied(module)
    first = next(module.parameters())
    x = torch.full((2, *shape), 0.5, dtype=first.dtype, device=first.device)
    try:
        output = examine(modules, x)
    except InputError:
        raise
    except Exception as error:  # a user's module may raise anything
        raise InputError(
            f"model: {name} does not take inputs of shape (N, {', '.join(map(str, shape))}): {_first_line(error)}"
        ) from error
    if not bool((x == 0.5).all()):
        raise InputError(f"model: {name} changes its input in place; let it work on a copy")
    if not isinstance(output, Tensor) or tuple(output.shape) != (2, classes):
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise InputError(
            f"model: {name} returns shape {got} for 2 samples; this stream has {classes} classes,"
            f" so (2, {classes}) is needed: make its last layer {classes} wide"
        )
    if classes > 1 and _are_probabilities(output):
        raise InputError(
            f"model: {name} returns probabilities (each row sums to 1), and the loss takes logits; remove the "
            "softmax at its end"
        )


def _are_probabilities(output: Tensor) -> bool:
    values = output.double()
    return bool((values >= 0).all() and ((values.sum(1) - 1).abs() < 1e-3).all())


def fingerprint(module: nn.Module, shape: Shape) -> dict[str, str]:
    """Hashes that distinguish networks of the same structure.

    Returns
    -------
    dict of str
        ``weights``, a hash of all parameters and buffers; ``answer``, a hash of the network's outputs for two fixed
        samples in float64, rounded to six digits, which also depends on constants in its ``forward``.

    Examples
    --------
    >>> first, second = (nn.Linear(3, 2) for _ in range(2))
    >>> fingerprint(first, (3,)) == fingerprint(copy.deepcopy(first), (3,))
    True
    >>> fingerprint(first, (3,)) == fingerprint(second, (3,))
    False
    """
    return {"weights": hash_of(module.state_dict()), "answer": _output_hash(module, shape)}


def hash_of(tensors: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits of a hash of all names, shapes, dtypes and values of a state dict."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        if isinstance(tensor, Tensor):  # modules may add extra state of any kind
            values = tensor.detach().cpu().contiguous()
            digest.update(f"{name} {tuple(values.shape)} {values.dtype}".encode())
            digest.update(values.flatten().view(torch.uint8).numpy().tobytes() if values.numel() else b"")
    return digest.hexdigest()[:16]


def _output_hash(module: nn.Module, shape: Shape) -> str:
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad(), SeededRandom(0):
        try:
            values = copy.deepcopy(module).cpu().double().eval()(x)
        except Exception:  # a module of a fixed dtype
            try:
                first = next(module.parameters())
                values = copy.deepcopy(module).eval()(x.to(first.device, first.dtype))
            except Exception:
                return ""
    digits = [f"{float(v):.5e}" for v in values.flatten().tolist()]
    return hashlib.sha256(" ".join(digits).encode()).hexdigest()[:16]


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
