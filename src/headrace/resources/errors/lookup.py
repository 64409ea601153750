"""From a code to its class and its page."""

from __future__ import annotations

from importlib.resources import files

from headrace.resources.errors.requests import UnknownErrorCode
from headrace.resources.errors.serving import InternalError
from headrace.resources.errors.tree import CODES, Failure, HeadraceError

_PAGES = "https://github.com/headrace/headrace/blob/main/src/headrace/resources/pages"
"""Where the pages are for a browser; `page` has the same ones without a network."""


def error_from(failure: Failure) -> HeadraceError:
    """The exception that a stored or received failure stands for; an unknown code becomes `InternalError`."""
    return CODES.get(failure.code, InternalError)(failure.message, evidence=failure.evidence, fix=failure.fix)


def page(code: str) -> str:
    """The page of an error code, as Markdown.

    Raises:
        UnknownErrorCode: There is no such code.
    """
    if code not in CODES:
        raise UnknownErrorCode(f"There is no error code {code!r}.", fix="`headrace explain` lists every code.")
    return (files("headrace.resources") / "pages" / f"{code}.md").read_text(encoding="utf-8")


def page_url(code: str) -> str:
    """Where a browser finds the page of an error code."""
    return f"{_PAGES}/{code}.md"
