"""Keys: where random numbers come from.

PyTorch's generator is the process's, and so are Pyro's handlers and its parameter store. Threads take turns: what draws from a
key is done by one of them at a time.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

from ppvi._doors import described
from ppvi.errors import ProgramError

Key = int | torch.Generator | None
"""A seed, a generator, or PyTorch's global generator."""

_TURN = threading.RLock()

STAGING = 0x5EED_0F_57A6
"""The seed of what is staged, which no program names."""


def key_text(key: Key) -> str:
    """A key in words, by which it can be made again."""
    if isinstance(key, torch.Generator):
        return f"a generator that began with seed {key.initial_seed()}"
    return "PyTorch's own generator" if key is None else f"seed {key}"


def seeded(key: Key) -> AbstractContextManager[Any]:
    """The random numbers of a seed or of a generator; with None those of PyTorch's global generator."""
    return _TURN if key is None else _forked(key)


@contextmanager
def _forked(key: int | torch.Generator) -> Iterator[None]:
    known = isinstance(key, torch.Generator) or (isinstance(key, int) and not isinstance(key, bool))
    if not known or (isinstance(key, int) and not -(2**63) <= key < 2**64):
        raise ProgramError(
            f"the key must be an int seed below 2**64, a torch.Generator or None, not {described(key)}; it comes first, before "
            f"params and data."
        )
    with _TURN, torch.random.fork_rng():
        seed = int(torch.randint(2**62, (), generator=key)) if isinstance(key, torch.Generator) else key
        # As `torch.manual_seed`, which for every kind of device that is not there notes down the whole stack, and that takes
        # milliseconds.
        torch.default_generator.manual_seed(seed)
        for device in (torch.cuda, torch.xpu):
            if device.is_available():
                device.manual_seed_all(seed)
        if torch.backends.mps.is_available():
            torch.mps.manual_seed(seed)
        yield


def seeds(key: Key, n: int) -> list[int]:
    """So many seeds of a key, for what must not take from each other's random numbers."""
    with seeded(key):
        return torch.randint(2**62, (n,)).tolist()


def random_state() -> dict[str, torch.Tensor]:
    """The random numbers to come, of the processor and of the devices that are in use."""
    devices = enumerate(torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else ())
    return {"cpu": torch.get_rng_state(), **{f"cuda:{i}": state for i, state in devices}}


@contextmanager
def drawing_from(random: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Draws are these random numbers', and on other devices some that follow from them."""
    with seeded(zlib.crc32(random["cpu"].numpy().tobytes())):
        for device, state in random.items():
            if device == "cpu":
                torch.set_rng_state(state)
            elif int(device.removeprefix("cuda:")) < torch.cuda.device_count():
                torch.cuda.set_rng_state(state, device)
        yield
