"""The HTTP/1.1 server of the data plane: an `asyncio.Protocol` around httptools' parser, with bounds on everything.

* `server`: listens, holds the connections, looks at their deadlines, lets them come to their end
* `tls_listener`: takes connections that shake hands first
* `request_parser`: from bytes to requests
* `connection`: one client's connection, which carries one exchange after another; `refusal`: what it answers itself
* `answer`: one request and its answer on such a connection, the gateway's `Exchange`
"""

from headrace.gateway.http1.connection import MAX_HEAD_BYTES
from headrace.gateway.http1.patience import Patience
from headrace.gateway.http1.server import HttpServer

__all__ = ["MAX_HEAD_BYTES", "HttpServer", "Patience"]
