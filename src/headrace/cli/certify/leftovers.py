"""What a certificate made for its time has that time in its name: so the next one takes off what a killed one left."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from headrace.cli.deployments import ROOT
from headrace.cli.endpoints import fetch_endpoints
from headrace.cli.paths import segment
from headrace.resources.errors import HeadraceError, NotFound, PermissionDenied

if TYPE_CHECKING:
    from headrace.cli.client import Client
    from headrace.cli.progress import Steps

_GRACE_S = 3600.0
"""Beyond the load itself: for what is made before and taken off after it, and for clocks that differ."""

_NAME = re.compile(r"certify-([0-9]{10,})-[0-9a-f]{8}")


def name_for(seconds: float) -> str:
    """A name for what is made for a load of so many seconds, and for nothing longer."""
    return f"certify-{time.time() + seconds + _GRACE_S:.0f}-{secrets.token_hex(4)}"


def remove_leftovers(client: Client, steps: Steps) -> None:
    """Take off what was made for certificates whose time is over, as far as this key may.

    Args:
        client: The server.
        steps: Told of what is removed.
    """
    for endpoint in fetch_endpoints(client):
        if _is_over(endpoint.get("displayName", "")):
            with _or_say(steps):
                client.delete(f"/v1beta1/{endpoint['name']}?force=true")
                steps.say(f"Removed endpoint {endpoint['displayName']}, left by a certificate that was killed.")
    with _or_say(steps):
        for key in client.get(f"{ROOT}/keys", project=client.login.project)["keys"]:
            if not key["revoked_at"] and _is_over(key["name"]):
                client.delete(f"{ROOT}/keys/{segment(key['id'])}")
                steps.say(f"Revoked key {key['name']}, left by a certificate that was killed.")


def _is_over(name: str) -> bool:
    found = _NAME.fullmatch(name)
    return found is not None and int(found[1]) < time.time()


@contextmanager
def _or_say(steps: Steps) -> Iterator[None]:
    """Leave what cannot be removed: the certificate that is asked for does not need it."""
    try:
        yield
    except (PermissionDenied, NotFound):  # not this key's affair; or another certificate removed it
        return
    except HeadraceError as error:
        steps.say(f"Something that a killed certificate left stays: {error}")
