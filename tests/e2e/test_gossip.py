# SPDX-License-Identifier: GPL-2.0-or-later
"""What a node knows of the others, and how it gets to know: gossip, seeds, states."""

import base64
import contextlib
import json
import os
import shutil
import signal

import pytest
from lab_driver import STATE, inside, kill, lab, popen, processes, read, wait_until

SEEDS = """[node]
name = {name}
listen = {address}
labels = has_{name}
[cluster]
seed = 10.66.0.1
"""


def nodes(host):
    return {node["name"]: node for node in json.loads(inside(host, "godwit", "nodes", "--json").stdout)["nodes"]}


def states(host):
    return {name: node["state"] for name, node in nodes(host).items()}


def select(host, *require):
    return json.loads(inside(host, "godwit", "select", "--json", *require, check=False).stdout)["nodes"]


@contextlib.contextmanager
def configured(lab_, texts):
    """Hosts with other configurations, for a while."""
    paths = {host: os.path.join(STATE, "hosts", host, "etc/godwit.conf") for host in texts}
    before = {host: read(path) for host, path in paths.items()}

    def use(all_texts):
        for host, text in all_texts.items():
            with open(paths[host], "w") as f:
                f.write(text)
            lab_.restart_daemon(host)
    try:
        use(texts)
        yield
    finally:
        use(before)


def test_seed(lab2):
    """Nodes that know one address find all others, their labels and where they are, and move processes there by name."""
    with configured(lab2, {f"n{i}": SEEDS.format(name=f"n{i}", address=f"10.66.0.{i}") for i in (2, 3)}):
        for one, other in (("n3", "n2"), ("n2", "n3")):
            wait_until(f"{one} knows {other}", lambda: nodes(one).get(other, {}).get("labels") == f"has_{other}", 10)     # noqa: B023
        found = nodes("n3")
        assert {name: node["address"] for name, node in found.items()} == {f"n{i}": f"10.66.0.{i}:4470" for i in (1, 2, 3)}
        assert all(node["state"] == "ok" and node["age_ms"] < 10000 and node["indices"]["cores"] > 0 for node in found.values()), found
        assert select("n2", "-R", "has_n3") == ["n3"]
        script = "until [ $(hostname) = n2 ]; do sleep 0.1; done; echo moved to $(hostname)"
        assert inside("n3", "sh", "-c", f"godwit run -R has_n2 -- sh -c '{script}'; echo status $?").stdout == "moved to n2\nstatus 0\n"


def test_confined(lab2):
    """Who reads what strangers send has no rights to lose."""
    for host in lab2.hosts:
        p = wait_until(f"godwit-cluster of {host}", lambda host=host: next((p for p in processes(host) if p.name == "godwit-cluster"), None))
        status = dict(line.split(":\t", 1) for line in read(f"/proc/{p.pid}/status").splitlines())
        assert status["Uid"].split() == ["65534"] * 4 and int(status["CapPrm"], 16) == int(status["CapBnd"], 16) == 0 and status["NoNewPrivs"] == "1" and status["Seccomp"] == "2", status


def test_unreachable(lab2):
    """A link that is cut: both ends find out, the third does not; when godwitd ends, all hear of it at once."""
    wait_until("all are there", lambda: set(states("n1").values()) == {"ok"} and len(states("n1")) == 3)
    lab("cut", "n1", "n2")
    wait_until("n2 is missed", lambda: states("n1") == {"n1": "ok", "n2": "unreachable", "n3": "ok"}, 15, 0.2)
    assert states("n3") == {"n1": "ok", "n2": "ok", "n3": "ok"}
    assert "n2" not in select("n1")
    lab("heal", "n1", "n2")
    wait_until("n2 is back", lambda: states("n1")["n2"] == "ok", 15, 0.2)


def test_ps(lab2):
    """The whole cluster on any node: where a unit is, how often it has moved and why; of a node that does not answer, what the homes know."""
    def units(host, *options):
        answer = json.loads(inside(host, "godwit", "ps", "--json", *options).stdout)
        return {u["unit"]: u for u in answer["units"] if u["command"] == "sleep 83.75"}, [s["node"] for s in answer["silent"]]
    shell = popen("n1", "sh", "-c", "godwit run -- sleep 83.75 & godwit run -R name==n2 -- sleep 83.75 & wait", stdin=-3, stdout=-3, stderr=-3)
    try:
        wait_until("both have begun", lambda: sorted(u["on"] for u in units("n3")[0].values()) == ["n1", "n2"])
        first, second = sorted(units("n3")[0].values(), key=lambda u: u["on"])
        assert (first["moves"], first["reason"], first["home"]) == (0, "", "n1")
        assert (second["moves"], second["reason"], second["home"], second["from"]) == (1, "run: it was to begin there", "n1", "n1")
        moved = json.loads(inside("n1", "godwit", "migrate", "--json", second["unit"], "n3").stdout)
        assert moved["outcome"] == "moved"
        there = units("n2")[0][second["unit"]]
        assert (there["on"], there["pid"], there["moves"], there["reason"], there["from"]) == ("n3", moved["pid"], 2, "", "n2")
        assert f"n1:{there['stub']}" == second["unit"], "its stub has the number that it had"
        table = inside("n2", "godwit", "ps").stdout
        assert "somebody said so" in table and "n3" in table
        assert units("n2", "--here") == ({}, [])
        wait_until("home knows", lambda: units("n1", "--here")[0][second["unit"]]["on"] == "n3")
        lab("cut", "n1", "n3")
        found, silent = units("n1")     # at once, whether the cut has been noticed or not
        assert silent == ["n3"] and found[second["unit"]]["on"] == "n3" and "moves" not in found[second["unit"]], found
    finally:
        lab("heal", "n1", "n3", check=False)
        for host in ("n1", "n2", "n3"):
            inside(host, "pkill", "-f", "sleep 83.75", check=False)
        shell.wait()


