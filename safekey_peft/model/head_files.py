"""The safety head's file: ``safekey_head.safetensors`` beside an adapter or a model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from safekey_peft.core import DualPathSafetyHead
from safekey_peft.errors import SafeKeyError

HEAD_FILE = "safekey_head.safetensors"
HEAD_KEYS = ("understanding.weight", "understanding.bias", "context.weight", "context.bias")


class HeadFileError(SafeKeyError):
    """A head file that is missing, damaged or of another model."""


def save_safety_head(state: Mapping[str, Tensor], folder: str | os.PathLike[str]) -> Path:
    """Write a head's four tensors in float32, atomically: an interrupted write leaves no half file.

    Raises:
        HeadFileError: tensors are missing.
    """
    from safetensors.torch import save_file

    missing = [key for key in HEAD_KEYS if key not in state]
    if missing:
        raise HeadFileError(f"cannot save the safety head to {folder}: its state lacks {', '.join(missing)}")
    path = Path(folder) / HEAD_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    tensors = {key: state[key].detach().to("cpu", torch.float32).contiguous() for key in HEAD_KEYS}
    save_file(tensors, str(partial), metadata={"format": "pt"})
    partial.replace(path)
    return path


def load_safety_head(folder: str | os.PathLike[str]) -> DualPathSafetyHead:
    """Load the head of a run's folder or checkpoint.

    Args:
        folder: holds ``safekey_head.safetensors`` (or is that file).

    Returns:
        The head on the CPU, float32, in eval mode.

    Raises:
        HeadFileError: no such file, not safetensors, or other tensors in it.
    """
    path = Path(folder)
    if path.name != HEAD_FILE:
        path = path / HEAD_FILE
    state = _read(path)
    head = DualPathSafetyHead(int(state["understanding.weight"].shape[1]))
    head.load_state_dict(state)
    return head.eval()


def restore_safety_head(head: DualPathSafetyHead, folder: str | os.PathLike[str]) -> None:
    """Load a folder's head into an attached one, in place (an optimizer keeps its parameters).

    Raises:
        HeadFileError: as ``load_safety_head``, or the hidden sizes differ.
    """
    path = Path(folder) / HEAD_FILE
    state = _read(path)
    expected, found = head.understanding.in_features, state["understanding.weight"].shape[1]
    if expected != found:
        raise HeadFileError(f"{path}: made for hidden size {found}, but the model's is {expected}; use its own head")
    with torch.no_grad():
        for name, parameter in head.named_parameters():
            parameter.copy_(state[name])


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise HeadFileError(f"{path}: no safety head there; a run with safekey_dual_path: true writes it")
    try:
        state = load_file(str(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise HeadFileError(f"{path}: not a readable safetensors file ({error}); copy it again") from error
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    width = shapes.get("understanding.weight", (0, 0))[-1]
    wanted = {
        "understanding.weight": (1, width),
        "understanding.bias": (1,),
        "context.weight": (1, width),
        "context.bias": (1,),
    }
    if shapes != wanted or width == 0:
        raise HeadFileError(f"{path}: expected the tensors {', '.join(HEAD_KEYS)}, found {shapes}")
    return state
