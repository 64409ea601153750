"""What an endpoint is to serve, as Databricks says it: entities at a scale, and each one's share of the requests.

Nothing here looks at rows: whether the entity is there, and what its chunk is, control finds out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from headrace.resources.errors import BadField

UNITS_OF_A_CHUNK = 50
"""Databricks sells model units in fifties, and so do we: fifty are one chunk of throughput, a quarter of a replica."""

WORKLOADS: Mapping[str, tuple[int, int]] = {"Small": (4, 4), "Medium": (8, 16), "Large": (16, 64)}
"""Requests at a time, at least and at most, by ``workload_size``, as Databricks documents them (its Small begins at 0,
where it scales to zero)."""

CONCURRENCY_OF_A_REPLICA = 4
"""Databricks counts provisioned concurrency in fours; here each four are a replica."""

MOST_ENTITIES = 15
"""On one endpoint, as Databricks allows them."""

MOST_TAGS = 64
MOST_TAG_CHARACTERS = 256
"""Of a key or a value."""

WHOLE = 100

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")
_SERVED_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_TYPES = re.compile(r"(CPU|GPU|MULTIGPU)(_[A-Z0-9]+){0,3}")


class ServedEntity(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One entity, at its scale. What was not said is None, and stays out of answers.

    Attributes:
        name: Of the served entity, unique on its endpoint.
        entity_name: Of the model: ``catalog.schema.model``, or a plain name.
        entity_version: Its number, or an alias; empty: the newest.
        provisioned_model_units: In fifties, see `UNITS_OF_A_CHUNK`.
    """

    name: str = ""
    entity_name: str
    entity_version: str = ""
    min_provisioned_throughput: int | None = None
    max_provisioned_throughput: int | None = None
    provisioned_model_units: int | None = None
    burst_scaling_enabled: bool | None = None
    workload_size: str | None = None
    workload_type: str | None = None
    scale_to_zero_enabled: bool | None = None
    min_provisioned_concurrency: int | None = None
    max_provisioned_concurrency: int | None = None

    @property
    def provisioned(self) -> bool:
        """Whether a throughput is bought of it."""
        bought = (self.min_provisioned_throughput, self.max_provisioned_throughput, self.provisioned_model_units)
        return any(one is not None for one in bought)

    @property
    def replicas(self) -> tuple[int, int]:
        """The fewest and the most, where no throughput is bought."""
        least, most = WORKLOADS[self.workload_size or "Small"]
        if self.min_provisioned_concurrency is not None or self.max_provisioned_concurrency is not None:
            most = self.max_provisioned_concurrency or self.min_provisioned_concurrency or 0
            least = self.min_provisioned_concurrency or CONCURRENCY_OF_A_REPLICA
        return least // CONCURRENCY_OF_A_REPLICA, most // CONCURRENCY_OF_A_REPLICA


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """What an endpoint serves.

    Attributes:
        entities: Each with a name.
        routes: Percents of the requests by those names.
    """

    entities: tuple[ServedEntity, ...]
    routes: dict[str, int]


def check_endpoint_name(name: str) -> str:
    """The name of an endpoint, if it is one.

    Raises:
        BadField: It is none.
    """
    if not _NAME.fullmatch(name) or name == "pt":  # which is a path
        raise BadField(
            f"{name[:80]!r} is no name of an endpoint.",
            evidence="It has 1 to 63 letters, digits, hyphens and underscores, begins and ends with one of the first "
            "two, and is not pt.",
            fix="Choose another.",
        )
    return name


def check_tags(tags: Sequence[Mapping[str, str]]) -> None:
    """Hold that an endpoint can have these.

    Raises:
        BadField: They are too many, or one has no key, is too long, cannot be shown, or is there twice.
    """
    if len(tags) > MOST_TAGS:
        raise BadField(
            "There are too many tags.",
            evidence=f"There are {len(tags)}; {MOST_TAGS} are allowed.",
            fix=f"Leave out {len(tags) - MOST_TAGS} of them.",
        )
    for tag in tags:
        for what, text in tag.items():
            if len(text) > MOST_TAG_CHARACTERS or not text.isprintable() or (what == "key" and not text.strip()):
                raise BadField(
                    f"A tag's {what} cannot be this.",
                    evidence=f"It is {text[:80]!a}.",
                    fix=f"It has up to {MOST_TAG_CHARACTERS} characters that can be shown; a key at least one.",
                )
    for key, times in Counter(tag["key"] for tag in tags).items():
        if times > 1:
            raise BadField(
                "Two tags have one key.", evidence=f"It is {key[:80]!r}.", fix="Give each key once, with one value."
            )


def config_of(entities: Sequence[ServedEntity], routes: Mapping[str, int] | None) -> Config:
    """What was asked for, with a name for each entity, once it is held that it can be.

    Args:
        entities: As they were sent.
        routes: Percents by name; None: all to the only entity there is.

    Raises:
        BadField: One of it cannot be.
    """
    if len(entities) > MOST_ENTITIES:
        raise BadField(
            "An endpoint serves too many entities.",
            evidence=f"{len(entities)}; {MOST_ENTITIES} are allowed.",
            fix="Serve the others by an endpoint of their own.",
        )
    for entity in entities:
        _check(entity)
    named = [msgspec.structs.replace(one, name=one.name or _name_for(one)) for one in entities]
    for name, times in Counter(one.name for one in named).items():
        if times > 1:
            raise BadField(
                f"Two served entities are called {name!r}.",
                evidence="Without a name of its own one is called by its model and version.",
                fix="Give each a `name`.",
            )
    return Config(entities=tuple(named), routes=_shares([one.name for one in named], routes))


