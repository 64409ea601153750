"""Model Garden's list as clients ask for it: filters, views and pages."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.contracts.vertex.garden_filter import MAX_CHARACTERS, read_filter
from headrace.contracts.vertex.publishers import (
    DeployOption,
    PublisherModel,
    publisher_model_json,
    read_listing,
    read_view,
)
from headrace.resources.deployments import MachineSpec
from headrace.resources.errors import BadField

GEMMA = {
    "model_user_id": ("gemma3", "gemma-3-1b-it"),
    "display_name": ("Gemma 3 1B IT",),
    "is_hf_wildcard": ("false",),
    "labels.VERIFIED_DEPLOYMENT_CONFIG": ("VERIFIED_DEPLOYMENT_SUCCEED",),
}
SDK = 'is_hf_wildcard(false) AND (model_user_id=~"(?i).*{0}.*" OR display_name=~"(?i).*{0}.*")'
"""What `list_deployable_models(model_filter=…)` of google-cloud-aiplatform 2.7.0 sends."""


L4 = MachineSpec(machine_type="g2-standard-4", accelerator_type="NVIDIA_L4", accelerator_count=1)


def model(publisher: str, name: str, version: str, *, first: bool = True, on_hub: bool = False) -> PublisherModel:
    """One of the list."""
    return PublisherModel(
        publisher=publisher,
        model=name,
        version=version,
        display_name=version,
        category="THIRD_PARTY_OWNED_OSS",
        first=first,
        on_hub=on_hub,
        options=(DeployOption(L4, "g2-standard-4 (1 × NVIDIA_L4)", "vllm"),),
        notebook="/notebook",
        ours={"parameters": 7},
    )


@pytest.mark.parametrize(
    ("expression", "accepted"),
    [
        ("", True),
        ("is_hf_wildcard(false)", True),
        ("is_hf_wildcard(true)", False),
        (SDK.format("gemma"), True),
        (SDK.format("GEMMA-3-1b"), True),
        (SDK.format("gemma 3"), True),
        (SDK.format("llama"), False),
        (SDK.format(""), True),
        ("is_hf_wildcard(true) AND labels.VERIFIED_DEPLOYMENT_CONFIG=VERIFIED_DEPLOYMENT_SUCCEED", False),
        ("is_hf_wildcard(false) AND labels.VERIFIED_DEPLOYMENT_CONFIG=VERIFIED_DEPLOYMENT_SUCCEED", True),
        ("labels.other=x", False),
        ("labels.other!=x", True),
        ('display_name="Gemma 3 1B IT"', True),
        ('displayName="Gemma"', False),
        ("display_name:gemma", True),
        ("display_name:*", True),
        ('model_user_id=~"gemma.3"', True),
        ('model_user_id=~"GEMMA"', False),
        ('model_user_id=~"it.*gemma"', False),
        (r'display_name=~"Gemma 3\. "', False),
        ('model_user_id="llama" OR model_user_id="gemma3" AND display_name="x"', False),
        ('model_user_id="llama" OR (model_user_id="gemma3" AND display_name:"1B")', True),
    ],
)
def test_filters(expression: str, accepted: bool) -> None:
    """What the vendor's clients ask is answered as they mean it; OR binds more tightly than AND."""
    assert read_filter(expression).accepts(GEMMA) is accepted


@pytest.mark.parametrize(
    "expression",
    [
        "is_hf_wildcard(maybe)",
        "size=3",
        "display_name",
        "display_name=",
        'display_name="x" AND',
        "AND",
        "(display_name=x",
        "display_name=x)",
        "display_name=x display_name=y",
        'display_name=~"(a+)+"',
        'display_name=~"[a"',
        r'display_name=~"\d"',
        "(" * 100 + "display_name=x" + ")" * 100,
        "x" * (MAX_CHARACTERS + 1),
    ],
)
def test_what_is_no_filter_is_refused(expression: str) -> None:
    """An expression that is not understood is an error of the request, never one of the server."""
    with pytest.raises(BadField):
        read_filter(expression)


