"""The certificate as one page of HTML that needs nothing else: tables, and plots where pygal is installed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

from headrace.cli.certify.figures import Asked, Certificate, Figures
from headrace.resources.extras import install

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
table { border-collapse: collapse; margin: 1rem 0; } th, td { text-align: left; padding: .3rem 1rem .3rem 0; }
th { font-weight: 600; border-bottom: 1px solid #888; } td { border-bottom: 1px solid #ddd; }
.verdict { font-size: 1.3rem; padding: .5rem 1rem; border-left: .5rem solid; }
.kept { border-color: #2a7d3f; } .missed { border-color: #b3261e; } figure { margin: 1.5rem 0; }
@media (prefers-color-scheme: dark) { body { background: #161616; color: #eee; } td { border-color: #444; } }
"""

_WITHOUT_PLOTS = f"There are no plots, for pygal is not installed: {install('report')}."
_BARS = 60


def page(certificate: Certificate, asked: Sequence[Asked]) -> str:
    """The whole document.

    Args:
        certificate: What it says.
        asked: The compliant tenant's requests, for the plots.
    """
    at = datetime.fromtimestamp(certificate.at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    name, standing = escape(certificate.endpoint), "kept" if certificate.kept else "missed"
    body = [
        f"<h1>Throughput of {name}</h1>",
        f'<p class="verdict {standing}">{escape(certificate.verdict)}</p>',
        f"<p>{escape(at)}, {certificate.seconds:.0f} seconds. {_promise(certificate)}</p>",
        _table(certificate),
        *_plots(certificate, asked),
        f"<p>The cost model is {_work(certificate)}. The load itself took {certificate.own_cpu:.0%} of a core.</p>",
    ]
    head = f'<meta charset="utf-8"><title>Throughput of {name}</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(body)}</body></html>\n'


def _promise(certificate: Certificate) -> str:
    rate = f"Promised: {certificate.guaranteed_tokens_per_s:,} tokens a second"
    latencies = f"the first after at most {certificate.first_s:g} s, then one every {certificate.gap_s:g} s"
    return f"{rate}, {latencies}. Asked for: {certificate.rate_tokens_per_s:,.0f}."


def _table(certificate: Certificate) -> str:
    tenants = [("compliant", certificate.tenant), ("flooding", certificate.flood)]
    heads = ("tenant", "asked", "answered", "tokens/s", "within", "first token p50, p95, p99", "inter-token", "refused")
    rows = [_cells(name, each) for name, each in tenants if each is not None]
    lines = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    head = "".join(f"<th>{escape(each)}</th>" for each in heads)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _cells(name: str, seen: Figures) -> tuple[str, ...]:
    refusals = ", ".join(f"{code}: {many}" for code, many in sorted(seen.refusals.items()))
    rate = f"{seen.attained_tokens_per_s:,.0f}"
    within, first, gap = "not told", "not streamed", "not streamed"
    if seen.streamed:
        within = f"{seen.attainment:.1%}"
        first = ", ".join(f"{value:.2f} s" for value in (seen.first.p50, seen.first.p95, seen.first.p99))
        gap = ", ".join(f"{1e3 * value:.0f} ms" for value in (seen.gap.p50, seen.gap.p95, seen.gap.p99))
    return name, str(seen.asked), str(seen.answered), rate, within, first, gap, refusals or "none"


def _work(certificate: Certificate) -> str:
    if certificate.work_error is None:
        return "not tested here: the replicas were not kept busy"
    return f"{certificate.work_error:+.0%} off: the answered requests' work against the time that the replicas had"


def _plots(certificate: Certificate, asked: Sequence[Asked]) -> list[str]:
    answered = [one for one in asked if not one.code]
    try:
        import pygal  # noqa: PLC0415  # an extra
    except ImportError:
        return [f"<p>{escape(_WITHOUT_PLOTS)}</p>"]
    if not answered:
        return []
    shape: dict[str, Any] = {"js": [], "height": 320, "width": 900, "legend_at_bottom": True, "print_values": False}
    first = pygal.XY(
        title="Time to first token by when it was asked, seconds", stroke=False, dots_size=2, x_title="s", **shape
    )
    first.add("first token", [(one.at_s, one.first_s) for one in answered])
    first.add("promised", [(0, certificate.first_s), (certificate.seconds, certificate.first_s)], stroke=True)
    gaps = pygal.Histogram(title="Inter-token latency, milliseconds", x_title="ms", **shape)
    gaps.add("gaps", _bars([1e3 * gap for one in answered for gap in one.gaps_s]))
    rate = pygal.XY(title="Tokens a second that were answered, by ten seconds", dots_size=2, x_title="s", **shape)
    rate.add("attained", _by_time(answered, certificate.seconds))
    rate.add("guaranteed", [(at, certificate.guaranteed_tokens_per_s) for at in (0, certificate.seconds)])
    charts = (first, gaps, rate)
    for chart in charts:
        chart.add_xml_filter(_still)
    return [f"<figure>{chart.render(is_unicode=True, disable_xml_declaration=True)}</figure>" for chart in charts]


def _still(root: Any) -> Any:
    """A picture without the scripts that would make it move: a page that is kept runs nothing."""
    for parent in list(root.iter()):
        for child in [each for each in parent if str(each.tag).endswith("script")]:
            parent.remove(child)
    return root


def _bars(values: Sequence[float]) -> list[tuple[int, float, float]]:
    """Bars of a histogram: height, from, to; up to what 99 of 100 values are below of."""
    if not values:
        return []
    most = sorted(values)[min(int(0.99 * len(values)), len(values) - 1)] or 1.0
    width = most / _BARS
    counts = [0] * _BARS
    for value in values:
        if value < most:
            counts[min(int(value / width), _BARS - 1)] += 1
    return [(count, place * width, (place + 1) * width) for place, count in enumerate(counts)]


def _by_time(answered: Sequence[Asked], seconds: float, width_s: float = 10.0) -> list[tuple[float, float]]:
    """Tokens a second of what ended, by time."""
    cells = [0] * (int(seconds / width_s) + 1)
    for one in answered:
        place = int((one.at_s + one.wall_s) / width_s)
        if place < len(cells):
            cells[place] += one.prompt_tokens + one.output_tokens
    return [(place * width_s, tokens / width_s) for place, tokens in enumerate(cells)]
