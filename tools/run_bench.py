"""``make bench-NAME``: runs ``bench/NAME.py`` with the same runtimes and model as the tests have."""

from __future__ import annotations

import os
import sys

from assets import DEFAULT_ENGINES, PYTHONS, ServingExtras, install, other_gateways, prepare
from environment import ROOT
from packages import Package, install_packages

GATEWAY_PACKAGES = (
    Package("nginx", "nginx", "the proxy that every other one is held against"),
    Package("libnginx-mod-http-lua", "/usr/lib/nginx/modules/ngx_http_lua_module.so", "nginx plays the engine with it"),
    Package("wrk", "wrk", "loads the proxies"),
)
"""What ``bench/gateway.py`` cannot do without."""


def main() -> None:
    """Become one benchmark: a Ctrl-C is then its own, and nobody kills it while it stops what it started."""
    program = ROOT / "bench" / f"{sys.argv[1]}.py"
    programs = sorted(path for path in program.parent.glob("*.py") if "def main()" in path.read_text())
    if program not in programs:
        known = ", ".join(path.stem for path in programs)
        sys.exit(f"error: there is no benchmark {sys.argv[1]!r}. There are: {known}")
    os.chdir(ROOT)
    os.execve(sys.executable, [sys.executable, str(program), *sys.argv[2:]], _prepared(program.stem))


def _prepared(name: str) -> dict[str, str]:
    """Make what the benchmark runs on; returns its process environment."""
    if name == "gateway":
        install_packages(GATEWAY_PACKAGES)
        return os.environ | other_gateways()
    if name in {"autoscaler", "registry", "streaming", "throughput_simulation", "traffic"}:
        return dict(os.environ)  # no engine, or one that computes nothing
    environment = prepare(
        PYTHONS if name in {"engine", "plan", "prefix"} else DEFAULT_ENGINES,
        stores=name == "staging",
        clients=name == "vertex",
    )
    if name == "throughput":
        environment |= other_gateways("litellm")
    if name == "engine":
        environment["HEADRACE_BENCH_SERVE_PYTHON"] = str(install(ServingExtras()).python)
    return environment


if __name__ == "__main__":
    main()
