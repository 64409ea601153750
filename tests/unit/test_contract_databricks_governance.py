"""Bodies of what stands around an endpoint: tags, rate limits, AI gateway, access lists."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts.databricks.ai_gateway import AiGatewayBody, ai_gateway_json, check_ai_gateway
from headrace.contracts.databricks.inference_tables import (
    InferenceTableConfig,
    client_request_id,
    inference_table,
    logging_error_codes,
)
from headrace.contracts.databricks.kept import kept_of, with_kept
from headrace.contracts.databricks.permissions import PermissionsBody, check_entries, granted_in, permissions_json
from headrace.contracts.databricks.rate_limits import (
    RateLimit,
    RateLimitsBody,
    check_rate_limits,
    endpoint_limits,
    rate_limits_in,
    rate_limits_json,
)
from headrace.contracts.databricks.reading import read_message
from headrace.contracts.databricks.tags import MOST_TAGS, Tag, TagsPatch, patched, tags_in, tags_json
from headrace.resources.errors import BadField, BadJson, HeadraceError, NotSupported
from headrace.resources.limits import KeyLimits

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
LIMIT = st.fixed_dictionaries(
    {"renewal_period": st.just("minute") | JSON},
    optional={
        "calls": st.integers(-1, 2**70) | JSON,
        "tokens": st.integers(-1, 2**70) | JSON,
        "key": st.sampled_from(["user", "endpoint", "user_group", "service_principal"]) | JSON,
        "principal": st.text(max_size=8) | JSON,
    },
)
GOOD = st.builds(
    RateLimit,
    renewal_period=st.just("minute"),
    key=st.sampled_from([None, "endpoint", "user"]),
    calls=st.integers(0, 100),
    tokens=st.none() | st.integers(0, 100),
)


@given(body=st.fixed_dictionaries({}, optional={"rate_limits": st.lists(LIMIT, max_size=4) | JSON}) | JSON)
def test_any_body_of_rate_limits_is_read_or_refused_by_us(body: Any) -> None:
    """Whatever comes is limits that can be held, or an error of ours with its code."""
    try:
        limits = read_message(msgspec.json.encode(body), RateLimitsBody).rate_limits or ()
        check_rate_limits(limits)
    except (BadField, BadJson, NotSupported):
        return
    assert all(limit.calls is not None or limit.tokens is not None for limit in limits)
    assert rate_limits_in(rate_limits_json(limits)) == list(limits)


@given(limits=st.lists(GOOD, max_size=5))
def test_the_least_of_several_limits_holds(limits: list[RateLimit]) -> None:
    """Of limits that count the same, from wherever they come, the gateway holds the least."""
    found = endpoint_limits(limits, lambda _: ())
    for kind, field in (("endpoint", "all_keys"), ("user", "each_key")):
        of_kind = [limit for limit in limits if limit.counts == kind]
        held = KeyLimits() if found is None else getattr(found, field)
        assert held.requests_per_minute == min((limit.calls for limit in of_kind), default=None)
        tokens = [limit.tokens for limit in of_kind if limit.tokens is not None]
        assert held.tokens_per_minute == min(tokens, default=None)


def test_a_principals_limit_takes_the_place_of_that_of_each_user() -> None:
    """A key with a limit of its own is under that one, be it higher."""
    limits = [
        RateLimit(renewal_period="minute", key="user", calls=5),
        RateLimit(renewal_period="minute", key="user", calls=50, principal="anna"),
        RateLimit(renewal_period="minute", key="service_principal", tokens=7, principal="robot"),
    ]
    found = endpoint_limits(limits, lambda limit: {"anna": ["1", "2"], "robot": ["3"]}[limit.principal or ""])
    assert found is not None
    assert [found.of_key(key_id).requests_per_minute for key_id in "1234"] == [50, 50, None, 5]
    assert found.of_key("3").tokens_per_minute == 7


@pytest.mark.parametrize(
    ("limit", "error", "says"),
    [
        ({"calls": 5}, BadField, "renewal_period"),
        ({"calls": 5, "renewal_period": "hour"}, BadField, "hour"),
        ({"renewal_period": "minute"}, BadField, "says nothing"),
        ({"calls": -1, "renewal_period": "minute"}, BadField, "from 0"),
        ({"calls": 10**16, "renewal_period": "minute"}, BadField, "from 0"),
        ({"calls": "5", "renewal_period": "minute"}, BadField, "calls"),
        ({"calls": 5, "renewal_period": "minute", "key": "user_group", "principal": "g"}, NotSupported, "user_group"),
        ({"calls": 5, "renewal_period": "minute", "key": "service_principal"}, BadField, "needs a principal"),
        ({"calls": 5, "renewal_period": "minute", "key": "endpoint", "principal": "x"}, BadField, "no principal"),
        ({"calls": 5, "renewal_period": "minute", "burst": 2}, BadField, "burst"),
    ],
)
def test_a_wrong_limit_is_refused_with_what_is_wrong(
    limit: dict[str, Any], error: type[HeadraceError], says: str
) -> None:
    """The field or the value is named."""
    with pytest.raises(error, match=says):
        check_rate_limits(read_message(msgspec.json.encode({"rate_limits": [limit]}), RateLimitsBody).rate_limits or ())


def test_two_limits_that_say_the_same_are_refused() -> None:
    """But calls and tokens of one key may stand in two."""
    calls, tokens = (RateLimit(renewal_period="minute", key="user", **{unit: 5}) for unit in ("calls", "tokens"))
    check_rate_limits([calls, tokens])
    with pytest.raises(BadField, match="Two rate limits say calls"):
        check_rate_limits([calls, tokens, calls])
    with pytest.raises(BadField, match="too many"):
        check_rate_limits([calls] * 21)


KEYS = st.sampled_from(["a", "b", "c", "d"])
TAGS = st.lists(st.builds(Tag, key=KEYS, value=st.sampled_from(["", "1", "2"])), max_size=4)


@given(tags=TAGS, added=TAGS, deleted=st.lists(KEYS, max_size=4))
def test_tags_are_what_was_there_and_what_changed(tags: list[Tag], added: list[Tag], deleted: list[str]) -> None:
    """Each key once, with its newest value; what contradicts itself changes nothing."""
    there = list({tag.key: tag for tag in tags}.values())
    try:
        result = patched(there, TagsPatch(add_tags=tuple(added), delete_tags=tuple(deleted)))
    except BadField:
        twice = len({tag.key for tag in added}) < len(added) or len(set(deleted)) < len(deleted)
        assert twice or {tag.key for tag in added} & set(deleted)
        return
    wanted = {tag.key: tag.value for tag in there if tag.key not in deleted} | {tag.key: tag.value for tag in added}
    assert {tag.key: tag.value for tag in result} == wanted
    assert tags_in(tags_json(result)) == result


@pytest.mark.parametrize(
    "tags",
    [
        [Tag(key="")],
        [Tag(key="  ")],
        [Tag(key="k" * 257)],
        [Tag(key="k", value="v" * 257)],
        [Tag(key="a\nb")],
        [Tag(key=str(number)) for number in range(MOST_TAGS + 1)],
    ],
)
def test_tags_that_cannot_be(tags: list[Tag]) -> None:
    """An empty key, one that is too long or has a break, too many."""
    with pytest.raises(BadField):
        patched([], TagsPatch(add_tags=tuple(tags)))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"guardrails": {"input": {"safety": True}}}, "guardrails"),
        ({"fallback_config": {"enabled": True}}, "fallback_config"),
        ({"rate_limits": [{"calls": 1, "renewal_period": "minute", "key": "user_group"}]}, "user_group"),
    ],
)
def test_what_no_gateway_here_does_is_refused_by_name(body: dict[str, Any], says: str) -> None:
    """NOT_SUPPORTED, with the field."""
    with pytest.raises(NotSupported, match=says):
        check_ai_gateway(read_message(msgspec.json.encode(body), AiGatewayBody), "e")


def test_an_ai_gateway_that_says_nothing_more_is_taken() -> None:
    """Empty guardrails and a fallback that is off are as good as none; the answer is what was said."""
    body = {
        "guardrails": {"input": {}, "output": None},
        "fallback_config": {"enabled": False},
        "usage_tracking_config": {"enabled": True},
        "rate_limits": [{"calls": 5, "renewal_period": "minute", "tokens": 100}],
        "inference_table_config": {"enabled": True, "catalog_name": "main", "schema_name": "logs"},
    }
    read = read_message(msgspec.json.encode(body), AiGatewayBody)
    check_ai_gateway(read, "e")
    said = ("usage_tracking_config", "rate_limits", "inference_table_config")
    assert ai_gateway_json(read) == {name: body[name] for name in said}


@pytest.mark.parametrize("name", ["", "..", "a/b", "a.b", "-a", "a" * 128, "ä b"])
def test_names_of_tables_are_names_of_folders(name: str) -> None:
    """Nothing leads out of where tables are."""
    for field in ("catalog_name", "schema_name", "table_name_prefix"):
        if field == "table_name_prefix" and not name:
            continue
        names: dict[str, str] = {"catalog_name": "c", "schema_name": "s", "table_name_prefix": "t", field: name}
        with pytest.raises(BadField, match=field):
            inference_table(InferenceTableConfig(enabled=True, **names), "e")


def test_a_table_is_named_for_its_endpoint() -> None:
    """Where nothing else is said; whatever the endpoint is called."""
    config = InferenceTableConfig(enabled=True, catalog_name="main", schema_name="logs")
    assert inference_table(config, "my endpoint/1").full_name == "main.logs.my_endpoint_1_payload"


def test_what_a_row_could_not_hold_is_a_code() -> None:
    """The vendor's codes for what is too large."""
    assert logging_error_codes("request too large; response cut") == [
        "MAX_REQUEST_SIZE_EXCEEDED",
        "MAX_RESPONSE_SIZE_EXCEEDED",
    ]
    assert logging_error_codes("") == []
    assert logging_error_codes("request is not JSON that can be read") == ["UNREADABLE_PAYLOAD"]


