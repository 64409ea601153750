"""Floor 3: the request log on disk: rows from what gateways tell, redacted, in files that are kept within a bound.

The writer is a process of its own (`headrace.request_log.writer`), one beside each gateway that has something to log:
reading JSON, redacting it by an operator's regular expressions and packing files hold Python's interpreter lock for as
long as they take, and in the gateway's process every stream would wait for that.
"""

from headrace.request_log.counts import Counts
from headrace.request_log.frames import write_frame
from headrace.request_log.settings import LogFiles, LogFormat

__all__ = ["Counts", "LogFiles", "LogFormat", "write_frame"]
