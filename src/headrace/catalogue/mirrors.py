"""Where an operator keeps published models for those who cannot reach the Hugging Face Hub: addresses made of names."""

from __future__ import annotations

import re

import msgspec

from headrace.catalogue.entries import Entry, find_on_hub
from headrace.resources.errors import BadField

PLACEHOLDERS = ("owner", "name", "publisher", "model", "version")
"""Owner and name as on the Hub; publisher, model and version as in the catalogue, which other models do not have."""

SCHEMES = ("file", "gs", "s3", "az", "hf")

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_OF_CATALOGUE = frozenset({"publisher", "model", "version"})


class Mirror(msgspec.Struct, frozen=True):
    """A folder of models, or one model's.

    Attributes:
        template: An address with `PLACEHOLDERS` in braces.
        only: What it is for: an owner, or an owner and a name, as on the Hub; or a publisher, or a publisher and a
            model, as in the catalogue. Empty: every model.
    """

    template: str
    only: str = ""

    def address(self, hub: str) -> str | None:
        """Where a model would be; None where the mirror is not for it.

        Args:
            hub: The model's name on the Hugging Face Hub.
        """
        entry = find_on_hub(hub)
        owner, _, name = hub.partition("/")
        if self.only and self.only.lower() not in {each.lower() for each in _names(hub, entry)}:
            return None
        values = {"owner": owner, "name": name}
        if entry is not None:
            values |= {"publisher": entry.publisher, "model": entry.model, "version": entry.version}
        elif _OF_CATALOGUE & set(_PLACEHOLDER.findall(self.template)):
            return None
        return _PLACEHOLDER.sub(lambda match: values[match[1]], self.template)


def _names(hub: str, entry: Entry | None) -> list[str]:
    """What an operator may call a model by."""
    names = [hub.partition("/")[0], hub]
    if entry is not None:
        names += [entry.publisher, f"{entry.publisher}/{entry.model}", entry.id]
    return names


def read_mirror(text: str) -> Mirror:
    """A mirror as the command line has it: ``[NAME=]ADDRESS``.

    An address without placeholders is a folder in which models lie as ``OWNER/NAME``, as on the Hub; that of a single
    model (``NAME=`` with a slash) is the model's own folder.

    Raises:
        BadField: It is no address, or has a placeholder that does not exist.
    """
    before, separator, after = text.partition("=")
    only, template = (before, after) if separator and "://" not in before else ("", text)
    scheme, separator, rest = template.partition("://")
    if not separator and template.startswith("/"):
        template, scheme, separator, rest = f"file://{template}", "file", "://", template
    if not separator or scheme.lower() not in SCHEMES or not rest.strip("/"):
        raise BadField(
            f"{template[:200]!r} is no address of models.",
            evidence=f"An address begins with one of {', '.join(f'{each}://' for each in SCHEMES)} or a slash.",
            fix="Give such as file:///srv/models or s3://BUCKET/{owner}/{name}.",
        )
    unknown = sorted(set(_PLACEHOLDER.findall(template)) - set(PLACEHOLDERS))
    if unknown or template.count("{") != len(_PLACEHOLDER.findall(template)):
        raise BadField(
            f"{template[:200]!r} has a placeholder that does not exist.",
            evidence=f"It is {unknown[0]!r}." if unknown else "A brace is left open.",
            fix=f"There are {', '.join(f'{{{each}}}' for each in PLACEHOLDERS)}.",
        )
    if "{" not in template and "/" not in only:
        template = f"{template.rstrip('/')}/{{owner}}/{{name}}"
    return Mirror(template, only)
