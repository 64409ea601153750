"""The pages of the error codes: what `headrace explain` prints."""

from importlib.resources import files

import pytest

from headrace.resources.errors import CODES, UnknownErrorCode, page, page_url

PINNED = (
    "INSTRUCT_ONLY",
    "FLAVOUR_NOT_SUPPORTED",
    "VERSION_NOT_READY",
    "UPLOAD_NOT_FOUND",
    "NAMESPACE_NOT_FOUND",
    "ANSWER_NOT_STREAMED",
    "ARCHITECTURE_UNKNOWN",
    "ARCHITECTURE_UNSUPPORTED",
    "ARTIFACTS_CHANGED",
    "ARTIFACTS_CORRUPT",
    "ARTIFACTS_NOT_FOUND",
    "ARTIFACTS_REFUSED",
    "BAD_FIELD",
    "BAD_JSON",
    "BAD_NAME",
    "BAD_TOKEN",
    "BODY_TOO_LARGE",
    "CALIBRATION_FAILED",
    "CANARY_LOST",
    "CANARY_OUT_OF_BOUNDS",
    "CANCELLED",
    "CHAT_TEMPLATE_INVALID",
    "CHAT_TEMPLATE_LIMITED",
    "CHAT_TEMPLATE_MISSING",
    "CLIENT_TIMEOUT",
    "CONFIG_INVALID",
    "CONFIG_MISSING",
    "CONTROL_PLANE_DOWN",
    "CONVERSION_FAILED",
    "CUSTOM_CODE_ALLOWED",
    "CUSTOM_CODE_IGNORED",
    "CUSTOM_CODE_MISSING",
    "DATABASE_AWAY",
    "DATABASE_CORRUPT",
    "DATA_DIR_IN_USE",
    "DATA_DIR_UNUSABLE",
    "CREDENTIALS_NOT_FOUND",
    "DEPLOYMENT_NOT_FOUND",
    "DEPLOY_TIMEOUT",
    "DESTINATION_NOT_EMPTY",
    "DISK_FULL",
    "DOES_NOT_FIT",
    "DRAINING",
    "DTYPE_MISMATCH",
    "DTYPE_MIXED",
    "ENDPOINT_NOT_FOUND",
    "ENDPOINT_LIMIT_REACHED",
    "ENDPOINT_LIMIT_TOO_SMALL",
    "ENGINE_BAD_TENSOR",
    "ENGINE_BROKE_OFF",
    "ENGINE_CONTEXT_TOO_LONG",
    "ENGINE_DIED",
    "ENGINE_FAILED",
    "ENGINE_KV_CACHE_TOO_SMALL",
    "ENGINE_OUT_OF_MEMORY",
    "ENGINE_REFUSED",
    "ENGINE_SHARED_MEMORY",
    "ENGINE_SLEEP_FAILED",
    "ENGINE_SOCKET_TAKEN",
    "ENGINE_STALLED",
    "ENGINE_START_TIMEOUT",
    "ENGINE_TIMEOUT",
    "ENGINE_UNREACHABLE",
    "ENGINE_UNSUPPORTED_ARCHITECTURE",
    "ENGINE_WARMUP_FAILED",
    "EXTERNAL_ADDRESS_FORBIDDEN",
    "EXTERNAL_MODEL_MISSING",
    "EXTERNAL_NOT_OPENAI",
    "EXTERNAL_REFUSED",
    "EXTERNAL_TLS_INVALID",
    "EXTERNAL_UNREACHABLE",
    "HEADERS_TOO_LARGE",
    "ILLEGAL_MOVE",
    "INDEX_MISSING",
    "INTERNAL",
    "KEY_LIMIT_REACHED",
    "KEY_LIMIT_TOO_SMALL",
    "KEY_NOT_FOUND",
    "LAYERS_UNEXPECTED",
    "LICENCE_NOT_ACCEPTED",
    "MACHINE_GAPS",
    "MACHINE_SPEC_INCOMPLETE",
    "MALFORMED_REQUEST",
    "METHOD_NOT_ALLOWED",
    "MODEL_NOT_FOUND",
    "NAME_AMBIGUOUS",
    "NAME_TAKEN",
    "NATIVE_QUANTISATION",
    "NOTHING_TO_CONVERT",
    "NOT_CERTIFIED",
    "NOT_LOGGED_IN",
    "NOT_ON_ACCESS_LIST",
    "NOT_OPTIMIZABLE",
    "NOT_READY",
    "NOT_SUPPORTED",
    "NO_CAPACITY",
    "NO_KEY",
    "NO_NODE",
    "OPERATION_NOT_FOUND",
    "OUTPUT_HEAD_IGNORED",
    "OUTPUT_HEAD_MISSING",
    "PICKLE_UNSAFE",
    "PORT_TAKEN",
    "PROFILE_NOT_FOUND",
    "PROFILE_TOO_SMALL",
    "QUEUE_FULL",
    "QUEUE_TIMEOUT",
    "QUOTA_EXCEEDED",
    "REPLICA_NOT_FOUND",
    "REQUEST_TOO_SLOW",
    "ROLE_MISSING",
    "ROLLOUT_NOT_FOUND",
    "ROLLOUT_REFUSED",
    "ROLLOUT_RUNNING",
    "RUNTIME_INSTALL_FAILED",
    "RUNTIME_UNKNOWN",
    "RUNTIME_UNSUITABLE",
    "SCHEME_NOT_SUPPORTED",
    "SERVER_START_FAILED",
    "SERVER_UNREACHABLE",
    "SHAPE_MISMATCH",
    "SPECIAL_TOKENS_OUTSIDE",
    "STALE_WRITE",
    "STILL_IN_USE",
    "TENSORS_DUPLICATED",
    "TENSORS_MISSING",
    "TENSORS_UNINDEXED",
    "TENSORS_UNRECOGNISED",
    "TENSOR_NOT_FINITE",
    "THROUGHPUT_TOO_HIGH",
    "THROUGHPUT_EXCEEDED",
    "TIME_SERIES_CONFIG",
    "TLS_AUTHORITY_NOT_FOUND",
    "TLS_CERTIFICATE_INVALID",
    "TLS_EXPECTED",
    "TOKEN_EXPIRED",
    "TOKENIZER_INVALID",
    "TOKENIZER_MISMATCH",
    "TOKENIZER_MISSING",
    "TOO_MANY_CONNECTIONS",
    "UNKNOWN_ERROR_CODE",
    "UNKNOWN_KEY",
    "UNKNOWN_PATH",
    "UPDATE_RUNNING",
    "WAIT_TIMEOUT",
    "WEIGHTS_CORRUPT",
    "WEIGHTS_FORMAT",
    "WEIGHTS_MISSING",
    "WEIGHTS_PICKLED",
    "WEIGHTS_QUANTISED",
    "WEIGHTS_TRUNCATED",
)
"""Every code that was ever published. One may be added; none may vanish, for scripts rely on it."""

