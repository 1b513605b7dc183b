"""The device that a piece of work computes on."""

import gc
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from raylearn.errors import ClusterError


def torch_device(num_gpus: float) -> str:
    """The device of a Ray task that asked for this many GPUs: the one Ray gave it, else the CPU."""
    if not num_gpus:
        return "cpu"
    import torch

    return "cuda:0" if torch.cuda.is_available() else "cpu"


def has_fast_bf16() -> bool:
    """Whether the CPU of this machine computes in bf16; one that does not is slower in it than in fp32."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:  # not Linux
        return False
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags)


PRETEND_GPUS = "RAYLEARN_PRETEND_GPUS"
"""Set in the environment, work that was given a GPU which torch cannot use goes to the CPU: for tests of clusters."""


def refuse_unusable_gpu(num_gpus: float) -> None:
    """Raises ClusterError in a Ray task that was given GPUs of which torch can use none."""
    if num_gpus and torch_device(num_gpus) == "cpu" and not os.environ.get(PRETEND_GPUS):
        raise ClusterError(
            f"Ray offers a GPU on {socket.gethostname()}, but torch cannot use it: look at its driver and its torch "
            "(raylearn doctor), or set resources.gpus_per_task=0"
        )


_of_thread = threading.local()


@contextmanager
def own_stream() -> Iterator[None]:
    """Within it, what this thread asks of a GPU does not wait for what other threads ask of it."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        yield
        return
    if not hasattr(_of_thread, "stream"):
        _of_thread.stream = torch.cuda.Stream()
    with torch.cuda.stream(_of_thread.stream):
        yield


def give_back_gpu_memory() -> None:
    """Frees what torch keeps of a GPU's memory for the next work of this process, which may be long in coming."""
    torch = sys.modules.get("torch")  # work that did not import it has nothing to free
    if torch is not None:
        gc.collect()  # Ultralytics' trainer is in a cycle of references
        torch.cuda.empty_cache()


def reuses_gpu_processes() -> bool:
    """Whether one process may do GPU work after GPU work, which saves the seconds that a new one takes to start.

    CUDA stays on the GPU that a process began with, whatever Ray gives it later: so where a machine has several, or may
    have when it comes up, each piece of work needs a process of its own.
    """
    import ray

    gpus = [node["Resources"]["GPU"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU")]
    return bool(os.environ.get(PRETEND_GPUS)) or (bool(gpus) and max(gpus) <= 1)
