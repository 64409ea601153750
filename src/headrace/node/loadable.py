"""A staged folder in the form that every engine loads: itself, or written anew once for each content.

What the doctor warns of and can be cured without loss is cured here: pickles, an index that is missing. Whatever the
runtime, and before the runtime's own conversion. Weights that are in order are linked, not copied: nobody writes to
either folder, and each goes without the other. A format that is only not noted is left: each engine was seen to load
such files (tests/engine/test_odd_folders.py), and the cure would take the weights' room a second time.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from headrace.resources.errors import HeadraceError, NothingToConvert, PickleUnsafe
from headrace.storage import Room, any_room, make_whole, open_artifacts
from headrace.storage.converting import convert_folder
from headrace.weights.config import CONFIG_FILE
from headrace.weights.conversion import CONVERTER_VERSION, plan_folder
from headrace.weights.folder import saved_alone

Progress = Callable[[str, int, int], None]
"""Takes a sentence for a person, the bytes written so far and how many there will be."""

KEY = f"safetensors-{CONVERTER_VERSION}"
"""Names the form, as `headrace.runtimes.Conversion.key`: the folder lies beside its source, as ``SOURCE.KEY``."""

_log = logging.getLogger(__name__)


class Loadable(NamedTuple):
    """What engines are given.

    Attributes:
        folder: The staged folder, or what was made of it.
        what: What was made, and from what, as a part of a sentence; empty where nothing was.
        anew: It was made now.
        kept: A sentence: why the folder is served as it is although it is not in order; empty where it is.
    """

    folder: Path
    what: str = ""
    anew: bool = False
    kept: str = ""


def loadable(source: Path, tell: Progress, cancelled: Callable[[], bool], room: Room = any_room) -> Loadable:
    """The folder that engines load: found, waited for, or made.

    Args:
        source: A staged folder, which has passed the doctor.
        tell: Told how far it is.
        cancelled: Asked between pieces of some MB.
        room: For what is made.

    Raises:
        Cancelled: ``cancelled()`` became true.
        ConversionFailed: What came out could not be deployed, which only its tensors show.
        DiskFull: There is no room, before it begins or on the way.
        HeadraceError: A pickle asks for more than tensors, or is one that no engine would look for and cannot be
            written anew.
    """
    opened = open_artifacts(str(source))
    if CONFIG_FILE not in opened.sizes():
        return Loadable(source)  # no folder of a model; whoever loads it knows what it is
    try:
        plan = plan_folder(opened, note=False, link=_can_link(source))
    except NothingToConvert:
        return Loadable(source)
    except HeadraceError as error:
        if isinstance(error, PickleUnsafe) or saved_alone(opened.sizes()):
            raise  # no engine should load it, or none would look for it
        _log.warning("%s is served as it is: %s", source.name, error)
        return Loadable(source, kept=f"Served as it is: {error.message}")
    target = source.with_name(f"{source.name}.{KEY}")
    if target.is_dir():
        return Loadable(target, plan.what)

    def make(partial: Path, _lock: int) -> None:
        convert_folder(plan, source, partial, lambda done, total: tell(f"{plan.what}.", done, total), cancelled)

    tell(f"{plan.what}.", 0, plan.size_bytes)
    with room(target.name, plan.size_bytes):
        made = make_whole(source.parent, target.name, plan.size_bytes, make, cancelled)
    return Loadable(made, plan.what, anew=True)


def _can_link(source: Path) -> bool:
    """Whether a file of a staged folder can have a second name beside that folder: some file systems have none."""
    trial = source.with_name(f".{source.name}.{os.getpid()}.{threading.get_ident()}.link")
    try:
        os.link(source / CONFIG_FILE, trial)
    except OSError:
        return False
    trial.unlink()
    return True
