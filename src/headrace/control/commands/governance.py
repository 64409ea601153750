"""What stands around an endpoint and not behind it: tags, rate limits, the AI gateway, the access list."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from headrace.contracts.databricks.ai_gateway import AiGatewayBody, ai_gateway_json, check_ai_gateway
from headrace.contracts.databricks.kept import kept_of, with_kept
from headrace.contracts.databricks.permissions import AccessEntry, Granted, check_entries, granted_json
from headrace.contracts.databricks.rate_limits import RateLimit, check_rate_limits, rate_limits_json
from headrace.contracts.databricks.tags import Tag, TagsPatch, patched, tags_in, tags_json
from headrace.control.access_lists import granted_of, require_keys
from headrace.control.commands.request_log import TURNED_ON_BY_TABLE
from headrace.request_log.settings import delta_available
from headrace.resources.access import Permission, Principal
from headrace.resources.endpoints import Endpoint
from headrace.resources.errors import NotSupported
from headrace.resources.operations import ApiKey
from headrace.resources.request_log import RequestLog
from headrace.store import Transaction


def patch_tags(tx: Transaction, endpoint: Endpoint, patch: TagsPatch) -> list[Tag]:
    """Change an endpoint's tags; returns all that it has then.

    Raises:
        BadField: It cannot have them.
    """
    tags = patched(tags_in(kept_of(endpoint.kept).get("tags")), patch)
    _keep(tx, endpoint, {"tags": tags_json(tags)})
    return tags


def set_rate_limits(tx: Transaction, endpoint: Endpoint, rate_limits: Sequence[RateLimit]) -> Endpoint:
    """Limit what may be asked of an endpoint; what was said so before is forgotten. The AI gateway's limits hold, too.

    Wake the reconciler: the gateway then knows at once.

    Raises:
        BadField: A limit cannot be one.
        NotSupported: One is of a group.
        KeyNotFound: One is of nobody that there is.
    """
    check_rate_limits(rate_limits)
    _require_principals(tx, endpoint, rate_limits)
    return _keep(tx, endpoint, {"rate_limits": rate_limits_json(rate_limits) or None})


def set_ai_gateway(tx: Transaction, endpoint: Endpoint, body: AiGatewayBody) -> Endpoint:
    """Have an endpoint's limits and inference table be these; what was said so before is forgotten.

    A table takes what the request log keeps, so it turns the log on where that was off; one that it turned on it turns
    off again, unless somebody has set it meanwhile.

    Raises:
        BadField: Something of it cannot be.
        NotSupported: Something of it is not done here.
        KeyNotFound: A limit is of nobody that there is.
    """
    check_ai_gateway(body, endpoint.display_name)
    _require_principals(tx, endpoint, body.rate_limits or ())
    table = body.inference_table_config is not None and body.inference_table_config.enabled
    if table and not delta_available():
        raise NotSupported(
            "Inference tables need packages that are not installed.",
            evidence="They are Delta tables, which deltalake and pyarrow write.",
            fix="pip install 'headrace[delta]' with the pip of the server's environment, and start the server anew.",
        )
    changes: dict[str, Any] = {"ai_gateway": ai_gateway_json(body) or None}
    if table and endpoint.request_log is None:
        endpoint = msgspec.structs.replace(endpoint, request_log=RequestLog())
        changes[TURNED_ON_BY_TABLE] = True
    elif not table and kept_of(endpoint.kept).get(TURNED_ON_BY_TABLE):
        endpoint = msgspec.structs.replace(endpoint, request_log=None)
        changes[TURNED_ON_BY_TABLE] = None
    return _keep(tx, endpoint, changes)


def set_permissions(
    tx: Transaction, endpoint: Endpoint, entries: Sequence[AccessEntry] | None, setter: Principal
) -> list[Granted] | None:
    """Give an endpoint this access list; whoever does so and is no admin stays on it as who manages it.

    Args:
        tx: An open transaction.
        endpoint: Which one.
        entries: The list; empty: only admins. None: there is no list any more, and roles alone decide.
        setter: Who asks.

    Returns:
        The list as it is then.

    Raises:
        NotSupported: It names a group.
        BadField: An entry cannot be one.
        KeyNotFound: It names nobody that there is.
    """
    granted = None if entries is None else _granted(tx, endpoint, entries)
    return _keep_list(tx, endpoint, granted, setter)


def patch_permissions(
    tx: Transaction, endpoint: Endpoint, entries: Sequence[AccessEntry], setter: Principal
) -> list[Granted] | None:
    """Put some on an endpoint's access list, or change their level; the others stay. Where there was none, it begins.

    Raises:
        NotSupported: It names a group.
        BadField: An entry cannot be one.
        KeyNotFound: It names nobody that there is.
    """
    changed, before = _granted(tx, endpoint, entries), granted_of(endpoint)
    if before is None and not changed:
        return None
    ids = {one.key_id for one in changed}
    return _keep_list(tx, endpoint, [*(one for one in before or () if one.key_id not in ids), *changed], setter)


def _keep_list(
    tx: Transaction, endpoint: Endpoint, granted: list[Granted] | None, setter: Principal
) -> list[Granted] | None:
    if granted is not None and not setter.may(Permission.ADMINISTER, endpoint.scope.project):
        own = Granted(key_id=setter.key_id, name=setter.key_id, level="CAN_MANAGE")
        granted = [*(one for one in granted if one.key_id != setter.key_id), own]
    _keep(tx, endpoint, {"permissions": None if granted is None else granted_json(granted)})
    return granted


def _granted(tx: Transaction, endpoint: Endpoint, entries: Sequence[AccessEntry]) -> list[Granted]:
    check_entries(entries)
    keys = tx.list(ApiKey, revoked_at=None)
    granted: dict[str, Granted] = {}
    for entry in entries:
        for key in require_keys(keys, entry.who, service=entry.is_service, project=endpoint.scope.project):
            one = Granted(key_id=key.id, name=entry.who, level=entry.permission_level, service=entry.is_service)
            granted[key.id] = one
    return list(granted.values())


def _require_principals(tx: Transaction, endpoint: Endpoint, rate_limits: Iterable[RateLimit]) -> None:
    keys = tx.list(ApiKey, revoked_at=None)
    for limit in rate_limits:
        if limit.principal:
            service = limit.counts == "service_principal"
            require_keys(keys, limit.principal, service=service, project=endpoint.scope.project)


def _keep(tx: Transaction, endpoint: Endpoint, changes: Mapping[str, Any]) -> Endpoint:
    return tx.update(msgspec.structs.replace(endpoint, kept=with_kept(endpoint.kept, changes)))