ETCD = """[node]
name = {name}
listen = {address}
labels = has_{name}
[cluster]
key_file = /etc/godwit/other.key
etcd = https://10.66.0.1:1
etcd = https://10.66.0.1:2379
etcd_lease_s = 3
etcd_ca = /etc/godwit/ca.pem
etcd_cert = /etc/godwit/node.pem
etcd_key = /etc/godwit/node.key
"""

PKI = """
set -e
cd /etc/godwit
key='ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
openssl req -x509 -newkey $key -subj /CN=authority -keyout ca.key -out ca.pem -days 2
for who in server node; do
	openssl req -newkey $key -subj /CN=$who -keyout $who.key -out $who.csr
	printf 'subjectAltName=IP:10.66.0.1\nextendedKeyUsage=serverAuth,clientAuth\n' >$who.ext
	openssl x509 -req -in $who.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile $who.ext -out $who.pem
done
"""


def etcd_curl(*arguments):
    return inside("n1", "curl", "-sS", "--cacert", "/etc/godwit/ca.pem", "--cert", "/etc/godwit/node.pem", "--key", "/etc/godwit/node.key", *arguments, check=False)


def etcd_ask(path, question):
    return json.loads(etcd_curl(f"https://10.66.0.1:2379/v3/kv/{path}", "-d", json.dumps(question)).stdout)


def text64(text):
    return base64.b64encode(text.encode()).decode()


def etcd_all(prefix):
    """key: (value, mod_revision), of etcd itself."""
    found = etcd_ask("range", {"key": text64(prefix), "range_end": text64(prefix[:-1] + chr(ord(prefix[-1]) + 1))})
    return {base64.b64decode(kv["key"]).decode()[len(prefix):]: (json.loads(base64.b64decode(kv["value"])), int(kv["mod_revision"])) for kv in found.get("kvs", [])}


def start_etcd():
    etcd = popen("n1", "etcd", "--data-dir", "/tmp/etcd", "--listen-client-urls", "https://10.66.0.1:2379", "--advertise-client-urls", "https://10.66.0.1:2379",
                 "--listen-peer-urls", "http://127.0.0.1:2380", "--client-cert-auth", "--trusted-ca-file", "/etc/godwit/ca.pem", "--cert-file", "/etc/godwit/server.pem",
                 "--key-file", "/etc/godwit/server.key", stdin=-3, stdout=-3, stderr=-3)
    wait_until("etcd", lambda: "true" in etcd_curl("https://10.66.0.1:2379/health").stdout, 20)
    return etcd


def end_etcd(etcd):
    inside("n1", "pkill", "-x", "etcd", check=False)
    etcd.wait()


@pytest.fixture
def with_etcd(lab2):
    """etcd on n1, with TLS and client certificates; n2 and n3 use it, and have another key than n1, which would tell them of each other."""
    etc = os.path.join(STATE, "hosts/{}/etc")
    inside("n1", "rm", "-rf", "/tmp/etcd")
    inside("n1", "bash", "-c", PKI)
    for host in ("n2", "n3"):
        for name in ("ca.pem", "node.pem", "node.key"):
            shutil.copy(os.path.join(etc.format("n1"), name), etc.format(host))
        inside(host, "sh", "-c", "umask 077; echo the key of n2 and n3 >/etc/godwit/other.key")
    etcd = start_etcd()
    try:
        with configured(lab2, {f"n{i}": ETCD.format(name=f"n{i}", address=f"10.66.0.{i}") for i in (2, 3)}):
            wait_until("n2 knows n3", lambda: states("n2") == {"n2": "ok", "n3": "ok"} and nodes("n2")["n3"]["labels"] == "has_n3")
            yield etcd
    finally:
        end_etcd(etcd)


def move(host, unit, to):
    return json.loads(inside(host, "godwit", "migrate", "--json", unit, to, check=False).stdout)


def refusal(result, code):
    assert result["outcome"] == "refused", result
    found, = result["refusals"]
    assert found["code"] == code, found
    return found["cause"]


def record_of(unit):
    return etcd_all("/godwit/units/").get(unit, (None, 0))


