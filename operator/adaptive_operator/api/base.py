"""What all models of the API share: how fields are named on the wire, and how a CEL rule is written.

Knows no field of any model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict

CEL = "x-kubernetes-validations"
DNS_LABEL = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
DNS_NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
LEVEL_NAME = r"^int(8|4)(-d[1-9][0-9]{0,3})?$"
QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"
RESOURCE = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
SHA256 = r"^[0-9a-f]{64}$"
MODEL_SOURCE = r"^(package://[A-Za-z_][A-Za-z0-9_]*/[A-Za-z0-9._/-]+|file:///[A-Za-z0-9._/-]+)$"


def rule(expression: str, message: str) -> JsonDict:
    """One CEL rule of `x-kubernetes-validations`; the message names the field and the remedy."""
    return {"rule": expression, "message": message}


def told(keyword: str, *rules: JsonDict) -> Callable[[JsonDict], None]:
    """For `json_schema_extra`: the API server checks these rules in the place of a keyword such as `pattern`.

    Its own words for the keyword are a bare regular expression or number; the operator itself keeps the constraint.
    """

    def replace(schema: JsonDict) -> None:
        del schema[keyword]
        schema[CEL] = list(rules)

    return replace


def match(pattern: str, message: str) -> JsonDict:
    """The CEL rule that a string matches a pattern."""
    return rule(f"self.matches(r'{pattern}')", message)


def level_field(path: str, description: str) -> Any:
    """The name of a level, at `path` of the spec, e.g. tiers[].curve.levels[].name."""
    words = f"{path} must be the name of a level; use a precision, then -d and a depth unless it is the first, e.g."
    return Field(
        min_length=1,
        max_length=16,
        pattern=LEVEL_NAME,
        json_schema_extra=told("pattern", match(LEVEL_NAME, f"{words} int4 or int4-d28")),
        description=description,
    )


class Api(BaseModel):
    """Base of all API models: camelCase aliases, immutable, unknown fields ignored (a newer CRD may have more)."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")
