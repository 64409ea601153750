"""Floor 7: assembly: processes, configuration, start and stop. No logic.

`serve` is ``headrace serve``: it keeps gateway, control and node alive until it is told to stop.
"""

from headrace.server.supervisor import ServeSettings, TlsSettings, serve
from headrace.server.tls.files import CertificateFiles
from headrace.server.ways_in import WaysIn

__all__ = ["CertificateFiles", "ServeSettings", "TlsSettings", "WaysIn", "serve"]
