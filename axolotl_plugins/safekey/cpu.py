"""What Axolotl needs to train without a GPU; set by the plugin so that the same YAML runs on both."""

from __future__ import annotations

import os
from typing import Any

_OFF_ON_CPU = ("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel", "bf16", "fp16", "tf32")


def is_cpu_run() -> bool:
    """Whether this machine has no accelerator that Axolotl would use."""
    import torch

    return not (torch.cuda.is_available() or torch.backends.mps.is_available() or torch.xpu.is_available())


def adapt_to_cpu(cfg: Any) -> None:
    """Switch off Triton kernels and 16-bit training, and keep ranks from training alone without a word."""
    for name in _OFF_ON_CPU:
        cfg[name] = False
    os.environ["ACCELERATE_USE_CPU"] = "true"


def place_on_cpu(cfg: Any) -> None:
    """Undo the device map that Axolotl derives from the rank: a CPU has one device."""
    cfg.device_map = {"": "cpu"}