def put_record(unit, value):
    etcd_ask("put", {"key": text64(f"/godwit/units/{unit}"), "value": text64(json.dumps(value))})


def test_etcd(with_etcd):
    """Nodes find each other in etcd, by https with client certificates. Who moves a unit takes its record first: each move makes its number grow, one that fails gives it back, and
    what is another node's by its record is not moved. When etcd does not answer nothing moves, and what runs runs on; when it is back, a newer record is left alone and told of."""
    etcd = with_etcd
    assert inside("n1", "curl", "-s", "--cacert", "/etc/godwit/ca.pem", "https://10.66.0.1:2379/health", check=False).returncode, "who has no certificate is not let in"
    assert {name: value["address"] for name, (value, _) in etcd_all("/godwit/nodes/").items()} == {"n2": "10.66.0.2:4470", "n3": "10.66.0.3:4470"}
    keepers = lambda: [p for p in processes("n3") for q in processes("n3") if p.name == q.name == "godwit-etcd" and p.parent == q.pid]     # noqa: E731
    first = wait_until("godwit-etcd", keepers)
    kill(first[0].pid, signal.SIGKILL)
    wait_until("another one", lambda: any(p.pid != first[0].pid for p in keepers()))
    shell = popen("n2", "sh", "-c", "godwit run -- sleep 84.75; :", stdin=-3, stdout=-3, stderr=-3)
    try:
        unit = wait_until("a record", lambda: next(iter(etcd_all("/godwit/units/")), None))
        value, first = record_of(unit)
        assert value == {"owner": "n2", "moves": 0} and unit.startswith("n2:")
        assert move("n2", unit, "n3")["outcome"] == "moved"
        wait_until("n3 owns it", lambda: record_of(unit)[0] == {"owner": "n3", "moves": 1})
        second = record_of(unit)[1]
        assert second >= first + 2, "it was claimed, and handed over"
        inside("n2", "sh", "-c", "echo dest:prepare:error >/run/godwit/fault")
        assert move("n3", unit, "n2")["outcome"] == "failed"
        inside("n2", "rm", "-f", "/run/godwit/fault")
        wait_until("it is given back", lambda: record_of(unit)[0] == {"owner": "n3", "moves": 1} and record_of(unit)[1] >= second + 2)
        put_record(unit, {"owner": "n2", "moves": 1, "to": "n1"})     # another node moves what it takes for the same unit
        assert "says that it is n2's after 1, which moves it to n1" in refusal(move("n3", unit, "n2"), "owner.other")
        checked = inside("n3", "godwit", "check", "--to", "n2", "--json", str(next(u["pid"] for u in json.loads(inside("n3", "godwit", "ps", "--json").stdout)["units"])), check=False)
        assert "owner.other" in checked.stdout, checked.stdout
        assert record_of(unit)[0] == {"owner": "n2", "moves": 1, "to": "n1"}, "it is left alone"
        put_record(unit, {"owner": "n2", "moves": 0, "to": "n3"})     # the hand-over to this node, which has not been written down
        assert move("n3", unit, "home")["outcome"] == "moved"
        wait_until("n2 owns it", lambda: record_of(unit)[0] == {"owner": "n2", "moves": 2})
        assert move("n2", unit, "n3")["outcome"] == "moved"
        wait_until("n3 owns it", lambda: record_of(unit)[0] == {"owner": "n3", "moves": 3})
        newer = {"owner": "n2", "moves": 9}
        put_record(unit, newer)
        end_etcd(etcd)
        assert "etcd at https://10.66.0.1:" in refusal(move("n3", unit, "home"), "owner.unknown")
        log = os.path.join(STATE, "hosts/n3/godwitd.log")
        wait_until("n3 misses it", lambda: "event=etcd-failed" in read(log))
        assert select("n2", "-R", "has_n3") == ["n3"]
        etcd = start_etcd()
        wait_until("n3 finds the newer record", lambda: "event=owner-conflict" in read(log), 15)
        assert record_of(unit)[0] == newer
        refusal(move("n3", unit, "n2"), "owner.other")
        etcd_ask("deleterange", {"key": text64(f"/godwit/units/{unit}")})
        assert move("n3", unit, "home")["outcome"] == "moved"
        wait_until("n2 owns it", lambda: record_of(unit)[0] == {"owner": "n2", "moves": 4})
    finally:
        end_etcd(etcd)
        inside("n2", "rm", "-f", "/run/godwit/fault")
        for host in ("n2", "n3"):
            inside(host, "pkill", "-f", "sleep 84.75", check=False)
        shell.wait()


def test_drained(lab2):
    """Everybody hears of a state at once, nothing is chosen there,."""
    inside("n2", "godwit", "drain")
    try:
        wait_until("n1 and n3 know", lambda: states("n1")["n2"] == states("n3")["n2"] == "drained")
        assert select("n1", "-R", "name==n2") == [] and sorted(select("n1")) == ["n1", "n3"]
    finally:
        inside("n2", "godwit", "undrain")
    wait_until("n2 is back", lambda: states("n1")["n2"] == "ok")