def _name_for(entity: ServedEntity) -> str:
    short = entity.entity_name.rpartition(".")[2]
    clean = re.sub(r"[^A-Za-z0-9_-]", "-", short).strip("-_") or "entity"
    return f"{clean[:100]}-{entity.entity_version or 'newest'}"


def _shares(names: Sequence[str], routes: Mapping[str, int] | None) -> dict[str, int]:
    if routes is None:
        if len(names) > 1:
            raise BadField(
                "Several entities are to be served, and nothing says how requests are shared out.",
                evidence=f"They are {', '.join(names)}.",
                fix="Give config.traffic_config.routes: a served_entity_name and a traffic_percentage each.",
            )
        return {names[0]: WHOLE}
    strangers = sorted(set(routes) - set(names))
    if strangers:
        raise BadField(
            "traffic_config has a route to what is not served.",
            evidence=f"It is {strangers[0][:80]!r}; served are {', '.join(names)}.",
            fix="Name served entities by their `name`.",
        )
    if any(share < 0 for share in routes.values()) or sum(routes.values()) != WHOLE:
        raise BadField(
            "The percentages of traffic_config are from 0 to 100 and add up to 100.",
            evidence=f"They are {', '.join(str(share) for share in routes.values())}: {sum(routes.values())} in all.",
            fix="Share 100 out over the routes.",
        )
    return {name: routes.get(name, 0) for name in names}


def _check(entity: ServedEntity) -> None:
    if not entity.entity_name.strip():
        raise BadField(
            "A served entity names its model.", fix="Give entity_name, e.g. main.default.model, and entity_version."
        )
    if entity.name and not _SERVED_NAME.fullmatch(entity.name):
        raise BadField(
            f"{entity.name[:80]!r} is no name of a served entity.",
            evidence="It has 1 to 128 letters, digits, dots, hyphens and underscores, and begins with a letter or "
            "digit.",
            fix="Choose another, or leave it out: one is made of the model's name and version.",
        )
    if entity.workload_type is not None and not _TYPES.fullmatch(entity.workload_type):
        raise BadField(
            f"{entity.workload_type[:40]!r} is no workload_type.", fix="It is CPU, GPU_SMALL, GPU_MEDIUM, or the like."
        )
    if entity.workload_size is not None and entity.workload_size not in WORKLOADS:
        raise BadField(
            f"{entity.workload_size[:40]!r} is no workload_size.",
            fix=f"It is one of {', '.join(WORKLOADS)}, or min_ and max_provisioned_concurrency are given.",
        )
    if entity.provisioned:
        _check_throughput(entity)
    else:
        _check_workload(entity)


def _check_throughput(entity: ServedEntity) -> None:
    units = entity.provisioned_model_units
    if units is None:
        return
    if entity.min_provisioned_throughput is not None or entity.max_provisioned_throughput is not None:
        raise BadField(
            "A throughput is bought in tokens a second or in model units.",
            evidence="Both are given.",
            fix="Leave out provisioned_model_units, or the two throughputs.",
        )
    if units <= 0 or units % UNITS_OF_A_CHUNK:
        below = max(units // UNITS_OF_A_CHUNK, 0) * UNITS_OF_A_CHUNK
        near = [one for one in (below, below + UNITS_OF_A_CHUNK) if one > 0]
        raise BadField(
            f"{units:,} model units cannot be bought.",
            evidence=f"They come in increments of {UNITS_OF_A_CHUNK}.",
            fix=f"Ask for {' or '.join(f'{one:,}' for one in near)}.",
        )


def _check_workload(entity: ServedEntity) -> None:
    least, most = entity.min_provisioned_concurrency, entity.max_provisioned_concurrency
    for what, value in (("min_provisioned_concurrency", least), ("max_provisioned_concurrency", most)):
        if value is not None and (value < 0 or value % CONCURRENCY_OF_A_REPLICA):
            raise BadField(
                f"{what} is a multiple of {CONCURRENCY_OF_A_REPLICA}.",
                evidence=f"It is {value}.",
                fix=f"Ask for {max(value // CONCURRENCY_OF_A_REPLICA, 0) * CONCURRENCY_OF_A_REPLICA} or "
                f"{(max(value // CONCURRENCY_OF_A_REPLICA, 0) + 1) * CONCURRENCY_OF_A_REPLICA}.",
            )
    if most == 0 or (least or 0) > (most if most is not None else least or 0):
        raise BadField(
            "max_provisioned_concurrency is above 0 and no less than min_provisioned_concurrency.",
            evidence=f"From {least} to {most} were asked for.",
            fix=f"Ask for {max(least or 0, CONCURRENCY_OF_A_REPLICA)} or more at most.",
        )
