"""What the server keeps of everybody: of that a project may name as weights what it uploaded itself."""

from __future__ import annotations

from pathlib import Path

from headrace.resources.errors import ArtifactsRefused
from headrace.resources.layout import Layout
from headrace.storage.addresses import folder_of


def require_own(uri: str, project: str, data_dir: Path | None) -> None:
    """Hold that an address leads to no upload but the project's own, and to nothing that was staged.

    The server reads as itself: other projects' uploads, and what was staged with their credentials, would be
    everybody's who can guess a path.

    Args:
        uri: The address, as it was registered.
        project: Whose version it is.
        data_dir: Of this server; None: it has none.

    Raises:
        ArtifactsRefused: It leads there.
        BadField: It is no address.
    """
    folder = folder_of(uri)
    if folder is None or data_dir is None:
        return
    resolved, layout = folder.resolve(), Layout(data_dir.resolve())
    own = layout.uploads_dir / project
    kept = any(resolved.is_relative_to(each) for each in (layout.uploads_dir, layout.models_dir))
    if kept and (resolved == own or not resolved.is_relative_to(own)):
        raise ArtifactsRefused(
            f"{uri} is in a folder that the server keeps for everybody.",
            evidence=f"Of uploads and staged models project {project!r} may name what it uploaded itself.",
            fix="Give a folder outside of it, or upload the files to a model of the project's own.",
        )
