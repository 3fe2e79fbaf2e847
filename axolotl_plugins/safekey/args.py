"""The YAML flags as fields of Axolotl's configuration; their meaning and defaults stand in ``SafeKeyConfig``."""

from __future__ import annotations

from typing import Any, Optional

from pydantic import BaseModel, Field, create_model

from safekey_peft.config import FLAG_PREFIX, SafeKeyConfig

_fields: dict[str, Any] = {
    FLAG_PREFIX + name: (
        Optional[field.annotation],
        Field(default=None, description=f"{field.description} Default: {field.default!r}."),
    )
    for name, field in SafeKeyConfig.model_fields.items()
}

SafeKeyArgs: type[BaseModel] = create_model(
    "SafeKeyArgs", __doc__="Flags of the safekey plugin; null: the default.", **_fields
)
