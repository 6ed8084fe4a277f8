# SPDX-License-Identifier: GPL-2.0-or-later
"""The REST API: it says what docs/openapi.json says, moves units, and knows who asks."""

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import threading
import time

import pytest
from lab_driver import BUILD, ROOT, STATE, inside, kill, main_daemon, popen, processes, read, wait_until

DOCUMENT = json.loads(read(os.path.join(ROOT, "docs/openapi.json")))
USER = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")


def fits(value, schema, where="answer"):
    """What of a value is not as a schema says, with the few words of JSON Schema that the document uses."""
    if "$ref" in schema:
        return fits(value, DOCUMENT["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]], where)
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool}
    if not isinstance(value, kinds[schema["type"]]) or (isinstance(value, bool) and schema["type"] != "boolean"):
        return [f"{where}: {value!r} is no {schema['type']}"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{where}: {value!r} is none of {schema['enum']}"]
    wrong = []
    if isinstance(value, list):
        for i, one in enumerate(value):
            wrong += fits(one, schema["items"], f"{where}[{i}]")
    if isinstance(value, dict):
        wrong += [f"{where}: lacks {key}" for key in schema.get("required", []) if key not in value]
        for key, one in value.items():
            known = schema.get("properties", {}).get(key, schema.get("additionalProperties", True))
            if known is False:
                wrong.append(f"{where}: {key} is unknown")
            elif isinstance(known, dict):
                wrong += fits(one, known, f"{where}.{key}")
    return wrong


def call(method, path, body=None, user=(), host="n1", raw=None):
    """The status and the answer of a request."""
    data = ["--data-binary", raw if raw is not None else json.dumps(body)] if body is not None or raw is not None else []
    done = inside(host, *user, "curl", "-s", "--max-time", "20", "--unix-socket", "/run/godwit/api.sock", "-X", method, *data, "-w", "\n%{http_code}", f"http://localhost{path}", check=False)
    assert done.returncode == 0, f"{method} {path}: curl {done.returncode} {done.stderr}"
    text, status = done.stdout.rsplit("\n", 1)
    return int(status), json.loads(text)


def checked(method, path, template, *arguments, **options):
    """The same, held against the document."""
    status, said = call(method, path, *arguments, **options)
    responses = DOCUMENT["paths"][template][method.lower()]["responses"]
    answer = responses.get(str(status), responses["default"] if status >= 400 else None)
    assert answer, f"{method} {template}: {status} is not in the document: {said}"
    assert not (wrong := fits(said, answer["content"]["application/json"]["schema"])), wrong
    return status, said


class Events:
    """What a listener hears, held against the document."""

    def __init__(self, user, last_id):
        header = ["-H", f"Last-Event-ID: {last_id}"] if last_id else []
        self.curl = popen("n1", *user, "curl", "-sN", "--max-time", "60", "--unix-socket", "/run/godwit/api.sock", *header, "http://localhost/v1/events", stdout=subprocess.PIPE)
        self.heard, self.last_id = queue.Queue(), None
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        event = {}
        for line in self.curl.stdout:
            if line.strip():
                event.update([line.rstrip("\n").split(": ", 1)])
            elif event:
                self.heard.put((event.get("id"), event.get("event"), json.loads(event["data"]) if "data" in event else None))
                event = {}

    def until(self, *kinds, seconds=15, **members):
        """The next event of such a kind that has such members in its data; and all that came before it."""
        before, until = [], time.monotonic() + seconds
        while True:
            number, kind, data = self.heard.get(timeout=max(until - time.monotonic(), 0.01))
            if kind is None:
                continue
            assert not (wrong := fits({kind: data}, {**DOCUMENT["components"]["schemas"]["EventData"], "additionalProperties": False})), wrong
            self.last_id = number
            if kind in kinds and all(data.get(key) == value for key, value in members.items()):
                return data, before
            before.append((kind, data))


@contextlib.contextmanager
def listening(user=(), last_id=None):
    events = Events(user, last_id)
    yield events
    events.curl.terminate()
    events.curl.wait()


@pytest.fixture
def api(lab2):
    path = os.path.join(STATE, "hosts/n1/etc/godwit.conf")
    before = read(path)
    with open(path, "a", encoding="ascii") as f:
        f.write("\n[api]\nenabled = yes\n")
    lab2.restart_daemon("n1")
    wait_until("it listens", lambda: any(p.name == "godwit-api" for p in processes("n1")))
    yield lab2
    with open(path, "w", encoding="ascii") as f:
        f.write(before)
    lab2.restart_daemon("n1")
    wait_until("it has ended", lambda: not any(p.name == "godwit-api" for p in processes("n1")))


def start_as(*ids):
    pid = int(inside("n1", *ids, "sh", "-c", "setsid sleep 900 </dev/null >/dev/null 2>&1 & echo $!").stdout)
    wait_until("it sleeps", lambda: "sleep" in inside("n1", "cat", f"/proc/{pid}/comm", check=False).stdout)
    return pid


def end_of(number, **options):
    """What a migration has come to."""
    until = time.monotonic() + 30
    while True:
        status, said = checked("GET", f"/v1/migrations/{number}", "/v1/migrations/{id}", **options)
        assert status == 200
        if said["state"] != "running":
            return said
        assert time.monotonic() < until, said
        time.sleep(0.02)


def test_document():
    """Its paths are those of the server, and no others."""
    table = re.findall(r'\{ "(GET|POST|PUT|DELETE)", \{ ([^}]*) \}', read(os.path.join(ROOT, "src/api/paths.c")))
    served = {(method, "/v1/" + "/".join(re.findall(r'"([^"]*)"', path))) for method, path in table}
    said = {(method.upper(), re.sub(r"\{\w+\}", "*", path)) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert served | {("GET", "/metrics")} == said and len(served) > 10


def test_answers(api):
    """Everything that only looks, and what switches and drains; the same as the command says."""
    assert checked("GET", "/v1/version", "/v1/version")[1]["version"] in subprocess.run([os.path.join(BUILD, "src/daemon/godwitd"), "--version"], capture_output=True, text=True, check=True).stdout
    names = {n["name"] for n in checked("GET", "/v1/nodes", "/v1/nodes")[1]["nodes"]}
    assert names == {n["name"] for n in json.loads(inside("n1", "godwit", "nodes", "--json").stdout)["nodes"]} == {"n1", "n2", "n3"}
    assert checked("GET", "/v1/nodes/n2", "/v1/nodes/{node}")[1]["name"] == "n2"
    assert checked("GET", "/v1/nodes/n9", "/v1/nodes/{node}")[1]["error"]["code"] == "unknown-node"
    for path in ("/v1/units", "/v1/connections", "/v1/balance", "/v1/migrations", "/v1/history"):
        assert checked("GET", path, path)[0] == 200
    assert checked("GET", "/v1/history?last=2000", "/v1/history")[0] == checked("GET", "/v1/history?last=-1", "/v1/history")[0] == 400
    for on in (True, False):
        assert checked("PUT", "/v1/balance", "/v1/balance", {"on": on})[0] == 200
        assert checked("GET", "/v1/balance", "/v1/balance")[1]["balance"] is on
    status, drained = checked("POST", "/v1/nodes/n3/drain", "/v1/nodes/{node}/drain")
    assert status == 202 and end_of(drained["id"])["result"]["state"] == "drained"
    assert checked("DELETE", "/v1/nodes/n3/drain", "/v1/nodes/{node}/drain")[1]["was_drained"] is True


def test_moves(api):
    """There and back, what is refused, what cannot be, and what is interrupted."""
    pid = start_as()
    unit = f"n1:{pid}"
    for to in ("n2", "home"):
        status, begun = checked("POST", "/v1/migrations", "/v1/migrations", {"unit": unit, "host": to, "reason": "because"})
        assert status == 202 and begun["request"]["host"] == to
        ended = end_of(begun["id"])
        assert ended["state"] == "moved" and ended["result"]["outcome"] == "moved" and ended["result"]["freeze_us"] > 0, ended
        assert {u["unit"]: u["on"] for u in checked("GET", "/v1/units", "/v1/units")[1]["units"]}.get(unit, "n1") == {"n2": "n2", "home": "n1"}[to]
        if to == "n2":
            assert checked("GET", f"/v1/units/{unit}", "/v1/units/{unit}")[1]["on"] == "n2"
        status, why = checked("GET", f"/v1/units/{unit}/explain", "/v1/units/{unit}/explain")
        assert (status, why.get("unit")) == (200, unit), why
    assert checked("DELETE", f"/v1/migrations/{begun['id']}", "/v1/migrations/{id}")[0] == 409
    failed = end_of(checked("POST", "/v1/migrations", "/v1/migrations", {"unit": unit, "host": "nowhere"})[1]["id"])
    assert failed["state"] == "failed" and failed["error"]["code"] == "unknown-host", failed
    inside("n1", "kill", str(pid))


def test_events(api):
    """A unit that appears, moves and ends is heard of, and so is its migration; by others it is not. Who was away gets what he has missed."""
    pid = start_as("setpriv", "--reuid=0")
    unit = f"n1:{pid}"
    with listening() as heard, listening(user=USER) as others:
        at_first, before = heard.until("snapshot")
        assert not before and {n["name"] for n in at_first["nodes"]} == {"n1", "n2", "n3"} and unit not in {u["unit"] for u in at_first["units"]}
        others.until("snapshot")
        number = checked("POST", "/v1/migrations", "/v1/migrations", {"unit": unit, "host": "n2"})[1]["id"]
        done, before = heard.until("migration", id=number, state="moved")
        assert done["result"]["to"] == "n2" and [d["state"] for k, d in before if k == "migration"][0] == "running"
        heard.until("unit-appeared", unit=unit, on="n2")
        trace, _ = heard.until("move", unit=unit)
        assert trace["outcome"] == "moved" and {"freeze", "push"} <= {span["name"] for span in trace["spans"]}
        assert checked("GET", f"/v1/history?unit={unit}", "/v1/history")[1]["moves"][0]["trace_id"] == trace["trace_id"]
        heard.until("node", name="n2")
        at = heard.last_id
        checked("POST", "/v1/migrations", "/v1/migrations", {"unit": unit, "host": "n3"})
        moved, _ = heard.until("unit-moved", unit=unit)
        assert (moved["from"], moved["to"], moved["now"]["on"]) == ("n2", "n3", "n3")
    with listening(last_id=at) as again:
        _, before = again.until("unit-moved", unit=unit, to="n3")
        assert "snapshot" not in [kind for kind, _ in before]
        inside("n3", "kill", str(pid))
        again.until("unit-ended", unit=unit)
    with listening(last_id="1.1-7") as stranger:
        assert not stranger.until("snapshot")[1]
    said = []
    with contextlib.suppress(queue.Empty):
        while True:
            said.append(others.heard.get_nowait())
    assert said and not [kind for _, kind, _ in said if kind not in ("node", None)], said
    wait_until("nobody asks any more", lambda: not any(p.name == "curl" for p in processes("n1")))


CLIENT = """
import sys
sys.path.insert(0, sys.argv[1])
import godwit

cluster, unit = godwit.Client(), sys.argv[2]
events = cluster.events()
assert next(events).name == "snapshot" and [n["name"] for n in cluster.nodes()] == ["n1", "n2", "n3"] and cluster.node("n2")["state"] == "ok"
states = []
moved = cluster.migrate(unit, "n2", reason="a test", on_change=lambda m: states.append(m["state"]))
assert moved["result"]["to"] == cluster.unit(unit)["on"] == "n2" and states[0] == "running" and states[-1] == "moved"
assert next(e for e in events if e.name == "unit-appeared").data["unit"] == unit
assert cluster.history(unit, last=1)[0]["outcome"] == "moved" and cluster.balance()["balance"] is False
assert cluster.undrain("n3")["was_drained"] is False and cluster.explain(unit)["unit"] == unit and "moved" in {m["state"] for m in cluster.migrations()}
for code, status, tried in (("unknown-host", 200, lambda: cluster.migrate(unit, "nowhere")), ("unknown-unit", 404, lambda: cluster.unit("n1:1")), ("bad-request", 400, lambda: cluster.migrate(unit, "n2", hops=1)),
                            ("no-answer", 0, godwit.Client("/nowhere").nodes)):
    try:
        tried()
    except godwit.Error as error:
        assert (error.code, error.status) == (code, status) and error.message, (code, error.code, error.status)
    else:
        raise AssertionError(code)
"""


def test_client(api):
    """The client for Python: it moves a unit, hears of it, and says what is wrong."""
    pid = start_as("setpriv", "--reuid=0")
    inside("n1", "/usr/bin/python3", "-c", CLIENT, os.path.join(ROOT, "python"), f"n1:{pid}")
    inside("n2", "kill", str(pid))


def test_interrupted(api):
    """One that waits for its turn, and the one that it waits for, whose destination says nothing: the unit goes on here."""
    pid = start_as()
    inside("n2", "sh", "-c", "echo dest:offer:stop >/run/godwit/fault")
    order = {"unit": f"n1:{pid}", "host": "n2"}
    try:
        first = checked("POST", "/v1/migrations", "/v1/migrations", order)[1]["id"]
        wait_until("it has begun", lambda: checked("GET", f"/v1/migrations/{first}", "/v1/migrations/{id}")[1]["phases"])
        second = checked("POST", "/v1/migrations", "/v1/migrations", order)[1]["id"]
        assert checked("DELETE", f"/v1/migrations/{second}", "/v1/migrations/{id}")[0] == 202
        assert end_of(second)["state"] == "cancelled"
        status, said = checked("DELETE", f"/v1/migrations/{first}", "/v1/migrations/{id}")
        assert (status, said["state"]) == (202, "running")
    finally:
        inside("n2", "rm", "-f", "/run/godwit/fault")
        for p in processes("n2"):
            if p.name == "godwit-dest":
                kill(p.pid, signal.SIGKILL)
    assert end_of(first)["state"] in ("cancelled", "failed")
    inside("n1", "kill", str(pid))          # it is there


def test_users(api):
    """Who asks is who has connected: theirs they move and see, and nothing else."""
    theirs, roots = start_as(*USER), start_as("setpriv", "--reuid=0")
    for method, path, template, body in (("GET", "/v1/connections", "/v1/connections", None), ("PUT", "/v1/balance", "/v1/balance", {"on": True}),
                                         ("DELETE", "/v1/nodes/n2/drain", "/v1/nodes/{node}/drain", None)):
        status, said = checked(method, path, template, body, user=USER)
        assert (status, said["error"]["code"]) == (403, "permission"), said
    refused = end_of(checked("POST", "/v1/migrations", "/v1/migrations", {"unit": f"n1:{roots}", "host": "n2"}, user=USER)[1]["id"], user=USER)
    assert refused["state"] == "refused" and refused["error"]["refusals"][0]["code"] == "task.not-yours", refused
    of_root = checked("POST", "/v1/migrations", "/v1/migrations", {"unit": f"n1:{roots}", "host": "n2"})[1]["id"]
    assert end_of(of_root)["state"] == "moved"
    assert checked("GET", f"/v1/migrations/{of_root}", "/v1/migrations/{id}", user=USER)[0] == 404
    assert checked("DELETE", f"/v1/migrations/{of_root}", "/v1/migrations/{id}", user=USER)[0] == 404
    moved = end_of(checked("POST", "/v1/migrations", "/v1/migrations", {"unit": f"n1:{theirs}", "host": "n2"}, user=USER)[1]["id"], user=USER)
    assert moved["state"] == "moved", moved
    assert [u["unit"] for u in checked("GET", "/v1/units", "/v1/units", user=USER)[1]["units"]] == [f"n1:{theirs}"]
    assert {m["uid"] for m in checked("GET", "/v1/migrations", "/v1/migrations", user=USER)[1]["migrations"]} == {65534}
    inside("n2", "kill", str(theirs), str(roots))


HOG = ("import socket,time\nkept=[]\nfor i in range(64):\n s=socket.socket(socket.AF_UNIX)\n s.connect('/run/godwit/api.sock')\n try: s.send(b'GET /v1/version HTTP/1.1\\r\\n')\n except OSError: pass\n kept.append(s)\n"
       "time.sleep(0.3)\nn=0\nfor s in kept:\n s.settimeout(0.01)\n try: n+=s.recv(1)==b''\n except TimeoutError: pass\n except OSError: n+=1\nprint(n)\n")


def test_what_is_odd(api):
    """What is no request is answered, and who takes too much leaves room for others; godwit-api is nobody."""
    for path in ("/v2/nodes", "/v1", "/v1/nothing", "/v1/nodes/", "/v1//nodes", "/v1/a/b/c/d/e", "/v1/" + "x" * 400):
        assert call("GET", path)[0] == 404, path
    assert call("POST", "/v1/nodes", {})[0] == 405
    for raw, status in (("x", 400), ("[1]", 400), ('{"on": 1}', 400), ('{"on": true, "on": true}', 400), ('{"on": true, "off": 1}', 400), ("x" * 5000, 413)):
        assert checked("PUT", "/v1/balance", "/v1/balance", raw=raw)[0] == status, raw
    assert checked("POST", "/v1/migrations", "/v1/migrations", {"unit": "n1:1", "host": "n2", "hops": 1})[0] == 400
    assert end_of(checked("POST", "/v1/migrations", "/v1/migrations", {"unit": "n1", "host": "n2"})[1]["id"])["error"]["code"] == "bad-request"
    assert int(inside("n1", *USER, "/usr/bin/python3", "-c", HOG).stdout) == 48
    assert call("GET", "/v1/version")[0] == 200
    server = next(p for p in processes("n1") if p.name == "godwit-api")
    status = read(f"/proc/{server.pid}/status")
    assert re.search(r"^Uid:\t65534\t65534", status, re.M) and re.search(r"^CapEff:\t0+$", status, re.M) and re.search(r"^Seccomp:\t2", status, re.M)
    assert main_daemon("n1")


def test_metrics(api):
    """As Prometheus asks for them, and as the command prints them; also for users."""
    for user in ((), USER):
        done = inside("n1", *user, "curl", "-s", "--max-time", "20", "-D", "-", "--unix-socket", "/run/godwit/api.sock", "http://localhost/metrics").stdout
        headers, _, text = done.replace("\r", "").partition("\n\n")
        assert "Content-Type: text/plain; version=0.0.4" in headers, done
        names = re.findall(r"^# TYPE (\S+)", text, re.M)
        assert names == re.findall(r"^# TYPE (\S+)", inside("n1", "godwit", "metrics").stdout, re.M) and len(names) > 20
    assert call("POST", "/metrics")[0] == 405
