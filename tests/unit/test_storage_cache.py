"""The cache of staged models: what is in use stays, what goes is what was used longest ago."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.storage import Claim, ModelCache, make_whole, open_artifacts, stage
from headrace.storage.whole import JOURNAL

MB = 1_000_000


def put(root: Path, name: str, size_bytes: int, used_at: float = 1.0) -> Path:
    """A whole folder in the cache, whose model was used last at this time."""
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"x" * size_bytes)
    claim = root / f".{name.partition('.')[0]}.claim"
    claim.touch()
    os.utime(claim, (used_at, used_at))
    return folder


def names(root: Path) -> set[str]:
    """The whole folders."""
    return {path.name for path in root.iterdir() if not path.name.startswith(".")}


def test_the_longest_unused_goes_until_there_is_room(tmp_path: Path) -> None:
    """Two of three have to go for a new one, the oldest first; each is told with its size and the reason."""
    put(tmp_path, "bbb", 300, used_at=2)
    put(tmp_path, "aaa", 300, used_at=3)
    put(tmp_path, "ccc", 300, used_at=1)
    with ModelCache(tmp_path, 1000).room("new", 500) as said:
        assert names(tmp_path) == {"aaa"}
    assert [sentence.split()[3] for sentence in said] == ["ccc", "bbb"]
    assert "(0.0 MB, last used" in said[0]
    assert "limit of 0.0 MB" in said[0]


def test_without_a_limit_or_a_need_nothing_goes(tmp_path: Path) -> None:
    """No limit: any amount; and a folder that is there already takes no room."""
    put(tmp_path, "aaa", 300)
    put(tmp_path, "bbb", 300)
    with ModelCache(tmp_path).room("new", 10**12), ModelCache(tmp_path, 10).room("bbb", 300) as said:
        assert names(tmp_path) == {"aaa", "bbb"}
    assert said == ()


def test_what_is_claimed_stays_even_above_the_limit_and_that_is_said(tmp_path: Path) -> None:
    """A limit never takes a model from under an engine: it is passed, in so many words."""
    cache = ModelCache(tmp_path, 100)
    put(tmp_path, "aaa", 300)
    with cache.claim("aaa"), cache.claim("new"), cache.room("new", 50) as said:
        assert names(tmp_path) == {"aaa"}
        assert not cache.remove("aaa")
    assert said == (
        "The model cache passes its limit of 0.0 MB: it comes to 0.0 MB, and all that is left in it is in use.",
    )
    with cache.room("new", 50):
        assert names(tmp_path) == set()


def test_what_is_here_is_told_with_who_is_in_use(tmp_path: Path) -> None:
    """Bytes of each model, the limit, and what a limit cannot take now; the longest unused first."""
    cache = ModelCache(tmp_path, 1000)
    put(tmp_path, "aaa", 300, used_at=2)
    put(tmp_path, "bbb", 200, used_at=1)
    put(tmp_path, "bbb.key", 50, used_at=1)
    with cache.claim("aaa"):
        told = cache.report()
    assert [(model.fingerprint, model.size_bytes, model.in_use) for model in told.models] == [
        ("bbb", 250, False),
        ("aaa", 300, True),
    ]
    assert told.limit_bytes == 1000
    assert not any(model.in_use for model in cache.report().models)


def test_a_model_goes_with_its_conversions_and_its_unfinished_parts(tmp_path: Path) -> None:
    """They are one: a conversion without its source, or half a download, would be room that nobody gets back."""
    put(tmp_path, "aaa", 300)
    put(tmp_path, "aaa.openvino-1", 300)
    unfinished = tmp_path / ".aaa.vllm-2.partial"
    unfinished.mkdir()
    (unfinished / JOURNAL).write_bytes(b"x")
    (model,) = ModelCache(tmp_path).models()
    assert 600 <= model.size_bytes <= 600 + 4096
    assert ModelCache(tmp_path).remove("aaa")
    assert not list(tmp_path.glob("*aaa*/")) + list(tmp_path.glob(".aaa*.partial"))


def test_a_file_that_is_linked_counts_once(tmp_path: Path) -> None:
    """A conversion that links to the model's own shards takes no more of the disk, and frees no more when both go."""
    model = put(tmp_path, "one", 4000)
    made = put(tmp_path, "one.key", 100)
    os.link(model / "model.safetensors", made / "shard.safetensors")
    os.link(model / "model.safetensors", made / "shard-too.safetensors")
    (found,) = ModelCache(tmp_path).models()
    assert found.size_bytes == 4100