def test_the_callers_name_of_a_request() -> None:
    """It is in the body, or nowhere."""
    assert client_request_id(b'{"client_request_id": "mine", "messages": []}') == "mine"
    assert client_request_id(b'{"messages": [{"content": "\\"client_request_id\\""}]}') is None
    assert client_request_id(b'"client_request_id"') is None
    assert client_request_id(None) is None


@pytest.mark.parametrize(
    ("entries", "error"),
    [
        ([{"permission_level": "CAN_QUERY", "group_name": "users"}], NotSupported),
        ([{"permission_level": "CAN_QUERY"}], BadField),
        ([{"permission_level": "CAN_QUERY", "user_name": "a", "service_principal_name": "b"}], BadField),
        ([{"permission_level": "CAN_QUERY", "user_name": "a"}] * 2, BadField),
        ([{"permission_level": "IS_OWNER", "user_name": "a"}], BadField),
        ([{"user_name": "a"}], BadField),
    ],
)
def test_entries_that_cannot_be(entries: list[dict[str, str]], error: type[HeadraceError]) -> None:
    """Groups are refused by name; each entry names one whom there can be, once."""

    def read() -> None:
        body = read_message(msgspec.json.encode({"access_control_list": entries}), PermissionsBody)
        check_entries(body.access_control_list or ())

    with pytest.raises(error):
        read()


