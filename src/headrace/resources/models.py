"""Models and their immutable versions."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

import msgspec

from headrace.resources.external import ExternalServer
from headrace.resources.names import Scope

Dtype = Literal["auto", "bfloat16", "float16", "float32"]

CHAT_TEMPLATE_MAX_BYTES = 256 * 1024
"""Of a chat template in UTF-8; the longest that publishers ship have some 30 KiB."""

Task = Literal["generate", "embed"]
"""What a model is for: making text, or vectors of texts."""


class ServingSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a version wants to be served; immutable with it.

    Attributes:
        runtime: Name of the runtime, or empty: the platform picks.
        max_model_len: Longest context in tokens (prompt and answer), or None: what the model's configuration says.
        dtype: Number format of the weights in memory; ``auto`` is the checkpoint's own.
        tensor_parallel: Devices of one machine that share the weights of each replica, a part of every layer on each.
        prefix_caching: Whether prompts that begin alike share what was computed of their beginning; None: the engine's
            own choice.
        chat_template: A Jinja template that makes prompts of chats, in place of the folder's own; None: that one.
        tool_parser: How the model writes tool calls, by the engine's name for it; None: told by the chat template.
        allow_custom_code: The folder's own Python code may run in the engine, with the server's rights.
        software_specification: The software specification of watsonx.ai that has to be certified for it; empty: none.
        container: A vendor's container specification, kept whole for those who read it back; None without one.
        external: The server that has the model, where that is not ours; None for artifacts.
    """

    runtime: str = ""
    max_model_len: int | None = None
    dtype: Dtype = "auto"
    tensor_parallel: int = 1
    prefix_caching: bool | None = None
    chat_template: str | None = None
    tool_parser: str | None = None
    allow_custom_code: bool = False
    software_specification: str = ""
    container: dict[str, Any] | None = None
    external: ExternalServer | None = None


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A name under which versions are registered.

    Times are Unix seconds, here and in every other noun.

    Attributes:
        last_version: The highest number that a version of it ever had: none comes twice, however many were deleted.
    """

    scope: Scope
    id: str
    display_name: str
    description: str = ""
    labels: dict[str, str] = {}
    last_version: int = 0
    created_at: float
    updated_at: float
    resource_version: int = 1

    @property
    def name(self) -> str:
        """Full resource name."""
        return self.scope.name("models", self.id)


class RegistrationState(StrEnum):
    """How far the registration of a version that is uploaded is. The names are those of Unity Catalog."""

    PENDING = "PENDING_REGISTRATION"
    FAILED = "FAILED_REGISTRATION"
    READY = "READY"


class Registration(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a version came here whose files are uploaded after it was given its number.

    Attributes:
        message: Why it failed, or what its files lack.
        source: Where its importer says that it comes from.
        run_id: The run of an MLflow experiment that made it; may be empty.
        created_by: Id of the key that made it.
    """

    state: RegistrationState = RegistrationState.PENDING
    message: str = ""
    source: str = ""
    run_id: str = ""
    created_by: str = ""


class ModelVersion(msgspec.Struct, frozen=True, kw_only=True):
    """Immutable artifacts and a serving specification. Only aliases, description and labels may change.

    Attributes:
        version: ``"1"``, ``"2"``, … within the model.
        artifact_uri: Where the files are: ``file:///…``, ``gs://…``; of an external model, its server's base URL; empty
            of a container that was registered without any.
        fingerprint: Identity of the files as they were when checked; empty until then.
        labels: Its own, beside those of its model.
        kept: What its importer said of it that means nothing here, for those who read it back.
        user_id: The name that the importer gave the model (Vertex AI's ``model_user_id``); may be empty.
        registration: How far its upload is; None where there was none, and its files are where the address says.
        updated_at: 0 until something of it changed.
    """

    scope: Scope
    model_id: str
    version: str
    artifact_uri: str
    fingerprint: str = ""
    spec: ServingSpec = ServingSpec()
    aliases: tuple[str, ...] = ()
    description: str = ""
    labels: dict[str, str] = {}
    kept: dict[str, Any] = {}
    user_id: str = ""
    registration: Registration | None = None
    created_at: float
    updated_at: float = 0.0
    resource_version: int = 1
