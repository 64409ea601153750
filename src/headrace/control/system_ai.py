"""The catalogue ``system.ai``: the Model Garden's models by names of three levels, which nobody has to register.

A name is looked up in the Garden's data; only what is deployed gets rows. So it goes in two steps: `entity_of_garden`
says which published model is meant, which is then located as every other one of the Garden is (its licence, the Hub,
mirrors); `register_published` gives the project a model of that name, as whose version 1 it is deployed.
"""

from __future__ import annotations

import difflib
from functools import cache

import msgspec

from headrace.catalogue import Entry, entries
from headrace.control.commands.register import register_version
from headrace.control.commands.registry import require_unused
from headrace.control.garden import Located, Wanted
from headrace.resources.errors import InstructOnly, ModelNotFound
from headrace.resources.models import Model, ModelVersion
from headrace.resources.names import Scope, new_id
from headrace.resources.unity_catalog import SYSTEM_CATALOG, SYSTEM_SCHEMA, FullName
from headrace.store import Transaction

VERSION = "1"
"""The only one that each of them has: another checkpoint has another name."""

_LLAMA = "llama"


def name_of(entry: Entry) -> FullName:
    """What an entry of the Garden is called here; dots and hyphens are underscores, as in Databricks' own names."""
    name = entry.version.lower().replace(".", "_").replace("-", "_")
    return FullName(SYSTEM_CATALOG, SYSTEM_SCHEMA, name)


@cache
def published() -> dict[FullName, Entry]:
    """Every entry of the Garden by its name; where two publishers have a version of one name, the first one's."""
    named: dict[FullName, Entry] = {}
    for entry in entries():
        named.setdefault(name_of(entry), entry)
    return dict(sorted(named.items()))


def find_published(name: FullName) -> Entry:
    """The entry of a name. Databricks' own names, which begin with the publisher's, are found, too.

    Raises:
        ModelNotFound: There is none; the nearest are named.
    """
    known = published()
    wanted = FullName(name.catalog, name.schema, name.name.replace("-", "_"))
    entry = known.get(wanted) or known.get(_without_publisher(wanted))
    if entry is not None:
        return entry
    near = difflib.get_close_matches(wanted.name, [each.name for each in known], n=3, cutoff=0.5)
    meant = " or ".join(f"{SYSTEM_CATALOG}.{SYSTEM_SCHEMA}.{each}" for each in near)
    raise ModelNotFound(
        f"Registered model '{name}' does not exist.",
        evidence=f"{SYSTEM_CATALOG}.{SYSTEM_SCHEMA} has the {len(known)} models of the Model Garden.",
        fix=f"Did you mean {meant}?" if meant else "`headrace garden` lists them.",
    )


def require_version(name: FullName, version: str) -> None:
    """Hold that a version is one that such a model has.

    Raises:
        ModelNotFound: It is not.
    """
    if version != VERSION:
        raise ModelNotFound(
            f"Registered model '{name}' has no version {version[:80]!r}.", evidence=f"It has version {VERSION} alone."
        )


def require_instruct(entry: Entry) -> None:
    """Hold Databricks' rule that Llama is served from here as Instruct only.

    Raises:
        InstructOnly: It is a base model; the Instruct one of its size is named, or that there is none.
    """
    if entry.instruct or _LLAMA not in f"{entry.family} {entry.model}" or entry.publisher != "meta":
        return
    instruct = _instruct_of(entry)
    raise InstructOnly(
        f"{entry.display_name} is a base model; Llama models of {SYSTEM_CATALOG}.{SYSTEM_SCHEMA} are deployed as "
        "Instruct only.",
        evidence=f"{name_of(entry)} was not taught to follow instructions.",
        fix=f"Deploy {name_of(instruct)}." if instruct else "The catalogue has no Instruct model of this one.",
    )


def entity_of_garden(name: FullName, version: str = VERSION) -> Wanted:
    """The published model that an entity of ``system.ai`` is, for `headrace.api.garden.locate` or `Garden.locate`.

    Raises:
        ModelNotFound: There is no such model or version.
        InstructOnly: It is a base model of Llama.
    """
    entry = find_published(name)
    require_version(name, version)
    require_instruct(entry)
    return Wanted(catalogue=entry.id)


def published_version(tx: Transaction, scope: Scope, name: FullName, located: Located, *, now: float) -> ModelVersion:
    """The version that a deployment of an entity of ``system.ai`` would have, stored or not; nothing is stored.

    Args:
        tx: An open transaction.
        scope: Where.
        name: The entity's.
        located: Where its weights are now.
        now: Unix seconds.
    """
    full_name = name_of(find_published(name))
    return _version(_stored(tx, scope, full_name)[1], scope, full_name, located, now)


def register_published(
    tx: Transaction, scope: Scope, name: FullName, located: Located, *, now: float
) -> tuple[Model, ModelVersion]:
    """The project's model for an entity of ``system.ai``, and its version, made where they are not there.

    Args:
        tx: An open transaction.
        scope: Where.
        name: The entity's.
        located: Where its weights are now.
        now: Unix seconds.

    Raises:
        StillInUse: Its weights are at another address now, and what is deployed uses the old one.
    """
    full_name = name_of(find_published(name))
    model, stored = _stored(tx, scope, full_name)
    model = model or _new_model(scope, full_name, located, now)
    version = _version(stored, scope, full_name, located, now)
    if stored is None:
        return model, register_version(tx, model, version)
    if version.artifact_uri != stored.artifact_uri:
        require_unused(tx, scope, model.id, version=VERSION, what=f"'{full_name}'")
        version = tx.update(version)
    return model, version


def _stored(tx: Transaction, scope: Scope, name: FullName) -> tuple[Model | None, ModelVersion | None]:
    """The project's model and version of that name, as far as there are any."""
    found = tx.list(Model, scope=scope, display_name=str(name), limit=1)
    if not found:
        return None, None
    return found[0], tx.get(ModelVersion, scope=scope, model_id=found[0].id, version=VERSION)


def _version(stored: ModelVersion | None, scope: Scope, name: FullName, located: Located, now: float) -> ModelVersion:
    """It, with its weights where they are now."""
    if stored is None:
        return ModelVersion(
            scope=scope,
            model_id=str(name),
            version=VERSION,
            artifact_uri=located.address,
            user_id=located.publisher_model,
            created_at=now,
        )
    if stored.artifact_uri == located.address:
        return stored
    return msgspec.structs.replace(stored, artifact_uri=located.address, fingerprint="")


def _new_model(scope: Scope, name: FullName, located: Located, now: float) -> Model:
    return Model(
        scope=scope,
        id=new_id(),
        display_name=str(name),
        description=f"{located.title}, of the Model Garden.",
        created_at=now,
        updated_at=now,
    )


def _without_publisher(name: FullName) -> FullName:
    """``meta_llama_v3_3_70b_instruct`` as ``llama_3_3_70b_instruct``."""
    first, _, rest = name.name.partition("_")
    is_publisher = first in {entry.publisher.partition("-")[0] for entry in entries()}
    return FullName(name.catalog, name.schema, (rest if is_publisher else name.name).replace("_v", "_"))


def _instruct_of(base: Entry) -> Entry | None:
    """The Instruct model of the same size: the same model's with the same number of parameters."""
    alike = (
        each for each in entries() if each.instruct and each.publisher == base.publisher and each.model == base.model
    )
    return next((each for each in alike if each.parameters == base.parameters), None)