def test_a_list_that_cannot_be_read_lets_nobody_in() -> None:
    """And none is none."""
    assert granted_in(None) is None
    assert granted_in([{"nonsense": 1}]) == []
    assert permissions_json("x", None)["access_control_list"] == []


def test_others_things_that_are_kept_stay() -> None:
    """Ours are below one name, and None takes one away."""
    kept = with_kept({"vertex": {"a": 1}, "databricks": {"tags": [], "endpoint_id": "x"}}, {"tags": None, "more": 2})
    assert kept == {"vertex": {"a": 1}, "databricks": {"endpoint_id": "x", "more": 2}}
    assert kept_of({}) == {}


def test_what_is_no_json_is_said() -> None:
    """Not a wrong field."""
    for body in (b"{", b"\xff", b'{"add_tags": ['):
        with pytest.raises(BadJson):
            read_message(body, TagsPatch)
    assert read_message(b"  ", TagsPatch) == TagsPatch()


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"rate_limit": []}', "The fields are: "),
        (b'{"rate_limits": [{"call": 1}]}', "The fields of rate_limits are: "),
    ],
)
def test_a_field_that_is_misspelt_is_told_with_those_that_there_are(body: bytes, told: str) -> None:
    """Those of the object in which it stands."""
    with pytest.raises(BadField) as caught:
        read_message(body, AiGatewayBody)
    assert caught.value.fix.startswith(told)
