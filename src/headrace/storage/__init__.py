"""Floor 3: model artifacts at addresses: listed, read in ranges, identified, and copied here whole or not at all."""

from headrace.storage.addresses import open_artifacts
from headrace.storage.artifacts import ArtifactFile, Artifacts, fingerprint
from headrace.storage.staging import stage
from headrace.storage.whole import make_whole

__all__ = ["ArtifactFile", "Artifacts", "fingerprint", "make_whole", "open_artifacts", "stage"]
