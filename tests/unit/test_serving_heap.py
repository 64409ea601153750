"""Freed memory goes back to the kernel when a budget needs it."""

import subprocess
import sys

PROGRAM = """
import ctypes
from pathlib import Path
from headrace_engines.serving.heap import FreedBlocks

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
MIB = 2**20

def anonymous_mib():
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) / 1024

def block(size):
    address = libc.malloc(size)
    ctypes.memset(address, 1, size)
    return address

libc.free(block(4 * MIB))  # from now on glibc keeps blocks of this size
before = anonymous_mib()
blocks = [block(MIB) for _ in range(64)]
last = block(MIB)
for address in blocks:
    libc.free(address)
freed = FreedBlocks(budget_bytes=100 * MIB)
freed.add(48 * MIB, used_bytes=10 * MIB)
kept = anonymous_mib() - before
freed.add(16 * MIB, used_bytes=50 * MIB)
print(kept, anonymous_mib() - before)
"""


def test_what_was_freed_is_kept_until_it_does_not_fit_the_budget() -> None:
    """Blocks that were freed stay for the next ones while budget is left, and go back to the kernel once it is not."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    kept_mib, given_back_mib = map(float, done.stdout.split())
    assert kept_mib > 60
    assert given_back_mib < 5
