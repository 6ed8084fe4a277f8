# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs begin where a requirement says, and those that begin together are spread over the nodes."""

import json
import subprocess

from lab_driver import DEV, environment, inside, popen, wait_until


def select(host, *require):
    done = inside(host, "godwit", "select", "--json", *require, check=False)
    return json.loads(done.stdout)["nodes"]


def test_select(lab2):
    assert sorted(select("n1")) == ["n1", "n2", "n3"]
    assert select("n2", "-R", "name==n3") == ["n3"]
    assert sorted(select("n2", "-R", "name!=n3 && cores>0 && mem>1M")) == ["n1", "n2"]
    assert select("n1", "-R", "fpga") == []


def test_nodes_on_a_narrow_terminal(lab2):
    """Nothing is left out, and nothing is broken by the end of a line."""
    said = subprocess.run(["script", "-qec", f"{DEV} lab exec --tty n1 -- sh -c 'stty cols 80; godwit nodes'", "/dev/null"], env=environment(), capture_output=True, text=True,
                          timeout=60, stdin=subprocess.DEVNULL).stdout.splitlines()
    said[0] = said[0][said[0].index("NODE"):] # script(1) may write something before it
    headings = [line.split() for line in said if line.startswith("NODE")]
    assert max(map(len, said)) <= 80 and len(headings) > 1, said
    assert [sum(line.startswith(name) for line in said) for name in ("n1", "n2", "n3")] == 3 * [len(headings)], said
    assert sum([heading[1:] for heading in headings], ["NODE"]) == inside("n1", "godwit", "nodes").stdout.splitlines()[0].split()


def test_run_where_it_matches(lab2):
    """The host's name says where the program is, and its status comes home."""
    script = "until [ $(hostname) = n3 ]; do sleep 0.1; done; echo moved to $(hostname); exit 7"
    done = inside("n1", "sh", "-c", f"godwit run -R name==n3 -- sh -c '{script}'; echo status $?")
    assert done.stdout == "moved to n3\nstatus 7\n"


def test_spread(lab2):
    """Six that begin at once, before any figure could say so: none of two nodes has got nothing, or nearly all. How many exactly is a matter of what else is measured while they begin, on a slow machine for seconds."""
    mark = "81.75"
    shell = popen("n1", "bash", "-c", f"for i in 1 2 3 4 5 6; do godwit run -R 'order[r15s]' -- sleep {mark} & done; wait", stdin=-3, stdout=-3, stderr=-3)

    def where():
        units = json.loads(inside("n1", "godwit", "ps", "--json").stdout)["units"]
        away = [u["on"] for u in units if u["command"] == f"sleep {mark}"]
        return {"n2": away.count("n2"), "n3": away.count("n3")}
    try:
        wait_until("units on both other nodes", lambda: min(where().values()) >= 1, 60)
        wait_until("all have begun", lambda: len(json.loads(inside("n1", "godwit", "ps", "--json").stdout)["units"]) == 6, 60)
        assert max(where().values()) <= 4, where()
    finally:
        inside("n1", "pkill", "-f", f"sleep {mark}", check=False)
        shell.wait()


def test_moves_of_one_process_take_turns(lab2):
    """Who wants to move what is being moved waits for his turn, and the process goes on from where it is by then."""
    shell = popen("n1", "bash", "-c", "godwit run --here -- sleep 82.75 & echo $!; wait", stdin=-3, stdout=-1, stderr=-3)
    pid = shell.stdout.readline().strip()
    try:
        orders = [popen("n1", "godwit", "migrate", pid, to, stdin=-3, stdout=-1, stderr=-2) for to in ("n2", "n3")]
        said = [order.communicate(timeout=60)[0] for order in orders]
        assert [order.returncode for order in orders] == [0, 0], said
        units = json.loads(inside("n1", "godwit", "ps", "--json").stdout)["units"]
        assert [(u["moves"], u["unit"]) for u in units if u["command"] == "sleep 82.75"] == [(2, f"n1:{pid}")], units
        assert all(0 < u["freeze_us"] < 2000000 for u in units if u["command"] == "sleep 82.75"), units
    finally:
        inside("n1", "pkill", "-f", "sleep 82.75", check=False)
        shell.wait()
