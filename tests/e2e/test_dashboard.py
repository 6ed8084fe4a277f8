# SPDX-License-Identifier: GPL-2.0-or-later
"""The dashboard: who gets it, and that a browser shows units, moves them, and lets them be moved by hand and by key."""

import json
import os
import re
import socket
import subprocess
import urllib.error
import urllib.request

import chromium
import pytest
from lab_driver import BUILD, STATE, environment, init_of, inside, processes, read, wait_until


class Dashboard:
    """`godwit dashboard` of a host, run outside of it, where the browser is."""

    def __init__(self, host):
        command = [os.path.join(BUILD, "src/cli/godwit"), "--socket", f"/proc/{init_of(host)}/root/run/godwit/godwitd.sock", "dashboard", "--json", "--port", "0"]
        self.process = subprocess.Popen(command, env=environment(), text=True, stdout=subprocess.PIPE)
        self.address()

    def address(self):
        said = json.loads(self.process.stdout.readline())
        self.url, self.port, self.code = said["url"], said["port"], said["url"].rsplit("=", 1)[1]

    def call(self, method, path, body=None, **headers):
        request = urllib.request.Request(f"http://localhost:{self.port}{path}", method=method, data=body, headers={k.replace("_", "-"): v for k, v in headers.items()})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read().decode(), dict(answer.headers)
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(), dict(error.headers)

    def raw(self, text):
        """The first line of what comes back for these bytes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as s:
            s.sendall(text)
            return s.makefile("rb").readline().decode().strip()

    def close(self):
        self.process.terminate()
        self.process.wait()


@pytest.fixture
def dashboard(lab2):
    path = os.path.join(STATE, "hosts/n1/etc/godwit.conf")
    before = read(path)
    with open(path, "a", encoding="ascii") as f:
        f.write("\n[api]\nenabled = yes\n")
    lab2.restart_daemon("n1")
    wait_until("it listens", lambda: any(p.name == "godwit-api" for p in processes("n1")))
    made = Dashboard("n1")
    yield made
    made.close()
    with open(path, "w", encoding="ascii") as f:
        f.write(before)
    lab2.restart_daemon("n1")


def start(*moves, program="sleep"):
    """A unit that has gone along these hosts."""
    pid = int(inside("n1", "sh", "-c", f"cp /bin/sleep /tmp/{program}; setsid /tmp/{program} 900 </dev/null >/dev/null 2>&1 & echo $!").stdout)
    wait_until("it sleeps", lambda: program in inside("n1", "cat", f"/proc/{pid}/comm", check=False).stdout)
    for host in moves:
        inside("n1", "godwit", "migrate", f"n1:{pid}", host, "--quiet")
    return f"n1:{pid}"


def end(*units):
    pids = [unit.split(":")[1] for unit in units]
    for host in ("n1", "n2", "n3"):
        inside(host, "kill", *pids, check=False)


def test_who_gets_it(dashboard):
    """The page is for everybody, the API for who has brought the code, once; and for no page of somebody else's."""
    status, text, headers = dashboard.call("GET", "/")
    assert status == 200 and "<title>Godwit</title>" in text and "'unsafe-inline'" not in headers["Content-Security-Policy"] and "default-src 'none'" in headers["Content-Security-Policy"]
    assert not re.search(r"\s(style|on\w+)=|<style|<script>|https?://", re.sub(r"aria-\w+=", "", text)), "something is in the page that its policy forbids"
    for path in ("/v1/nodes", "/metrics", "/v1", "/?", "/nothing"):
        assert dashboard.call("GET", path)[0] == 401, path
    assert dashboard.call("POST", "/session", b'{"code": "00000000000000000000000000000000"}')[0] == 403
    code, status, said = dashboard.code, *dashboard.call("POST", "/session", json.dumps({"code": dashboard.code}).encode())[:2]
    dashboard.address()
    assert status == 200 and dashboard.code != code and dashboard.call("POST", "/session", json.dumps({"code": code}).encode())[0] == 403
    key = {"Authorization": f"Bearer {json.loads(said)['key']}"}
    assert [n["name"] for n in json.loads(dashboard.call("GET", "/v1/nodes", **key)[1])["nodes"]] == ["n1", "n2", "n3"]
    assert dashboard.call("GET", "/v1/nodes", Authorization="Bearer " + "0" * 32)[0] == 401
    for odd in ({"Host": "evil.example"}, {"Host": f"localhost.evil.example:{dashboard.port}"}, {"Origin": "http://evil.example"}, {"Origin": "http://localhost:1"}, {"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"},
                {"Sec_Fetch_Site": "same-site"}):
        assert dashboard.call("GET", "/v1/nodes", **key, **odd)[0] == 403, odd
    ours = f"localhost:{dashboard.port}"
    assert dashboard.call("GET", "/v1/nodes", **key, Host=ours, Origin=f"http://{ours}", Sec_Fetch_Site="same-origin")[0] == 200
    assert dashboard.call("GET", "/", Sec_Fetch_Site="cross-site")[0] == 200
    bearer = f"Authorization: {key['Authorization']}\r\n"
    for head in ("GET /v1/nodes HTTP/1.0\r\nHost: localhost\r\n\r\n", "GET /v1/nodes HTTP/1.1\r\n\r\n", f"POST /v1/migrations HTTP/1.1\r\nHost: localhost\r\n{bearer}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                 f"GET /v1/nodes HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n{bearer}\r\n", f"GET /v1/nodes HTTP/1.1\r\nHost: localhost\r\n{bearer}Content-Length: 9999\r\n\r\n", "x" * 9000, "\r\n\r\n"):
        assert re.match(r"HTTP/1\.1 40[03] ", dashboard.raw(head.encode())), head
    # without `godwit dashboard` between, over the socket itself
    for odd, status in (("Host: evil.example", "403"), ("Origin: http://evil.example", "403"), ("Sec-Fetch-Site: cross-site", "403"), ("Host: localhost:8000", "200")):
        assert inside("n1", "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--unix-socket", "/run/godwit/api.sock", "-H", odd, "http://localhost/v1/nodes").stdout == status, odd


@pytest.fixture
def browser(dashboard):
    if not chromium.PROGRAM:
        pytest.skip("there is no chromium")
    made = chromium.Browser()
    yield made
    made.close()


def shown(unit):
    return f"""(document.querySelector('#map [data-unit="{unit}"]')?.getAttribute('aria-label') ?? '')"""


def test_browser(dashboard, browser):
    """What is, what moves, a drag, a key, a refusal; a phone; nothing from elsewhere, and nothing that the policy forbids."""
    unit, other = start("n2", program="walker"), start("n3", program="sitter")
    browser.size(1280, 900, dark=True)
    browser.open(dashboard.url)
    browser.until("it is live", "document.querySelector('#live').dataset.state === 'on'")
    browser.until("the unit is there", f"{shown(unit)}.includes('Unit walker, {unit}, on n2, home n1')")
    assert browser.run("[location.hash, document.documentElement.dataset.theme, document.querySelectorAll('#map .node').length, document.querySelectorAll('.chart').length]") == ["", "dark", 3, 3]
    browser.until("its move is in the list", "document.querySelector('#moves').innerText.includes('n1 → n2') && document.querySelectorAll('#moves .freeze').length")
    # somebody else moves it
    inside("n1", "godwit", "migrate", unit, "n1", "--quiet")
    browser.until("it is seen to move", f"{shown(unit)}.includes('on n1') && document.querySelector('#say').textContent.includes('from n2 to n1')")
    browser.until("it has arrived", "!document.querySelector('.trail')")
    # by hand
    browser.drag(browser.centre(f'#map [data-unit="{unit}"]'), browser.centre('#map [data-node="n2"]'))
    browser.until("it has been moved", f"{shown(unit)}.includes('on n2') && [...document.querySelectorAll('.toast')].some((t) => t.innerText.includes('now runs on n2'))")
    # by key: to the other node, which is the second choice
    browser.run(f"""document.querySelector('#map [data-unit="{unit}"]').focus()""")
    browser.key("m")
    browser.until("it is asked where to", "document.querySelector('#move-dialog').open && document.activeElement.value === 'n1'")
    browser.key("ArrowDown")
    browser.key("Enter")
    browser.until("it has been moved", f"{shown(unit)}.includes('on n3')")
    # what is wrong is said
    inside("n1", "godwit", "drain", "n2", "--quiet")
    browser.until("n2 is drained", "document.querySelector('#map [data-node=\"n2\"]').getAttribute('aria-label').includes('drain')")
    inside("n1", "godwit", "undrain", "n2")
    end(unit)
    browser.until("it has ended", f"{shown(unit)} === '' && document.querySelector('#feed').innerText.includes('walker ended')")
    names = browser.run("[...document.querySelectorAll('button, [role=button], a, input, select')].filter((e) => !(e.getAttribute('aria-label') || e.innerText || e.closest('label') || e.querySelector('[aria-label]'))).map((e) => e.outerHTML)")
    assert not names, f"without a name: {names}"
    browser.size(360, 740)
    browser.until("it is as wide as a phone", "document.documentElement.scrollWidth <= 360 && document.querySelector('#map').clientWidth <= 360")
    assert not browser.said and not browser.failed_requests
    end(other)
