"""From a checked request to sequences that run: budgets, limits and seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from headrace_engines.serving.detokenise import remembering
from headrace_engines.serving.engine import Engine
from headrace_engines.serving.errors import BadRequest, ContextOverflow, api_error_from
from headrace_engines.serving.generator import GenerationFailed, GenerationRequest, Grammar, QueueFull, Sampling
from headrace_engines.serving.logprobs import TokenLog
from headrace_engines.serving.metrics import RequestMeter
from headrace_engines.serving.parameters import ChatParameters, CompletionParameters
from headrace_engines.serving.sequences import RunningSequence, Sequences
from headrace_engines.serving.text import StopRule, TextReader


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """What to generate.

    Attributes:
        prompts: Token ids of each; every prompt gets as many sequences as the request's `n`.
        prompt_param: The parameter that they came from.
        default_max_tokens: The budget where the request has none; cut to what the context leaves.
        grammar: What every text has to match.
        grammar_param: The parameter that says so.
        keep_special_tokens: Show special tokens as text.
        arrived_s: When the request came, on the monotonic clock.
    """

    prompts: Sequence[list[int]]
    prompt_param: str
    default_max_tokens: int | None
    grammar: Grammar | None
    grammar_param: str | None
    keep_special_tokens: bool
    arrived_s: float


def submit(engine: Engine, parameters: CompletionParameters | ChatParameters, wanted: Submission) -> Sequences:
    """Check budgets and queue the sequences. From here on they must be read or cancelled.

    Raises:
        ApiError: A budget is exceeded, a token does not exist, or the engine takes no more.
    """
    generator, limits = engine.generator, engine.generator.limits
    _check_token_ids(parameters, limits.vocab_size)
    require_places(engine, parameters, prompts=len(wanted.prompts), prompt_param=wanted.prompt_param)
    requests = [
        _request(engine, parameters, wanted, prompt_ids, sample)
        for prompt_ids in wanted.prompts
        for sample in range(parameters.n or 1)
    ]
    running: list[RunningSequence] = []
    reader_of = _readers(engine, parameters, wanted)
    try:
        for number, request in enumerate(requests):
            generation = generator.submit(request)
            meter = RequestMeter(
                engine.metrics,
                arrived_s=wanted.arrived_s,
                prompt_tokens=len(request.prompt_ids),
                computes_prompt=number % (parameters.n or 1) == 0,
            )
            running.append(RunningSequence(generation, reader_of(request), meter))
    except BaseException as error:
        Sequences(running).cancel()  # whatever went wrong: nobody will read them
        if isinstance(error, QueueFull | GenerationFailed):
            raise api_error_from(error, grammar_param=wanted.grammar_param) from error
        raise
    return Sequences(running)


def require_places(
    engine: Engine, parameters: CompletionParameters | ChatParameters, *, prompts: int, prompt_param: str
) -> None:
    """Refuse more sequences than the engine ever takes at once; to be asked before so many prompts are tokenised.

    Raises:
        BadRequest: It names `n` or the prompts' parameter.
    """
    limits = engine.generator.limits
    sequences, places = prompts * (parameters.n or 1), limits.max_running + limits.max_waiting
    if sequences > places:
        raise BadRequest(
            f"The request asks for {sequences} sequences; the engine takes {places} at once.",
            param="n" if (parameters.n or 1) > 1 else prompt_param,
            code="invalid_value",
        )


def _request(
    engine: Engine,
    parameters: CompletionParameters | ChatParameters,
    wanted: Submission,
    prompt_ids: list[int],
    sample: int,
) -> GenerationRequest:
    return GenerationRequest(
        prompt_ids=prompt_ids,
        max_tokens=budget(
            engine, parameters, prompt_ids, prompt_param=wanted.prompt_param, default=wanted.default_max_tokens
        ),
        min_tokens=parameters.min_tokens or 0,
        ignore_eos=bool(parameters.ignore_eos),
        sampling=_seeded(parameters.sampling(engine.served.sampling), sample),
        stop_token_ids=frozenset(parameters.stop_token_ids or ()),
        top_logprobs=parameters.top_logprobs,
        grammar=wanted.grammar,
    )


def _seeded(sampling: Sampling, sample: int) -> Sampling:
    """The sampling of one of `n` sequences: seed, seed + 1, and so on, as vLLM has it; within 64 bits."""
    if sampling.seed is None or sample == 0:
        return sampling
    seed = (sampling.seed + sample + 2**63) % 2**64 - 2**63
    return msgspec.structs.replace(sampling, seed=seed)


def budget(
    engine: Engine,
    parameters: CompletionParameters | ChatParameters,
    prompt_ids: list[int],
    *,
    prompt_param: str,
    default: int | None,
) -> int:
    """Tokens to generate at most after a prompt.

    Raises:
        BadRequest: There is no prompt, it does not fit the context with what was asked for, or `min_tokens` is more.
    """
    max_model_len = engine.generator.limits.max_model_len
    if not prompt_ids:
        raise BadRequest(f"`{prompt_param}` holds no tokens.", param=prompt_param, code="invalid_value")
    rest = max(1, max_model_len - len(prompt_ids))
    max_tokens = parameters.max_tokens or min(rest, default or rest)
    if (parameters.min_tokens or 0) > max_tokens:
        raise BadRequest(
            f"`min_tokens` is {parameters.min_tokens}, more than the {max_tokens} tokens allowed.",
            param="min_tokens",
            code="invalid_value",
        )
    if len(prompt_ids) + max_tokens > max_model_len:
        raise ContextOverflow(
            prompt_tokens=len(prompt_ids),
            max_tokens=max_tokens,
            max_model_len=max_model_len,
            param=prompt_param if parameters.max_tokens is None else parameters.max_tokens_param,
        )
    return max_tokens


def _check_token_ids(parameters: CompletionParameters | ChatParameters, vocab_size: int) -> None:
    for param in ("logit_bias", "stop_token_ids"):
        for token_id in getattr(parameters, param) or ():
            if not 0 <= token_id < vocab_size:
                raise BadRequest(
                    f"`{param}` names token {token_id}; this model has tokens 0 to {vocab_size - 1}.",
                    param=param,
                    code="invalid_value",
                )


def _readers(
    engine: Engine, parameters: CompletionParameters | ChatParameters, wanted: Submission
) -> Callable[[GenerationRequest], TextReader]:
    decode = engine.decode
    if wanted.keep_special_tokens:
        decode = remembering(partial(engine.served.codec.decode, skip_special_tokens=False))
    stop = StopRule(
        strings=parameters.stops,
        include=bool(parameters.include_stop_str_in_output),
        min_tokens=parameters.min_tokens or 0,
    )
    top = parameters.top_logprobs

    def reader_of(request: GenerationRequest) -> TextReader:
        log = None if top is None else TokenLog(engine.token_text, top)
        context = request.prompt_ids if engine.served.continues else ()
        return TextReader(decode, prompt_ids=context, stop=stop, log=log)

    return reader_of