PAGES = {entry.name.removesuffix(".md") for entry in files("headrace.resources").joinpath("pages").iterdir()}


def test_no_code_vanishes():
    """A code that was published stays."""
    assert set(PINNED) <= set(CODES)


def test_new_codes_are_pinned():
    """A new code is added to the list above, on purpose."""
    assert set(CODES) == set(PINNED)


def test_each_code_has_a_page_and_each_page_a_code():
    """`headrace explain CODE` works for each code, and no page is left over from a code that is gone."""
    assert set(CODES) == PAGES


@pytest.mark.parametrize("code", PINNED)
def test_a_page_says_what_to_do(code):
    """A page begins with its code, and says what it means, how it shows, and what to do, with something in each."""
    text = page(code)
    assert text.splitlines()[0] == f"# {code}"
    sections = {part.splitlines()[0]: part.partition("\n")[2].strip() for part in text.split("\n## ")[1:]}
    for heading in ("What it means", "How it shows", "What to do"):
        assert sections.get(heading), f"{code} lacks the section {heading!r}"
    assert max(len(line) for line in text.splitlines()) <= 120


@pytest.mark.parametrize("code", PINNED)
def test_commands_on_a_page_exist(code):
    """A page names no `headrace` command that does not exist."""
    import re

    from headrace.cli.app import app

    commands = {command.name for command in app.registered_commands} | {group.name for group in app.registered_groups}
    named = set(re.findall(r"(?:`|    )headrace ([a-z]+)", page(code)))
    assert named <= commands


@pytest.mark.parametrize("code", PINNED)
def test_a_pages_address_leads_to_its_file(code):
    """What errors link to is where the page lies in the repository that the documentation is in."""
    import tomllib
    from pathlib import Path

    root = Path(__file__).parents[2]
    home = tomllib.loads((root / "pyproject.toml").read_text())["project"]["urls"]["Documentation"]
    base, _, branch = home.removesuffix("/docs").partition("/tree/")
    assert (root / page_url(code).removeprefix(f"{base}/blob/{branch}/")).read_text() == page(code)


def test_an_unknown_code_has_no_page():
    """Asking for a code that does not exist is an error of its own."""
    with pytest.raises(UnknownErrorCode):
        page("NO_SUCH_CODE")