@settings(deadline=None)
@given(st.text(alphabet='isAND OR()=~!:".*\\(?i)x_display_name\n', max_size=200))
def test_any_text_is_a_filter_or_refused(expression: str) -> None:
    """Whatever text comes as a filter, it is understood or refused."""
    try:
        understood = read_filter(expression)
    except BadField:
        return
    assert understood.accepts(GEMMA) in {True, False}


def test_pages_hold_every_model_once() -> None:
    """Page after page gives each model that was asked for once, in the order of their names."""
    models = [model("p", f"m{number}", f"v{number:02}") for number in range(23)]
    names, token = [], ""
    while True:
        wire = read_listing("*", {"pageSize": "5", "pageToken": token, "listAllVersions": "true"}).answer(models)
        names += [each["versionId"] for each in wire["publisherModels"]]
        token = wire.get("nextPageToken", "")
        if not token:
            break
    assert names == [f"v{number:02}" for number in range(23)]


def test_a_token_of_another_question_is_refused() -> None:
    """A page's token goes with its publisher, its filter and its versions."""
    models = [model("p", f"m{number}", f"v{number}") for number in range(3)]
    token = read_listing("*", {"pageSize": "1"}).answer(models)["nextPageToken"]
    for publisher, more in (("p", {}), ("*", {"filter": "is_hf_wildcard(false)"}), ("*", {"listAllVersions": "true"})):
        with pytest.raises(BadField):
            read_listing(publisher, {"pageSize": "1", "pageToken": token, **more})


def test_which_models_a_list_is_of() -> None:
    """A publisher's are its own; versions are all or the first; names on the Hub come only when they are asked for."""
    models = [
        model("a", "m", "v1"),
        model("a", "m", "v2", first=False),
        model("b", "n", "w"),
        model("hf-a", "m", "001", on_hub=True),
    ]

    def listed(publisher: str, **query: str) -> list[str]:
        wire = read_listing(publisher, query).answer(models)
        return [f"{each['name']}@{each['versionId']}" for each in wire["publisherModels"]]

    assert listed("*") == ["publishers/a/models/m@v1", "publishers/b/models/n@w"]
    assert listed("a", listAllVersions="True") == ["publishers/a/models/m@v1", "publishers/a/models/m@v2"]
    assert listed("*", filter="is_hf_wildcard(true)") == ["publishers/hf-a/models/m@001"]
    assert listed("hf-a") == ["publishers/hf-a/models/m@001"]
    assert listed("nobody") == []


@pytest.mark.parametrize(
    ("text", "view"),
    [
        ("", "basic"),
        ("0", "basic"),
        ("1", "basic"),
        ("2", "full"),
        ("3", "version"),
        ("PUBLISHER_MODEL_VIEW_FULL", "full"),
        ("PUBLISHER_MODEL_VERSION_VIEW_BASIC", "version"),
    ],
)
def test_views(text: str, view: str) -> None:
    """A view comes as its number from the SDK, and as its name from others."""
    assert read_view({"view": text}) == view


@pytest.mark.parametrize("text", ["4", "-1", "full", "²"])
def test_what_is_no_view_is_refused(text: str) -> None:
    """A view that does not exist is an error of the request."""
    with pytest.raises(BadField):
        read_view({"view": text})


def test_what_views_show() -> None:
    """Each view has the name, the version and the actions; the full one has our own facts, too."""
    one = model("a", "m", "v")
    version, basic, full = (publisher_model_json(one, view) for view in ("version", "basic", "full"))
    assert set(version) == {"name", "versionId", "supportedActions"}
    assert version.items() <= basic.items()
    assert basic["headrace"] == {"displayName": "v"}
    assert full["headrace"] == {"displayName": "v", "parameters": 7}
    (option,) = full["supportedActions"]["multiDeployVertex"]["multiDeployVertex"]
    assert option["dedicatedResources"]["machineSpec"] == {
        "machineType": "g2-standard-4",
        "acceleratorType": "NVIDIA_L4",
        "acceleratorCount": 1,
    }
