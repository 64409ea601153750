"""Which server a command talks to, and with which key."""

import fcntl
import json
import os
import stat
import time
from contextlib import contextmanager

import pytest
from cli_server import google_error, serving

from headrace.cli import contexts
from headrace.cli.app import run
from headrace.cli.contexts import Context, ContextFile, Wish, resolve
from headrace.resources.errors import NotLoggedIn, ServerUnreachable


@pytest.fixture(autouse=True)
def _empty_home(tmp_path, monkeypatch):
    for variable in ("HEADRACE_URL", "HEADRACE_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HEADRACE_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("HEADRACE_DATA_DIR", str(tmp_path / "data"))


def _store(**stored):
    contexts.save(ContextFile(current=next(iter(stored)), contexts=stored))


def _local_login(tmp_path, url="http://127.0.0.1:8080", key="hr-local"):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "login.json").write_text(json.dumps({"url": url, "key": key}))


@contextmanager
def _served_locally(tmp_path, url="http://127.0.0.1:8080"):
    """As a server leaves its data directory while it runs."""
    _local_login(tmp_path, url)
    with (tmp_path / "data" / "serve.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock


def test_the_file_is_private():
    """Keys are readable by their owner only, also after a second login."""
    for key in ("one", "two"):
        _store(default=Context(url="http://a", key=key))
        assert stat.S_IMODE(contexts.contexts_path().stat().st_mode) == 0o600
    assert contexts.load().contexts["default"].key == "two"


def test_nothing_known_says_how_to_begin():
    """Without any server the error tells how to get one."""
    with pytest.raises(NotLoggedIn) as caught:
        resolve(Wish())
    assert "headrace login" in caught.value.fix


def test_options_win_over_environment(monkeypatch):
    """--url and --key are stronger than HEADRACE_URL and HEADRACE_API_KEY."""
    monkeypatch.setenv("HEADRACE_URL", "http://env")
    monkeypatch.setenv("HEADRACE_API_KEY", "env")
    login = resolve(Wish(url="http://option", key="option"))
    assert (login.url, login.key) == ("http://option", "option")


def test_environment_wins_over_the_current_context(monkeypatch):
    """HEADRACE_URL and HEADRACE_API_KEY are stronger than what login stored."""
    _store(default=Context(url="http://stored", key="stored"))
    monkeypatch.setenv("HEADRACE_URL", "http://env")
    monkeypatch.setenv("HEADRACE_API_KEY", "env")
    login = resolve(Wish())
    assert (login.url, login.key) == ("http://env", "env")


def test_the_current_context_wins_over_the_local_server(tmp_path):
    """What login stored is stronger than a server that happens to run here."""
    _store(default=Context(url="http://stored", key="stored", project="p"))
    with _served_locally(tmp_path):
        login = resolve(Wish())
        assert not contexts.finds("http://127.0.0.1:8080", tmp_path / "data")
    assert (login.url, login.key, login.project) == ("http://stored", "stored", "p")


def test_the_local_server_is_found_without_a_login(tmp_path):
    """The owner of a server on this machine needs no login."""
    with _served_locally(tmp_path):
        login = resolve(Wish())
        assert contexts.finds("http://127.0.0.1:8080", tmp_path / "data")
    assert (login.url, login.key) == ("http://127.0.0.1:8080", "hr-local")


def test_a_server_that_is_gone_is_not_believed(tmp_path):
    """A login file whose server holds no lock is no login: its port may be somebody else's by now."""
    _local_login(tmp_path)
    with pytest.raises(ServerUnreachable):
        resolve(Wish())
    with pytest.raises(NotLoggedIn):
        resolve(Wish(url="http://127.0.0.1:8080"))


def test_a_server_that_starts_for_the_first_time_is_waited_for(tmp_path, monkeypatch):
    """A command right after `headrace serve` finds the login that the server is about to write."""
    looked = []

    def written_at_the_second_look(seconds):
        looked.append(seconds)
        if len(looked) == 2:
            (tmp_path / "data" / "login.json").write_text(json.dumps({"url": "http://127.0.0.1:8080", "key": "new"}))

    monkeypatch.setattr(contexts.time, "sleep", written_at_the_second_look)
    with _served_locally(tmp_path):
        (tmp_path / "data" / "login.json").unlink()
        assert resolve(Wish()).key == "new"
    assert len(looked) == 2


def test_a_server_that_ends_while_it_starts_is_not_waited_for(tmp_path, monkeypatch):
    """It may have said why at once, and nobody is going to write a login."""
    with _served_locally(tmp_path) as lock:
        (tmp_path / "data" / "login.json").unlink()
        monkeypatch.setattr(contexts.time, "sleep", lambda _: fcntl.flock(lock, fcntl.LOCK_UN))
        with pytest.raises(NotLoggedIn):
            resolve(Wish())


def test_a_login_file_that_was_removed_is_not_waited_for(tmp_path, monkeypatch):
    """A server that has run for long is not about to write one."""
    with _served_locally(tmp_path):
        (tmp_path / "data" / "login.json").unlink()
        long_ago = time.time() - contexts.WRITES_LOGIN_WITHIN_S - 1
        os.utime(tmp_path / "data" / "serve.lock", (long_ago, long_ago))
        monkeypatch.setattr(contexts.time, "sleep", lambda _: pytest.fail("waits"))
        with pytest.raises(NotLoggedIn):
            resolve(Wish())


def test_names_stay_one_segment_of_a_path():
    """A project that a person names cannot lead a request to another path."""
    login = resolve(Wish(url="http://one", key="k", project="../x", location=".."))
    assert login.scope == "projects/..%2Fx/locations/%2E%2E"


def test_a_stored_key_goes_to_its_own_address_only(tmp_path):
    """A key that is stored for one server is never sent to another."""
    _store(default=Context(url="http://stored", key="stored"))
    with _served_locally(tmp_path):
        with pytest.raises(NotLoggedIn):
            resolve(Wish(url="http://elsewhere"))
        assert resolve(Wish(url="http://stored/")).key == "stored"
        assert resolve(Wish(url="http://127.0.0.1:8080")).key == "hr-local"


def test_a_named_context_is_taken_whole(monkeypatch):
    """--context means that server with that key, whatever the environment says."""
    monkeypatch.setenv("HEADRACE_URL", "http://env")
    monkeypatch.setenv("HEADRACE_API_KEY", "env")
    _store(default=Context(url="http://one", key="one"), other=Context(url="http://two", key="two"))
    login = resolve(Wish(context="other"))
    assert (login.url, login.key) == ("http://two", "two")
    with pytest.raises(NotLoggedIn):
        resolve(Wish(context="unknown"))


def test_two_contexts_of_one_server_keep_their_keys():
    """Two keys for one address are told apart by their contexts' names."""
    _store(default=Context(url="http://one", key="viewer"), boss=Context(url="http://one", key="admin"))
    assert resolve(Wish(context="boss")).key == "admin"
    assert resolve(Wish()).key == "viewer"


def test_project_and_location_can_be_chosen():
    """Options name another project than the stored one."""
    _store(default=Context(url="http://one", key="k", project="p"))
    assert resolve(Wish(project="q", location="europe-west4")).scope == "projects/q/locations/europe-west4"


def test_a_broken_file_is_named():
    """A file of contexts that is no JSON is an error that names it."""
    _store(default=Context(url="http://one", key="k"))
    contexts.contexts_path().write_text("{")
    with pytest.raises(NotLoggedIn) as caught:
        resolve(Wish())
    assert str(contexts.contexts_path()) in caught.value.message


def test_login_without_an_address_means_the_server_of_this_machine(tmp_path):
    """Whoever started a server comes back to the key of its login file, whatever login is current."""
    with serving() as server, _served_locally(tmp_path, server.url):
        server.answers["GET /headrace/v1/whoami"] = (200, {"name": "me", "role": "admin", "project": "*"})
        _store(two=Context(url=server.url, key="hr-predictor"))
        assert run(["login"]) == 0
        assert server.requests[-1][1]["authorization"] == "Bearer hr-local"
        assert resolve(Wish()).key == "hr-local"
        assert contexts.load().contexts["two"].key == "hr-predictor"


def test_login_without_an_address_or_a_server_here_names_the_way(capsys):
    """A current login elsewhere is not taken for this machine's server."""
    _store(far=Context(url="http://far", key="k"))
    assert run(["login"]) == 4
    assert "headrace login URL" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "origin"), [(["login", "{}"], "the command line"), (["login", "--url", "{}"], "--url")]
)
def test_an_address_that_cannot_be_reached_comes_from_where_it_was_given(capsys, words, origin):
    """No option is blamed that nobody gave."""
    with serving() as server:
        gone = server.url
    assert run([*(word.format(gone) for word in words), "--key", "hr-x"]) == 5
    assert f"The address comes from {origin}." in capsys.readouterr().err


