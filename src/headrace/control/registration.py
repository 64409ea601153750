"""The end of an upload: a version's files become what an engine can be given, or there is a reason why not."""

from __future__ import annotations

from pathlib import Path

import msgspec

from headrace.resources.errors import ArtifactsNotFound, HeadraceError
from headrace.resources.models import Model, ModelVersion, Registration, RegistrationState
from headrace.resources.names import Scope
from headrace.storage import open_artifacts
from headrace.storage.uploads import merge, remove_tree
from headrace.weights import check, raise_first_error
from headrace.weights.mlflow_model import read_mlflow_model, served_files

_MOST_WARNINGS = 5
"""That a status message tells; `headrace doctor` has them all."""


class UploadPlaces:
    """Where on the disk what is uploaded. Names of models may change, so their ids are in the paths.

    Args:
        root: The folder of all uploads.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def version(self, scope: Scope, model_id: str, version: str) -> Path:
        """The files of a version as they came."""
        return self.root / scope.project / "models" / model_id / version

    def served(self, scope: Scope, model_id: str, version: str) -> Path:
        """The same as one Hugging Face folder, where they came in another form."""
        return self.root / scope.project / "served" / model_id / version

    def volume(self, project: str, catalog: str, schema: str, volume: str) -> Path:
        """The files of a volume."""
        return self.root / project / "volumes" / catalog / schema / volume

    def remove_version(self, scope: Scope, model_id: str, version: str) -> None:
        """Remove all that was uploaded of a version; nothing where nothing was."""
        remove_tree(self.served(scope, model_id, version))
        remove_tree(self.version(scope, model_id, version))


class Outcome(msgspec.Struct, frozen=True):
    """What became of an upload.

    Attributes:
        state: READY or FAILED.
        message: Why it failed, or what the doctor found that does no harm.
        artifact_uri: Of what is served; empty where it failed.
    """

    state: RegistrationState
    message: str = ""
    artifact_uri: str = ""


def concluded(places: UploadPlaces, version: ModelVersion) -> Outcome:
    """Look at what was uploaded of a version, and make a folder of it that can be served. Reads headers, no tensors.

    It is called in a thread, while nobody may upload to the version.
    """
    scope, model_id, number = version.scope, version.model_id, version.version
    folder = places.version(scope, model_id, number)
    try:
        if not folder.is_dir():
            raise ArtifactsNotFound("No file was uploaded.", fix="Upload the model's files before it is finalized.")
        uploaded = open_artifacts(str(folder))
        model = read_mlflow_model(uploaded)
        files = served_files(uploaded, model)
        if model is not None:
            folder = places.served(scope, model_id, number)
            merge(places.version(scope, model_id, number), files, folder)
            uploaded = open_artifacts(str(folder))
        findings = check(uploaded, allow_custom_code=version.spec.allow_custom_code)
        raise_first_error(findings)
    except HeadraceError as error:
        remove_tree(places.served(scope, model_id, number))
        return Outcome(RegistrationState.FAILED, f"{error.code}: {error}")
    told = "; ".join(f"{each.code}: {each.message}" for each in findings[:_MOST_WARNINGS])
    return Outcome(RegistrationState.READY, told, folder.as_uri())


def pending(model: Model, *, source: str, run_id: str, key_id: str, description: str, now: float) -> ModelVersion:
    """A version of a model whose files are still to come; its number is yet to be given."""
    return ModelVersion(
        scope=model.scope,
        model_id=model.id,
        version="",
        artifact_uri="",
        description=description,
        registration=Registration(source=source, run_id=run_id, created_by=key_id),
        created_at=now,
    )
