"""Config: the strict, frozen base of every block of settings that a recipe can set."""

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """Settings of one part; immutable, and a key that no field names is an error.

    A default lives once, in the field of the thing that it configures; a recipe lists only what differs.

    Raises:
        pydantic.ValidationError: an unknown key, a wrong type, or a value outside its field's bounds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
