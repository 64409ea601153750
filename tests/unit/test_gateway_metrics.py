"""``/metrics``: what the gateway and every engine say, in one text that Prometheus reads."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from gateway_serving import EVERYWHERE_KEY, deployed, gateway_before, serving
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from headrace.gateway.engine_metrics import FAMILIES, Told, merged
from headrace.gateway.exchange import Exchange, Handler
from headrace_engines.serving.generator import Load
from headrace_engines.serving.metrics import Metrics
from standin import StandIn

BEARER = {"authorization": f"Bearer {EVERYWHERE_KEY}"}
OURS = Metrics("served", lambda: Load(running=2, waiting=1, kv_cache_used=0.25)).render()
VLLMS = b"""# HELP vllm:kv_cache_usage_perc KV-cache usage. 1 means 100 percent usage.
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="served"} 0.5
# HELP vllm:prefix_cache_hits_total Prefix cache hits, in terms of number of cached tokens.
# TYPE vllm:prefix_cache_hits_total counter
vllm:prefix_cache_hits_total{engine="0",model_name="served"} 96.0
# HELP vllm:prefix_cache_hits_created Prefix cache hits, in terms of number of cached tokens.
# TYPE vllm:prefix_cache_hits_created gauge
vllm:prefix_cache_hits_created{engine="0",model_name="served"} 1.76e+09
# HELP python_gc_objects_collected_total Objects collected during gc
# TYPE python_gc_objects_collected_total counter
python_gc_objects_collected_total{generation="0"} 9.0
"""


def saying(text: bytes) -> Handler:
    """An engine of which only its metrics are asked."""

    async def handle(exchange: Exchange) -> None:
        assert (exchange.head.target, exchange.head.header(b"authorization")) == (b"/metrics", b"Bearer nonce")
        await exchange.answer(200, [(b"content-type", b"text/plain")], text)

    return handle


def test_every_engine_is_shown_with_its_replica(tmp_path: Path) -> None:
    """Our engines and vLLM's own under the same names, one family each, besides the gateway's."""

    async def main() -> None:
        first, second = tmp_path / "1", tmp_path / "2"
        async with (
            serving(saying(OURS), uds=first),
            serving(saying(VLLMS), uds=second),
            gateway_before(tmp_path, deployed(f"unix:{first}", f"unix:{second}")) as served,
        ):
            answer = await served.client.get("/metrics", headers=BEARER)
        assert answer.status_code == 200
        families = {family.name: family for family in text_string_to_metric_families(answer.text)}
        assert len(re.findall("# TYPE vllm:kv_cache_usage_perc ", answer.text)) == 1
        used = families["vllm:kv_cache_usage_perc"].samples
        assert {(sample.labels["replica"], sample.value) for sample in used} == {("d1-r0", 0.25), ("d1-r1", 0.5)}
        assert {sample.labels["deployment"] for sample in used} == {"dep-d1"}
        [hits] = [one for one in families["vllm:prefix_cache_hits"].samples if one.name.endswith("_total")]
        assert hits.value == 96
        assert {name for name in families if name.startswith("vllm:")} <= FAMILIES
        assert "python_gc" not in answer.text
        assert 'headrace_gateway_replicas{deployment="dep-d1"} 2.0' in answer.text

    asyncio.run(main())


def test_an_engine_that_tells_nothing_hides_no_other(tmp_path: Path) -> None:
    """One without metrics, one that is gone: each is told by name, and the third is shown."""

    async def main() -> None:
        told = tmp_path / "1"
        async with (
            serving(saying(OURS), uds=told),
            StandIn(tmp_path / "2") as mute,
            gateway_before(tmp_path, deployed(f"unix:{told}", mute.address, f"unix:{tmp_path / '3'}")) as served,
        ):
            text = (await served.client.get("/metrics", headers=BEARER)).text
        up = dict(re.findall(r'headrace_gateway_engine_up\{.*replica="([^"]+)"\} (\S+)', text))
        assert up == {"d1-r0": "1.0", "d1-r1": "0.0", "d1-r2": "0.0"}
        assert 'vllm:num_requests_running{deployment="dep-d1",model_name="served",replica="d1-r0"} 2.0' in text

    asyncio.run(main())


def test_only_who_may_read_all_projects_sees_them(tmp_path: Path) -> None:
    """A key of one project is refused, and a method that there is not named."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            assert (await served.client.get("/metrics")).status_code == 403
            refused = await served.client.post("/metrics", headers=BEARER)
            assert (refused.status_code, refused.headers["allow"]) == (405, "GET")

    asyncio.run(main())


LINES = st.sampled_from([*OURS.split(b"\n"), *VLLMS.split(b"\n")])
TEXTS = st.one_of(
    st.binary(max_size=200),
    st.lists(st.one_of(LINES, st.builds(lambda line, end: line[:end], LINES, st.integers(0, 60)))).map(b"\n".join),
)


@given(st.lists(st.builds(Told, st.just("d"), st.sampled_from("abc"), st.one_of(st.none(), TEXTS)), max_size=3))
def test_whatever_engines_say_prometheus_can_read(told: list[Told]) -> None:
    """Lines that are cut, out of order or no metrics at all: what comes of them parses, each family once."""
    text = merged(told).decode()
    names = [family.name for family in text_string_to_metric_families(text)]
    assert len(names) == len(set(names))
    assert set(names) <= FAMILIES | {"headrace_gateway_engine_up"}
