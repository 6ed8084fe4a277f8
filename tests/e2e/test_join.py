# SPDX-License-Identifier: GPL-2.0-or-later
"""A cluster in three commands, on hosts without any configuration."""

import base64
import json
import os
import shutil
import signal
import time

import pytest
from lab_driver import STATE, Victim, inside, kill, processes, read, wait_until

FIRST = "10.66.0.1"


@pytest.fixture
def bare(lab2):
    """n1 and n2 with an empty /etc/godwit; n3 is left alone but for its name."""
    kept = {host: os.path.join(STATE, "hosts", host, "etc") for host in ("n1", "n2")}
    for path in kept.values():
        shutil.copytree(path, path + ".kept")
        for entry in os.listdir(path):
            shutil.rmtree(os.path.join(path, entry)) if os.path.isdir(os.path.join(path, entry)) else os.unlink(os.path.join(path, entry))
    yield lab2
    for host, path in kept.items():
        for entry in os.listdir(path):
            shutil.rmtree(os.path.join(path, entry)) if os.path.isdir(os.path.join(path, entry)) else os.unlink(os.path.join(path, entry))
        shutil.copytree(path + ".kept", path, dirs_exist_ok=True)
        shutil.rmtree(path + ".kept")
        for p in processes(host):
            if p.name.startswith("godwit-join"):
                kill(p.pid, signal.SIGKILL)
        lab2.restart_daemon(host)


def token(*options):
    return json.loads(inside("n1", "godwit", "cluster", "token", "--json", *options).stdout)["token"]


def changed(text, at):
    """Another byte there: of the port 0 and 1, of the CA's digest from 2 on, of the secret from 34 on."""
    begin, _, rest = text.partition("-")
    data = bytearray(base64.urlsafe_b64decode(rest))
    data[at] ^= 1
    return begin + "-" + base64.urlsafe_b64encode(data).decode()


def join(host, text, *options):
    return inside(host, "godwit", "cluster", "join", FIRST, text, *options, check=False)


def waiting():
    return [p for p in processes("n1") if p.name == "godwit-join"]


def test_three_commands(bare):
    done = inside("n1", "godwit", "cluster", "init")
    assert f"Node n1 at {FIRST}" in done.stdout, done.stdout
    assert "already" in inside("n1", "godwit", "cluster", "init", check=False).stderr
    bare.restart_daemon("n1")
    first = token()
    for text, why in ((changed(first, 2), "has not the CA"), (changed(first, 40), "refused"), (first[:-4], "no token")):
        refused = join("n2", text)
        assert refused.returncode == 1 and why in refused.stderr, refused.stderr
    assert os.listdir(os.path.join(STATE, "hosts/n2/etc")) == []
    done = join("n2", first)
    assert done.returncode == 0 and "node n2 at 10.66.0.2" in done.stdout, done.stderr
    wait_until("it is used up", lambda: not waiting())
    etc = os.path.join(STATE, "hosts/n2/etc")
    assert os.stat(os.path.join(etc, "tls/node.key")).st_mode & 0o777 == 0o600 and os.stat(os.path.join(etc, "cluster.key")).st_mode & 0o777 == 0o600
    assert not os.path.exists(os.path.join(STATE, "hosts/n1/etc/pki/nodes/n2/node.key"))
    assert inside("n2", "godwit", "config", "check").returncode == 0
    bare.restart_daemon("n2")
    wait_until("they know each other", lambda: "n2    ok" in inside("n1", "godwit", "nodes").stdout and "n1    ok" in inside("n2", "godwit", "nodes").stdout)
    v = Victim(bare, "mem_anon", 4).wait_ready()
    v.migrate("n2", "pre-copy")
    assert came_over_tls(bare, "n2")
    v.assert_ok()
    v.clean()
    left = inside("n2", "godwit", "cluster", "leave").stdout
    assert "godwit pki revoke n2" in left and "tls" not in read(os.path.join(etc, "godwit.conf")).replace("[tls]", "") and not os.path.exists(os.path.join(etc, "cluster.key"))
    assert "nobody waits" in join("n2", first).stderr


def came_over_tls(lab_, host):
    """That what came there came over TLS: a relay has it."""
    return any(p.name.startswith("godwit-tls") for p in processes(host)) and "event=arriving" in read(lab_.log(host))


def test_limits(bare):
    """A name is given once; a token is good for five tries and no more, and for its time."""
    inside("n1", "godwit", "cluster", "init", "--name", "first")
    taken = join("n2", token(), "--name", "first")
    assert taken.returncode == 1 and "first has a certificate" in taken.stderr, taken.stderr
    wait_until("it is used up", lambda: not waiting())
    text = token("--port", "4480")
    for _ in range(4):
        assert join("n2", changed(text, 50)).returncode == 1
    assert waiting()
    assert join("n2", changed(text, 50)).returncode == 1
    wait_until("it has ended", lambda: not waiting())
    assert "nobody waits" in join("n2", text).stderr
    text = token("--ttl", "2s")
    begun = time.monotonic()
    inside("n2", "python3", "-c", f"import socket\nfor i in range(20): socket.create_connection(('{FIRST}', 4471)).sendall(b'GET / HTTP/1.0\\r\\n\\r\\n' * 100)")
    wait_until("its time is over", lambda: not waiting())
    assert time.monotonic() - begun > 1
