# SPDX-License-Identifier: LGPL-2.1-or-later
"""Godwit's API for Python, with the standard library only (docs/api.md).

    import godwit

    cluster = godwit.Client()                                   # this node's /run/godwit/api.sock, as the user who you are
    cluster = godwit.Client("https://n1:8470", token="gwt_...", cafile="ca.pem")

    for unit in cluster.units():
        print(unit["unit"], "is on", unit["on"])
    done = cluster.migrate("n1:4711", "n2")                     # waits; godwit.Error says why not
    print("it stood still for", done["result"]["freeze_us"], "microseconds")
    for event in cluster.events():                              # for ever, also when the connection is lost in between
        print(event.name, event.data)

What methods return are the objects of the API, as dictionaries and lists. A Client may be used by several threads: each question has a connection of its own.
"""

import collections
import http.client
import json
import socket
import ssl
import time
import urllib.parse

__all__ = ["Client", "Error", "Event"]

SOCKET = "/run/godwit/api.sock"

Event = collections.namedtuple("Event", "id name data")
Event.__doc__ = """What has happened: its id, its name ("unit-moved"), and the data that docs/api.md says for it."""


class Error(Exception):
    """What could not be done. `code` is for programs ("permission", "refused"), `way_out` says what helps, `refusals` has each reason why a unit cannot move; status: of HTTP, 0: there was no answer."""

    def __init__(self, status, error):
        self.status = status
        self.code = error.get("code", "failed")
        self.message = error.get("message", "")
        self.way_out = error.get("way_out", "")
        self.refusals = error.get("refusals", [])
        super().__init__(f"{self.message} [{self.code}]" + (f"; {self.way_out}" if self.way_out else ""))


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def _name(text):
    """Part of a path; units have a colon in their names."""
    return urllib.parse.quote(str(text), safe=":")


class Client:
    """Who asks: by default the user who runs the program, at the socket of this node; with an address "https://NODE:PORT" the user of the token. timeout: in seconds, for each answer."""

    def __init__(self, address=SOCKET, *, token=None, cafile=None, timeout=30):
        self.address, self.timeout = address, timeout
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.context = ssl.create_default_context(cafile=cafile) if address.startswith("https://") else None

    # --- what there is ---

    def version(self):
        return self._ask("GET", "/v1/version")

    def nodes(self):
        return self._ask("GET", "/v1/nodes")["nodes"]

    def node(self, name):
        return self._ask("GET", f"/v1/nodes/{_name(name)}")

    def units(self):
        return self._ask("GET", "/v1/units")["units"]

    def unit(self, name):
        return self._ask("GET", f"/v1/units/{_name(name)}")

    def explain(self, unit):
        """Why it would, or would not, be moved by balancing."""
        return self._ask("GET", f"/v1/units/{_name(unit)}/explain")

    def connections(self):
        return self._ask("GET", "/v1/connections")["connections"]

    def history(self, unit=None, last=None):
        """What moves came to, step by step, the oldest first."""
        asked = {key: value for key, value in (("unit", unit), ("last", last)) if value is not None}
        return self._ask("GET", "/v1/history" + ("?" + urllib.parse.urlencode(asked) if asked else ""))["moves"]

    def events(self, last_id=None):
        """Event after Event, for ever; without last_id a "snapshot" comes first. A connection that is lost is made again, and what was missed is told; Error: one may not listen."""
        pause = 0.5
        while True:
            try:
                for event in self._listen(last_id):
                    last_id, pause = event.id, 0.5
                    yield event
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(pause)
            pause = min(2 * pause, 10)

    # --- what is to be done ---

    def migrate(self, unit, host, *, wait=True, on_change=None, **options):
        """Moves a unit ("n1:4711") to a node, or "home". options: strategy, files, tcp, timeout_ms, reason. Returns the migration, at its end if wait, and calls on_change with it as it goes on. Error: it has not moved."""
        begun = self._ask("POST", "/v1/migrations", {"unit": unit, "host": host, **options})
        return self.wait(begun["id"], on_change) if wait else begun

    def drain(self, node, *, wait=True, on_change=None, **options):
        """Moves everything away from a node. options: parallel, timeout_ms. What stays is in ["result"]."""
        begun = self._ask("POST", f"/v1/nodes/{_name(node)}/drain", options)
        return self.wait(begun["id"], on_change) if wait else begun

    def undrain(self, node):
        return self._ask("DELETE", f"/v1/nodes/{_name(node)}/drain")

    def wait(self, number, on_change=None):
        """Until a migration has ended. Error: it has not moved."""
        before = None
        while True:
            migration = self.migration(number)
            if on_change and migration != before:
                on_change(migration)
            if migration["state"] == "moved":
                return migration
            if migration["state"] != "running":
                raise Error(200, migration.get("error", {"code": migration["state"]}))
            before = migration
            time.sleep(0.05)

    def migrations(self):
        return self._ask("GET", "/v1/migrations")["migrations"]

    def migration(self, number):
        return self._ask("GET", f"/v1/migrations/{_name(number)}")

    def cancel(self, number):
        return self._ask("DELETE", f"/v1/migrations/{_name(number)}")

    def balance(self, on=None):
        """Whether the node balances; switches it, if on is said."""
        return self._ask("GET", "/v1/balance") if on is None else self._ask("PUT", "/v1/balance", {"on": bool(on)})

    # --- how ---

    def _open(self, method, path, body=None, headers=None):
        if self.context:
            where = urllib.parse.urlsplit(self.address)
            connection = http.client.HTTPSConnection(where.hostname, where.port or 443, timeout=self.timeout, context=self.context)
        else:
            connection = _UnixConnection(self.address, self.timeout)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json", **self.headers, **(headers or {})})
            return connection, connection.getresponse()
        except BaseException:
            connection.close()
            raise

    def _ask(self, method, path, body=None):
        try:
            connection, answer = self._open(method, path, body)
            try:
                said = json.loads(answer.read())
            finally:
                connection.close()
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Error(0, {"code": "no-answer", "message": f"{self.address}: {error}", "way_out": "is enabled = yes in [api] of godwit.conf, and does godwitd run?"}) from error
        if answer.status >= 400:
            raise Error(answer.status, said.get("error", {}))
        return said

    def _listen(self, last_id):
        connection, answer = self._open("GET", "/v1/events", headers={"Last-Event-ID": last_id} if last_id else {})
        try:
            if answer.status >= 400:
                raise Error(answer.status, json.loads(answer.read()).get("error", {}))
            fields = {}
            for line in answer:
                key, _, value = line.decode().rstrip("\n").partition(": ")
                if key:
                    fields[key] = value
                    continue
                if "data" in fields:
                    yield Event(fields.get("id"), fields.get("event"), json.loads(fields["data"]))
                fields = {}
        finally:
            connection.close()
