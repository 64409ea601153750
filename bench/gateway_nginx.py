"""nginx twice: with Lua as the engine that every proxy asks, and as the proxy that the others are held against.

The engine computes nothing. A request says by fields that every OpenAI server knows how it streams: ``max_tokens`` is
the number of chunks, ``seed`` the milliseconds between them; the first one comes at once.
"""

from __future__ import annotations

import json
from pathlib import Path

MODEL = "bench"
PATH = "/v1/chat/completions"
CONNECTIONS = 20_000

_MODULES = Path("/usr/lib/nginx/modules")
LUA_MODULE = _MODULES / "ngx_http_lua_module.so"

_USAGE = {"prompt_tokens": 24, "completion_tokens": 8, "total_tokens": 32}


def engine(folder: Path, port: int) -> list[str]:
    """The command of an engine that listens on a loopback port."""
    script = folder / "engine.lua"
    folder.mkdir(parents=True)
    script.write_text(_script())
    server = f"""
    lua_check_client_abort on;  # else streams that were hung up hold their places while they sleep
    location = {PATH} {{ content_by_lua_file {script}; }}
    location / {{ default_type application/json; return 200 '{{"object":"list","data":[{{"id":"{MODEL}"}}]}}'; }}
    """
    modules = f"load_module {_MODULES}/ndk_http_module.so;\nload_module {LUA_MODULE};\n"
    return _command(folder, port, server, modules=modules)


def proxy(folder: Path, port: int, engine_port: int) -> list[str]:
    """The command of a reverse proxy before it: connections are kept on both sides, nothing is buffered."""
    folder.mkdir(parents=True)
    upstream = f"""
  upstream engine {{
    server 127.0.0.1:{engine_port}; keepalive 512; keepalive_requests 1000000000; keepalive_timeout 600s;
  }}
    """
    server = """
    location / {
      proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    }
    """
    return _command(folder, port, server, upstream=upstream)


def _command(folder: Path, port: int, server: str, *, modules: str = "", upstream: str = "") -> list[str]:
    """One process, which is the worker itself; its folder holds all that it writes."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    folders = "\n".join(f"  {kind}_temp_path {folder / kind};" for kind in kinds)
    configuration = folder / "nginx.conf"
    configuration.write_text(
        f"""{modules}
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log error;
events {{ worker_connections {CONNECTIONS}; }}
http {{
  access_log off; client_body_buffer_size 64k; tcp_nodelay on;
  keepalive_requests 1000000000; keepalive_timeout 600s;
{folders}
{upstream}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
{server}
  }}
}}
"""
    )
    return ["nginx", "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(configuration)]


def _script() -> str:
    """What the engine answers, as Lua."""
    head = {"id": "chatcmpl-bench", "created": 1, "model": MODEL}
    message = {"role": "assistant", "content": "It takes from one bank what it gives to the other."}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    whole = json.dumps({**head, "object": "chat.completion", "choices": [choice], "usage": _USAGE})
    delta = {"index": 0, "delta": {"content": " bank"}, "finish_reason": None}
    chunk = json.dumps({**head, "object": "chat.completion.chunk", "choices": [delta]})
    last = json.dumps({**head, "object": "chat.completion.chunk", "choices": [], "usage": _USAGE})
    return f"""
ngx.req.read_body()
local body = ngx.req.get_body_data() or ""
if not string.find(body, '"stream":%s*true') then
  local whole = [==[{whole}]==]
  ngx.header["Content-Type"] = "application/json"
  ngx.header["Content-Length"] = #whole
  ngx.print(whole)
  return
end
local chunks = tonumber(string.match(body, '"max_tokens":%s*(%d+)')) or 8
local pause_s = (tonumber(string.match(body, '"seed":%s*(%d+)')) or 0) / 1000
ngx.header["Content-Type"] = "text/event-stream; charset=utf-8"
for number = 1, chunks do
  if number > 1 and pause_s > 0 then ngx.sleep(pause_s) end
  ngx.print([==[data: {chunk}]==], "\\n\\n")
  if not ngx.flush(true) then return end
end
ngx.print([==[data: {last}]==], "\\n\\ndata: [DONE]\\n\\n")
"""
