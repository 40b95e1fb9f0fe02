"""Mixed precision: bfloat16 autocast where the machine has it in hardware."""

from __future__ import annotations

import torch

from gcl_fast import _native
from gcl_fast.errors import ConfigError

BFLOAT16_SINCE = (8, 0)  # compute capability: A100, A10, RTX 30


def has_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 products run in hardware on this device."""
    if device.type == "cuda":  # torch.cuda.is_bf16_supported also counts GPUs that emulate it, slowly
        return torch.cuda.get_device_capability(device) >= BFLOAT16_SINCE
    return _native.has_bfloat16_units()


def use_bfloat16(choice: str, device: torch.device) -> bool:
    """Whether networks run under bfloat16 autocast: `choice` is fp32, bf16 or auto (where the device has it)."""
    if choice not in ("fp32", "bf16", "auto"):
        raise ConfigError(f"precision must be 'auto', 'fp32' or 'bf16', got {choice!r}")
    return choice == "bf16" or (choice == "auto" and has_bfloat16(device))


def autocast(enabled: bool, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def full(x: torch.Tensor) -> torch.Tensor:
    """Half precision to float32, for losses; float32 and float64 stay as they are."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
