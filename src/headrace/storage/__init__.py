"""Floor 3: model artifacts at addresses: listed, read in ranges, identified, and copied here whole or not at all."""

from headrace.storage.addresses import open_artifacts, path_of_file_uri, require_openable
from headrace.storage.artifacts import ArtifactFile, Artifacts, fingerprint
from headrace.storage.cache import Claim, ModelCache, Room, any_room
from headrace.storage.credentials import Credentials
from headrace.storage.fetching import fetched
from headrace.storage.ours import require_own
from headrace.storage.staging import stage
from headrace.storage.whole import make_new, make_whole

__all__ = [
    "ArtifactFile",
    "Artifacts",
    "Claim",
    "Credentials",
    "ModelCache",
    "Room",
    "any_room",
    "fetched",
    "fingerprint",
    "make_new",
    "make_whole",
    "open_artifacts",
    "path_of_file_uri",
    "require_openable",
    "require_own",
    "stage",
]
