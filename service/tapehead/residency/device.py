"""The device a worker runs on, and how TensorFlow is set up for it."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import keras
import tensorflow as tf

from tapehead.errors import Internal
from tapehead.worker.protocol import WorkerSettings

_GPU_SHARE, _CPU_SHARE = 0.6, 0.4
"""The part of a device's memory that weights may take; requests need the rest."""
_UNTOLD_BUDGET = 4 << 30


@dataclass(frozen=True)
class Device:
    """One device of this process.

    Attributes:
        name: `gpu:1`, as the host counts.
        visible: every device of the host that a worker could have.
        memory_bytes: all of its memory; 0 if that cannot be told.
        budget_bytes: the part of it that weights may take.
        place: its name within this process, as TensorFlow has it.
    """

    name: str
    visible: tuple[str, ...]
    memory_bytes: int
    budget_bytes: int
    place: str

    @contextmanager
    def using(self) -> Iterator[None]:
        """Runs what is inside on the device, without TensorFloat-32 unless what is inside switches it on."""
        # In a notebook the switch is the user's as well, and theirs again afterwards.
        before = tf.config.experimental.tensor_float_32_execution_enabled()
        tf.config.experimental.enable_tensor_float_32_execution(False)
        try:
            with tf.device(self.place):
                yield
        finally:
            tf.config.experimental.enable_tensor_float_32_execution(before)


def claim(settings: WorkerSettings, *, own_process: bool) -> Device:
    """The device that the settings name.

    With `own_process` TensorFlow sees that device alone, and takes its memory as it needs it.

    Raises:
        Internal: there is no such device, or Keras runs on something else than TensorFlow.
    """
    backend = keras.config.backend()
    if backend != "tensorflow":
        raise Internal(f"Keras runs on {backend} here; set KERAS_BACKEND=tensorflow before it is imported")
    gpus = tf.config.list_physical_devices("GPU")
    processors = settings.logical_cpus if own_process else 0
    here = _names("cpu", processors or 1) if processors or not gpus else _names("gpu", len(gpus))
    name = settings.device or here[0]
    if name not in (*here, "cpu:0"):
        raise Internal(f"there is no device {name!r} here; devices: {', '.join(here)}")
    # A thread shares its process, and live models, with others: one worker is enough there.
    visible = here if own_process else (name,)
    kind, _, number = name.partition(":")
    if kind == "cpu":
        if own_process:
            _set_up_processor(processors)
        memory = _host_memory() // (processors or 1)
        return Device(name, visible, memory, int(_CPU_SHARE * memory), f"/CPU:{number}")
    if own_process:
        _set_up_gpu(gpus[int(number)])
    memory = _gpu_memory(int(number))
    place = "/GPU:0" if own_process else f"/GPU:{number}"
    return Device(name, visible, memory, int(_GPU_SHARE * memory) or _UNTOLD_BUDGET, place)


def _names(kind: str, count: int) -> tuple[str, ...]:
    return tuple(f"{kind}:{number}" for number in range(count))


def _set_up_processor(parts: int) -> None:
    tf.config.set_visible_devices([], "GPU")
    if parts:
        processor = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * parts)


def _set_up_gpu(gpu: tf.config.PhysicalDevice) -> None:
    tf.config.set_visible_devices([gpu], "GPU")
    tf.config.experimental.set_memory_growth(gpu, True)


def _host_memory() -> int:
    """The memory of the machine, or what its container may take of it."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # not in a container, or `max`
            sizes.append(int(Path(limit).read_text()))
    return min(sizes)


def _gpu_memory(number: int) -> int:
    """The memory of a GPU by CUDA's driver, since TensorFlow does not tell; 0 if the driver does not either."""
    size, device = ctypes.c_size_t(0), ctypes.c_int(0)
    with suppress(OSError, AttributeError):  # no driver of that name here
        driver = ctypes.CDLL("libcuda.so.1")
        if driver.cuInit(0) == 0 and driver.cuDeviceGet(ctypes.byref(device), number) == 0:
            driver.cuDeviceTotalMem_v2(ctypes.byref(size), device)
    return size.value