def test_what_is_being_made_by_whatever_process_stays(tmp_path: Path) -> None:
    """A converter holds its folder's lock and may have outlived who claimed the source: the source stays."""
    put(tmp_path, "aaa", 300)
    (tmp_path / ".aaa.openvino-1.partial").mkdir()
    with (tmp_path / ".aaa.openvino-1.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not ModelCache(tmp_path).remove("aaa")
    assert ModelCache(tmp_path).remove("aaa")


def test_a_claim_holds_in_other_processes_and_ends_with_its_own(tmp_path: Path) -> None:
    """Another process's claim counts; one that is killed claims nothing any more."""
    put(tmp_path, "aaa", 300)
    program = (
        "import sys; from pathlib import Path; from headrace.storage import Claim\n"
        "claim = Claim(Path(sys.argv[1]), 'aaa'); print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert not ModelCache(tmp_path).remove("aaa")
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert ModelCache(tmp_path).remove("aaa")


def test_use_is_recorded_at_both_ends_of_a_claim(tmp_path: Path) -> None:
    """A model that ran for a month and stopped now was used now."""
    put(tmp_path, "aaa", 1, used_at=10)
    put(tmp_path, "bbb", 1, used_at=20)
    cache = ModelCache(tmp_path)
    first = cache.claim("aaa")
    assert [model.fingerprint for model in cache.models()] == ["bbb", "aaa"]
    with cache.claim("bbb"):
        assert [model.fingerprint for model in cache.models()] == ["aaa", "bbb"]
    first.release()
    first.release()
    assert [model.fingerprint for model in cache.models()] == ["bbb", "aaa"]


def test_two_downloads_at_once_do_not_both_take_the_same_room(tmp_path: Path) -> None:
    """What was promised to one counts for the other, before a byte of it is there; and no longer than it is made."""
    cache = ModelCache(tmp_path, 1000)
    put(tmp_path, "old", 300)
    with cache.room("one", 600), cache.room("one", 600) as waits:
        assert (waits, names(tmp_path)) == ((), {"old"})
        with cache.room("two", 200) as said:
            assert names(tmp_path) == set()
            assert said[0].startswith("Evicted staged model old ")
    put(tmp_path, "more", 900)
    with cache.room("three", 100) as said:
        assert (said, names(tmp_path)) == ((), {"more"})


def test_what_a_killed_eviction_left_goes_with_the_next(tmp_path: Path) -> None:
    """A folder on its way out is in nobody's way, and not there for ever."""
    (tmp_path / ".aaa.0123.removing").mkdir(parents=True)
    cache = ModelCache(tmp_path, 10)
    assert cache.models() == []
    with cache.room("new", 1):
        assert not list(tmp_path.glob("*.removing"))


def test_whoever_claims_first_and_then_finds_a_model_keeps_it(tmp_path: Path) -> None:
    """Stagers and evictors at once, many times: a model that was found under a claim is whole until its release."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_bytes(b"{}" * 100)
    artifacts = open_artifacts(str(source))
    root = tmp_path / "models"
    (tmp_path / "models").mkdir()

    def use(_: int) -> int:
        made = 0
        for _ in range(60):
            with Claim(root, "aaa"):
                if not (root / "aaa").is_dir():
                    make_whole(root, "aaa", 200, lambda folder, _: artifacts.copy_into(folder, lambda _: None))
                    made += 1
                assert (root / "aaa" / "config.json").read_bytes() == b"{}" * 100
        return made

    def evict(_: int) -> int:
        return sum(ModelCache(root).remove("aaa") for _ in range(400))

    with ThreadPoolExecutor(4) as threads:
        results = [threads.submit(work, 0) for work in (use, use, evict, evict)]
        assert sum(result.result() for result in results[:2]) >= 1


def test_staging_under_a_limit_keeps_what_it_stages(tmp_path: Path) -> None:
    """The real copy, with room made for it: afterwards it is there and the old one is not."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "weights.bin").write_bytes(os.urandom(MB))
    put(tmp_path / "models", "old", MB)
    cache = ModelCache(tmp_path / "models", MB + 10)
    artifacts = open_artifacts(str(source))
    with cache.claim("new"), cache.room("new", artifacts.total_bytes):
        staged = stage(artifacts, cache.root, lambda *_: None)
    assert names(cache.root) == {staged.name}


SMALL_DISK = """
import subprocess, sys
from pathlib import Path
from headrace.storage import ModelCache
from test_storage_cache import MB, names, put
root = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", str(root)], check=True)
for number, name in enumerate(("aaa", "bbb", "ccc")):
    put(root, name, 10 * MB, used_at=number)
for limit_bytes, needed_bytes in ((None, 20 * MB), (10**9, 60 * MB), (10**9, 5 * MB), (10**9, 15 * MB)):
    cache = ModelCache(root, limit_bytes)
    with cache.claim("aaa"), cache.room("new", needed_bytes) as said:
        print(*sorted(names(root)), len(said), "the disk would have been full" in str(said))
"""


def test_a_full_disk_takes_the_longest_unused_though_the_limit_would_allow_more(tmp_path: Path) -> None:
    """Never what is in use, nothing without a limit, and nothing in vain: not for what would not fit even then."""
    command = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-c", SMALL_DISK, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.stdout.splitlines() == [
        "aaa bbb ccc 0 False",
        "aaa bbb ccc 0 False",
        "aaa bbb ccc 0 False",
        "aaa ccc 1 True",
    ], done.stderr


MODELS = st.lists(
    st.tuples(st.integers(0, 3000), st.integers(0, 3), st.booleans(), st.booleans()), min_size=0, max_size=6
)


@settings(max_examples=80, deadline=None)
@given(models=MODELS, limit_bytes=st.integers(0, 8000), needed_bytes=st.integers(0, 4000))
def test_whatever_the_cache_holds(
    models: list[tuple[int, int, bool, bool]], limit_bytes: int, needed_bytes: int
) -> None:
    """What is claimed stays; then the limit is held, or all that is left is claimed; and nothing goes in vain or out
    of turn: whatever went was unused for longer than what stayed unclaimed, and without the last there was no room."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        cache = ModelCache(root, limit_bytes)
        for number, (size_bytes, used_at, converted, _) in enumerate(models):
            put(root, f"m{number}", size_bytes, used_at=used_at)
            if converted:
                put(root, f"m{number}.key", 100, used_at=used_at)
        before = cache.models()
        held = {f"m{number}" for number, model in enumerate(models) if model[3]}
        used_at = {model.fingerprint: model.used_at for model in before}
        claims = [cache.claim(fingerprint) for fingerprint in sorted(held)]
        with cache.room("new", needed_bytes) as said:
            after = cache.models()
        for claim in claims:
            claim.release()
    stayed = {model.fingerprint for model in after}
    total_bytes = sum(model.size_bytes for model in after) + needed_bytes
    assert held <= stayed
    assert total_bytes <= limit_bytes or stayed == held
    assert any("passes its limit" in sentence for sentence in said) == (total_bytes > limit_bytes)
    gone = [model for model in before if model.fingerprint not in stayed]
    for model in gone:
        assert all(used_at[other] >= model.used_at for other in stayed - held)
    if gone:
        assert total_bytes + gone[-1].size_bytes > limit_bytes


@pytest.mark.parametrize("name", ["aaa", "aaa.openvino-1"])
def test_a_model_without_a_claims_file_is_as_old_as_its_folder(name: str, tmp_path: Path) -> None:
    """Models that were staged before there were claims have their turn, too."""
    folder = put(tmp_path, name, 5)
    (tmp_path / ".aaa.claim").unlink()
    os.utime(folder, (7, 7))
    (model,) = ModelCache(tmp_path).models()
    assert (model.fingerprint, model.used_at) == ("aaa", 7)
