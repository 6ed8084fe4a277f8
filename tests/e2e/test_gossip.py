# SPDX-License-Identifier: GPL-2.0-or-later
"""What a node knows of the others, and how it gets to know: gossip, seeds, states."""

import contextlib
import json
import os

from lab_driver import STATE, inside, lab, popen, read, wait_until

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


def test_drained(lab2):
    """Everybody hears of a state at once, nothing is chosen there,."""
    inside("n2", "godwit", "drain")
    try:
        wait_until("n1 and n3 know", lambda: states("n1")["n2"] == states("n3")["n2"] == "drained")
        assert select("n1", "-R", "name==n2") == [] and sorted(select("n1")) == ["n1", "n3"]
    finally:
        inside("n2", "godwit", "undrain")
    wait_until("n2 is back", lambda: states("n1")["n2"] == "ok")
