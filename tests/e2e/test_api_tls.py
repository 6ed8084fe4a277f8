# SPDX-License-Identifier: GPL-2.0-or-later
"""The API over TLS: who has a token is its user, others get the dashboard's page and nothing else."""

import json
import os
import re
import subprocess

import pytest
from lab_driver import BUILD, STATE, inside, popen, processes, read, wait_until
from test_tls import TLS, Certificates

TOKENS = os.path.join(STATE, "hosts/n1/etc/api-tokens")
URL = "https://n1:8470"


def call(path, *options, host="n2"):
    """The status and the answer, as another host gets it."""
    done = inside(host, "curl", "-s", "--max-time", "20", "--cacert", "/etc/godwit/own/ca.pem", "--connect-to", "n1:8470:10.66.0.1:8470", *options, "-w", "\n%{http_code}", URL + path, check=False)
    text, status = done.stdout.rsplit("\n", 1)
    return int(status), text


def token(*arguments):
    return subprocess.run([os.path.join(BUILD, "src/cli/godwit"), "token", *arguments, "--file", TOKENS], capture_output=True, text=True, check=False)


@pytest.fixture
def gate(lab2):
    made = Certificates(lab2)
    made.issue("n1", "n2")
    path = os.path.join(STATE, "hosts/n1/etc/godwit.conf")
    before = read(path)
    with open(path, "w", encoding="ascii") as f:
        f.write(before.partition("\n[tls]")[0] + TLS + "\n[api]\nenabled = yes\nlisten = 10.66.0.1:8470\n")
    assert "listen in [api] needs" in inside("n1", "sh", "-c", "sed /^ca/d /etc/godwit/godwit.conf | sed /^key/d | sed /^crl/d | sed /^certificate/d >/tmp/odd.conf; godwit config check /tmp/odd.conf 2>&1", check=False).stdout
    lab2.restart_daemon("n1")
    wait_until("they are there", lambda: {"godwit-api", "godwit-gate", "godwit-tls"} <= {p.name for p in processes("n1")})
    yield lab2
    with open(path, "w", encoding="ascii") as f:
        f.write(before)
    lab2.restart_daemon("n1")
    wait_until("they have ended", lambda: not any(p.name in ("godwit-gate", "godwit-api") for p in processes("n1")))
    for file in (TOKENS, TOKENS + ".new"):
        if os.path.exists(file):
            os.unlink(file)


def test_who_is_who(gate):
    roots, nobodys = token("add", "admin"), token("add", "guest", "--user", "nobody")
    assert (roots.returncode, token("add", "admin").returncode, token("add", "x", "--user", "no-such-user").returncode) == (0, 1, 1)
    assert token("list").stdout == "admin root\nguest nobody\n" and roots.stdout.strip() not in read(TOKENS)
    roots, nobodys = (["-H", f"Authorization: Bearer {t.stdout.strip()}"] for t in (roots, nobodys))
    pid = int(inside("n1", "sh", "-c", "setsid sleep 900 </dev/null >/dev/null 2>&1 & echo $!").stdout)
    assert call("/")[0] == 200 and "<title>Godwit</title>" in call("/")[1] and call("/dashboard/app.js")[0] == 200
    for path in ("/v1/nodes", "/v1/version", "/metrics", "/session", "/?"):
        for key in ([], ["-H", "Authorization: Bearer gwt_" + "0" * 64], ["-H", "Authorization: Bearer x"], ["-H", "Authorization: Basic eDp5"]):
            assert call(path, *key)[0] == 401, (path, key)
    assert json.loads(call("/v1/nodes", *roots)[1])["node"] == "n1"
    assert (call("/v1/connections", *roots)[0], call("/v1/connections", *nobodys)[0], call("/v1/nodes", *nobodys)[0]) == (200, 403, 200)
    order = ["-d", json.dumps({"unit": f"n1:{pid}", "host": "n2"})]
    assert call("/v1/migrations", *nobodys, *order)[0] == 202
    wait_until("it has not been moved", lambda: json.loads(call("/v1/migrations", *nobodys)[1])["migrations"][0]["state"] in ("refused", "failed"))
    assert json.loads(call("/v1/migrations", *roots)[1])["migrations"][0]["uid"] == 65534
    for odd in ("Origin: https://evil.example", "Origin: http://n1:8470", "Sec-Fetch-Site: cross-site"):
        assert call("/v1/nodes", *roots, "-H", odd)[0] == 403, odd
    assert call("/v1/nodes", *roots, "-H", "Origin: https://n1:8470", "-H", "Sec-Fetch-Site: same-origin")[0] == 200
    events = inside("n2", "curl", "-sN", "--max-time", "3", "--cacert", "/etc/godwit/own/ca.pem", "--connect-to", "n1:8470:10.66.0.1:8470", *roots, URL + "/v1/events", check=False).stdout
    assert re.match(r"id: \S+\nevent: snapshot\ndata: \{", events)
    # what reads strangers' bytes is nobody, and there is no way around TLS 1.3
    assert token("remove", "guest").returncode == 0 and call("/v1/nodes", *nobodys)[0] == 401
    assert inside("n2", "curl", "-s", "--max-time", "5", "http://10.66.0.1:8470/", check=False).returncode != 0
    assert inside("n2", "curl", "-sk", "--max-time", "5", "--tls-max", "1.2", "https://10.66.0.1:8470/", check=False).returncode != 0
    os.chmod(TOKENS, 0o644)
    assert call("/v1/nodes", *roots)[0] == 401
    inside("n1", "kill", str(pid))


def test_visits(gate):
    """Connections that say nothing do not keep others out, and who attends to them can do nothing."""
    hold = "import socket,ssl,time\nc=ssl.create_default_context(cafile='/etc/godwit/own/ca.pem')\nk=[]\nfor i in range(20):\n s=socket.create_connection(('10.66.0.1',8470))\n try: k.append(c.wrap_socket(s,server_hostname='n1'))\n except OSError: pass\nprint(len(k),flush=True)\ntime.sleep(900)\n"
    p = popen("n2", "/usr/bin/python3", "-c", hold, stdout=subprocess.PIPE)
    assert int(p.stdout.readline()) == 16
    assert call("/", host="n1")[0] == 200
    visit = next(p for p in processes("n1") if p.name == "godwit-visit")
    status = read(f"/proc/{visit.pid}/status")
    assert re.search(r"^Uid:\t65534\t65534", status, re.M) and re.search(r"^CapEff:\t0+$", status, re.M) and re.search(r"^Seccomp:\t2", status, re.M)
    wait_until("they are sent away", lambda: not any(p.name == "godwit-visit" for p in processes("n1")), seconds=20)
    p.terminate()
    p.wait()