def test_logins_are_listed_chosen_and_forgotten(tmp_path, capsys):
    """`contexts` shows which one is in use and no key; without a current one the local server is used."""
    _store(one=Context(url="http://one", key="hr-1"), two=Context(url="http://two", key="hr-2"))
    with _served_locally(tmp_path):
        assert run(["contexts", "use", "two"]) == 0
        assert resolve(Wish()).key == "hr-2"
        capsys.readouterr()
        assert run(["contexts"]) == 0
        shown = capsys.readouterr().out
        assert [line.split()[-2:] for line in shown.splitlines() if line.startswith("two")] == [["in", "use"]]
        assert "http://127.0.0.1:8080" in shown
        assert "hr-" not in shown
        assert run(["contexts", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["current"] == "two"
        assert run(["contexts", "delete", "two"]) == 0
        assert resolve(Wish()).key == "hr-local"
    assert run(["contexts", "use", "two"]) == 4
    assert "Known contexts: one." in capsys.readouterr().err


@pytest.mark.parametrize(("status", "code"), [(403, "ROLE_MISSING"), (401, "UNKNOWN_KEY")])
def test_a_refused_key_is_named(capsys, status, code):
    """By the login that it is of and the file that keeps it: it may be another than the one that was meant."""
    with serving() as server:
        _store(two=Context(url=server.url, key="hr-predictor"))
        server.answers["GET /headrace/v1/keys"] = (status, google_error(status, code, "No.", evidence="seen"))
        assert run(["keys"]) == 4
    assert f"The key is that of the login 'two' in {contexts.contexts_path()}" in capsys.readouterr().err
