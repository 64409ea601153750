"""Deployments (pools of replicas), their replicas, and the record of every move between states."""

from __future__ import annotations

import msgspec

from headrace.resources.autoscaling import Autoscaling, Scaling
from headrace.resources.errors import Failure
from headrace.resources.names import Scope
from headrace.resources.profiles import Carried
from headrace.resources.states import DeploymentState, ReplicaState

LONGEST_DEADLINE_S = 30 * 86_400.0
"""How long a deployment may be given until it is READY: longer than any model takes to come over a network."""


class MachineSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The machine asked for: all three, or none and the platform picks."""

    machine_type: str = ""
    accelerator_type: str = ""
    accelerator_count: int = 0


class Predicted(msgspec.Struct, frozen=True, kw_only=True):
    """What the plan said of one replica, before it was started; a measurement stands beside each.

    Attributes:
        weights_bytes: The model's parameters in memory.
        cache_bytes: Keys and values of all planned sequences at their full length.
        overhead_bytes: What the runtime's processes hold beside those.
        load_s: From the engine's start until it is ready; 0 where speeds are not predicted, here and below.
        time_to_first_token_s: Of a prompt of a few words on an idle engine.
        tokens_per_s: Tokens written for one sequence alone.
        prompt_tokens_per_s: Tokens read of a prompt that is long enough for arithmetic to be what counts.
        rates: Whose rates of the machine that goes by.
        if_too_small: What to ask for should its machine's memory not do, as a sentence; empty where none was named.
    """

    weights_bytes: int
    cache_bytes: int
    overhead_bytes: int
    load_s: float = 0.0
    time_to_first_token_s: float = 0.0
    tokens_per_s: float = 0.0
    prompt_tokens_per_s: float = 0.0
    rates: str = ""
    if_too_small: str = ""

    def prompt_s(self, prompt_tokens: int) -> float:
        """Until the first token after a prompt of this length: all weights are read once, however short it is."""
        arithmetic_s = prompt_tokens / self.prompt_tokens_per_s if self.prompt_tokens_per_s else 0.0
        return max(self.time_to_first_token_s, arithmetic_s)


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """A pool of replicas of one model version on one machine shape at one scale.

    Attributes:
        min_replicas: The fewest that run while it does not sleep.
        max_replicas: The most; where that is more, `scaling` says how many.
        scale_to_zero_after_s: How long nobody must have asked before it scales to zero; 0: never.
        initial_replicas: How many run at first, and when it wakes from zero, until its work says how many; 0: the
            fewest.
        autoscaling: By what it scales between the two; None: as by default.
        scaling: What was decided of that last; None before.
        runtime: The runtime chosen for it; empty until CHECKING chose. ``external``: none, somebody else's server.
        max_model_len: The context length it serves, in tokens; 0 until CHECKING has chosen.
        memory_bytes: What one replica reserves on its node; 0 until CHECKING has estimated it.
        model_bytes: Size of the artifacts; 0 until CHECKING has read them.
        predicted: What CHECKING predicted of a replica; None until then, and of external servers.
        carried: What one replica of it carries; None until that is known, and where nobody asked.
        failure: Why it is FAILED, or why it is not getting on; None when all is well.
        restarts: Replicas replaced because they failed since the pool was last READY for long.
        deadline_at: When it gives up becoming READY for the first time.
    """

    scope: Scope
    id: str
    model_id: str
    model_version: str
    display_name: str = ""
    machine: MachineSpec = MachineSpec()
    min_replicas: int = 1
    max_replicas: int = 1
    initial_replicas: int = 0
    scale_to_zero_after_s: float = 0.0
    autoscaling: Autoscaling | None = None
    scaling: Scaling | None = None
    runtime: str = ""
    max_model_len: int = 0
    memory_bytes: int = 0
    model_bytes: int = 0
    predicted: Predicted | None = None
    carried: Carried | None = None
    state: DeploymentState = DeploymentState.ACCEPTED
    failure: Failure | None = None
    restarts: int = 0
    deadline_at: float
    created_at: float
    updated_at: float
    resource_version: int = 1

    @property
    def name(self) -> str:
        """Full resource name."""
        return self.scope.name("deployments", self.id)

    @property
    def autoscaled(self) -> bool:
        """Whether the number of its replicas is decided by what they have to do."""
        return self.max_replicas > self.min_replicas

    @property
    def wanted_replicas(self) -> int:
        """How many should run while it does not sleep."""
        first = self.initial_replicas or self.min_replicas
        decided = self.scaling.replicas if self.autoscaled and self.scaling is not None else first
        return min(max(decided, self.min_replicas), self.max_replicas)


class Warmup(msgspec.Struct, frozen=True, kw_only=True):
    """What WARMING measured: a first real generation of a few words, and a second, longer one.

    Of an engine that makes embeddings: the seconds until its first vector, the tokens that it read per second, and no
    output tokens.

    Attributes:
        time_to_first_token_s: Of the first generation.
        tokens_per_s: Of the first generation, after its first token.
        output_tokens: Of the first generation.
        prompt_tokens: Of the second generation's prompt; 0 where there was no second, here and below.
        prompt_s: Until the second one's first token.
        decode_tokens_per_s: Of the second one, after its first token.
        resident_bytes: What the engine's processes held after that; 0 where nobody looked.
    """

    time_to_first_token_s: float
    tokens_per_s: float
    output_tokens: int
    prompt_tokens: int = 0
    prompt_s: float = 0.0
    decode_tokens_per_s: float = 0.0
    resident_bytes: int = 0


class Replica(msgspec.Struct, frozen=True, kw_only=True):
    """One server process of a deployment. ``(id, epoch, nonce)`` is its identity.

    Attributes:
        epoch: Grows with every replacement in its deployment; a lower one is fenced off.
        node_id: The machine that it runs on; empty for an external server, which runs on none of ours.
        gpus: The GPUs of that machine whose memory it reserves and that alone its engine sees, by NVML's identity.
        machine_bytes: What it reserves of the machine's own memory; of one that computes on GPUs, to sleep in.
        nonce: The key that its engine wants; known to gateway and node only. Of an external server, its key.
        address: Where its engine listens, e.g. ``unix:/…/engine.sock``; empty until it does. Of an external server, its
            base URL.
        failure: Why it failed; on a live one, that its engine does not answer its health check just now.
        log_tail: Last lines of the engine's output, kept when it died.
        exit_status: The engine's exit status (negative: the signal), None while it runs or when unknown.
    """

    scope: Scope
    id: str
    deployment_id: str
    node_id: str
    gpus: tuple[str, ...] = ()
    machine_bytes: int = 0
    epoch: int
    nonce: str
    state: ReplicaState = ReplicaState.PLACED
    address: str = ""
    pid: int = 0
    resident_bytes: int = 0
    warmup: Warmup | None = None
    failure: Failure | None = None
    exit_status: int | None = None
    log_tail: tuple[str, ...] = ()
    created_at: float
    updated_at: float
    resource_version: int = 1


class Transition(msgspec.Struct, frozen=True, kw_only=True):
    """One move of one resource, as stored for the timeline.

    Attributes:
        kind: ``deployment``, ``replica``, ``operation`` or ``rollout``.
        detail: A sentence for a person: what was decided, measured or found.
    """

    kind: str
    resource_id: str
    state: str
    at: float
    detail: str = ""
    failure: Failure | None = None
