"""Errors as Google's APIs send them: AIP-193, with ``google.rpc.ErrorInfo`` for programs and a link for people.

The messages in ``details`` are those of
https://github.com/googleapis/googleapis/blob/master/google/rpc/error_details.proto; clients parse them strictly.
"""

from __future__ import annotations

import math
from typing import Any

from headrace.resources.errors import HeadraceError, page_url

DOMAIN = "headrace"


def google_error(error: HeadraceError) -> tuple[int, dict[str, Any]]:
    """HTTP status and body of an error.

    ``message`` is for people: what happened, the evidence and the fix. ``details`` is for programs: the stable code as
    ``reason`` with evidence and fix by themselves, ``RetryInfo`` where another try makes sense, and the code's page.
    """
    metadata = {key: value for key, value in (("evidence", error.evidence), ("fix", error.fix)) if value}
    details: list[dict[str, Any]] = [
        {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": error.code,
            "domain": DOMAIN,
            "metadata": metadata,
        }
    ]
    if error.retry_after_s is not None:
        delay = f"{math.ceil(error.retry_after_s)}s"
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay})
    page = {"description": f"What {error.code} means, and what to do.", "url": page_url(error.code)}
    details.append({"@type": "type.googleapis.com/google.rpc.Help", "links": [page]})
    body = {"code": error.http_status, "message": str(error), "status": error.status, "details": details}
    return error.http_status, {"error": body}
