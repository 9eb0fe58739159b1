"""What all mappings in a file that users write have in common."""

from typing import Any

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler

from align_core.settings import strict


class Section(BaseModel):
    """Base of every mapping in a file that users write. Unknown keys, infinite numbers and other types are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, serialize_by_alias=True)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> Any:
        return strict(handler(source), cls)
