# SPDX-License-Identifier: GPL-2.0-or-later
"""Servers that people run, and clients of them that go on until they are told to stop and find every error: for the tests and for ./dev soak.

A *kind* is a function that starts a server on n1 and returns it. A server makes its clients, on any host, by clients(host).
"""

import itertools
import os
import re
import signal
import subprocess
import textwrap
import time

from lab_driver import VICTIMS, Movable, find_process, inside, kill, popen, processes, read, wait_until

HERE = os.path.dirname(os.path.abspath(__file__))
ADDRESS = "10.66.0.1"
OUTSIDE = "x1"
EVERYWHERE = ("x1", "n3", "n1", "n2")
PYTHON = "/usr/bin/python3"


# Another one each time: what is remembered of a server that has ended is not what is to be tested here.
ports = itertools.count(12000 + os.getpid() * 101 % 18000)


class Server(Movable):
    """A server that began on n1, and is where it is. Commands run in a directory that all hosts see."""

    def __init__(self, lab_, name, port, command, files=None, host="n1", address=ADDRESS, wait=True):
        self.lab, self.name, self.host, self.first, self.port, self.address = lab_, name, host, host, port or next(ports), address
        self.directory = lab_.directory(name)
        self.made, self.hosts = [], {host}
        for file, text in (files or {}).items():
            os.makedirs(os.path.dirname(os.path.join(self.directory, file)), exist_ok=True)
            with open(os.path.join(self.directory, file), "wb" if isinstance(text, bytes) else "w") as f:
                f.write(text if isinstance(text, bytes) else text.replace("PORT", str(self.port)))
        self.pid = self.start(host, [word.replace("DIR", self.directory).replace("PORT", str(self.port)) for word in command], "log")
        if wait:
            self.wait_port(host, self.port)

    def start(self, host, command, log):
        """Starts something in the directory; returns its number in its host."""
        number = os.path.join(self.directory, log + ".pid")
        inside(host, "setsid", "-f", "sh", "-c", 'cd "$1" && echo $$ >"$2" && log=$3 && shift 3 && exec "$@" </dev/null >"$log" 2>&1', "sh", self.directory, number,
               os.path.join(self.directory, log), *command)
        pid = int(wait_until(f"the number of {log}", lambda: read(number).strip()))
        self.made.append((host, pid))
        return pid

    def wait_port(self, host, port):
        code = f"import socket; socket.create_connection(('{ADDRESS if host == 'n1' else '127.0.0.1'}', {port}), 1)"
        wait_until(f"{self.name} listens: {self.log()}", lambda: inside(host, PYTHON, "-c", code, check=False).returncode == 0, 40, 0.1)

    def log(self):
        return read(os.path.join(self.directory, "log"))[-1500:]

    def process(self):
        return find_process(self.host, self.pid)

    def clients(self, host):
        return []

    def check(self, clients):
        """After all have ended."""

    def end(self):
        """Ends what was started, wherever it is, with its descendants."""
        for host in {host for host, _ in self.made} | {self.host}:
            there = processes(host)
            doomed = {p.pid for p in there if (host, p.host_pid) in self.made or host == self.host and p.host_pid == self.pid}
            while True:
                more = {p.pid for p in there if p.parent in doomed} - doomed
                if not more:
                    break
                doomed |= more
            for p in doomed:
                kill(p, signal.SIGKILL)


class Client:
    """Something on a host that ends with status 0 when the file STOP of its directory is there, and earlier, or with another one, when it has met an error."""

    def __init__(self, server, host, name, command, ready=None):
        self.host, self.name, self.directory = host, name, server.lab.directory(name)
        self.stop, self.out = os.path.join(self.directory, "stop"), os.path.join(self.directory, "out")
        command = [word.replace("STOP", self.stop).replace("DIR", self.directory).replace("ADDRESS", server.address).replace("PORT", str(server.port)) for word in command]
        with open(self.out, "w", encoding="utf-8") as out:
            self.process = popen(host, *command, cwd="/", stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
        if ready:
            wait_until(f"{self} begins: {read(self.out)}", lambda: ready in read(self.out) or not self.alive(), 60)

    def __repr__(self):
        return f"{self.name} on {self.host}"

    def alive(self):
        return self.process.poll() is None

    def must_live(self, when=""):
        assert self.alive(), f"{self} {when}: status {self.process.returncode}: {read(self.out)[-1500:]}"

    def ask_to_end(self):
        with open(self.stop, "w", encoding="ascii"):
            pass

    def end(self, seconds=120):
        """What it has printed."""
        self.ask_to_end()
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"{self} does not end: {read(self.out)[-1500:]}") from None
        assert self.process.returncode == 0, f"{self}: status {self.process.returncode}: {read(self.out)[-1500:]}"
        return read(self.out)


def end_all(clients):
    """What each has printed."""
    for c in clients:
        c.ask_to_end()
    return [c.end() for c in clients]


def abandon(clients):
    """Those that still run, for whatever reason, are given a moment."""
    end = time.monotonic() + 10
    for c in clients:
        c.ask_to_end()
    for c in clients:
        try:
            c.process.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            c.process.kill()


def ask(server, host, protocol, connections=4, *renew):
    return Client(server, host, "-".join((protocol, *renew)), [PYTHON, os.path.join(HERE, "ask.py"), protocol, "ADDRESS", "PORT", str(connections), "STOP", *renew], "ready")


def again_and_again(server, host, name, command, error="WILL NOT BE FOUND"):
    """A tool that runs for a moment, run until it fails or says what it must not."""
    loop = f"n=0; while [ ! -e STOP ]; do {command} >DIR/last 2>&1; s=$?; if [ $s != 0 ] || grep -qE '{error}' DIR/last; then cat DIR/last; echo status $s; exit 1; fi; n=$((n+1)); echo $n; done"
    return Client(server, host, name, ["sh", "-c", loop])


# --- stores -----------------------------------------------------------------------------------------------------------

class Redis(Server):
    def __init__(self, lab_, port=0):
        super().__init__(lab_, "redis", port, ["redis-server", "--port", "PORT", "--save", "", "--protected-mode", "no", "--dir", "DIR"])

    def clients(self, host):
        talk = [PYTHON, os.path.join(HERE, "redis_talk.py"), "ADDRESS", "PORT", "10", "STOP"]
        return [Client(self, host, "redis-talk", talk, "ready"), Client(self, host, "redis-renew", [*talk, "renew"], "ready"),
                again_and_again(self, host, "redis-benchmark", "redis-benchmark -h ADDRESS -p PORT -q -c 5 -n 3000 -t set,get,incr,lpush,mset", "rror|refused|reset")]


class Memcached(Server):
    def __init__(self, lab_, port=0):
        super().__init__(lab_, "memcached", port, ["memcached", "-u", "root", "-l", "0.0.0.0", "-p", "PORT", "-t", "2"])

    def clients(self, host):
        return [ask(self, host, "memcached"), ask(self, host, "memcached", 2, "renew")]


class Postgres(Server):
    """A cluster of its own in a shared directory; what pgbench wrote is counted at the end."""

    def __init__(self, lab_, port=0):
        directory = lab_.directory("pgdata")
        binaries = max((os.path.join("/usr/lib/postgresql", v, "bin") for v in os.listdir("/usr/lib/postgresql")), key=lambda p: int(p.split("/")[4]))
        self.as_postgres = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        os.chmod(directory, 0o700)
        subprocess.run(["chown", "postgres:postgres", directory], check=True)
        inside("n1", *self.as_postgres, f"{binaries}/initdb", "-D", directory, "-A", "trust", "-U", "postgres", "--no-sync", timeout=120)
        with open(os.path.join(directory, "pg_hba.conf"), "a", encoding="ascii") as f:
            f.write("host all all 0.0.0.0/0 trust\n")
        self.data = directory
        super().__init__(lab_, "postgres", port, [*self.as_postgres, f"{binaries}/postgres", "-D", directory, "-p", "PORT", "-c", "listen_addresses=*", "-c", "fsync=off",
                                                  "-c", f"unix_socket_directories={directory}", "-c", "shared_buffers=32MB", "-c", "huge_pages=off"])
        wait_until("it takes queries", lambda: inside("n1", "psql", "-h", ADDRESS, "-p", str(self.port), "-U", "postgres", "-c", "select 1", check=False).returncode == 0, 30)
        inside("n1", "pgbench", "-i", "-q", "-s", "1", "-h", ADDRESS, "-p", str(self.port), "-U", "postgres", "postgres")

    def clients(self, host):
        bench = "pgbench -h ADDRESS -p PORT -U postgres -n -T 2"
        return [self.counted(host, "pgbench", f"{bench} -c 3 postgres"),
                again_and_again(self, host, "pgbench-connect", f"{bench} -C -S postgres", "abort|failed transactions: [1-9]")]

    def counted(self, host, name, bench):
        loop = (f"while [ ! -e STOP ]; do {bench} >DIR/last 2>&1 || {{ cat DIR/last; exit 1; }}; "
                "sed -n 's/^number of transactions actually processed: \\([0-9]*\\).*/\\1/p' DIR/last >>DIR/count; done")
        return Client(self, host, name, ["sh", "-c", loop])

    def query(self, text):
        return inside("x1", "psql", "-h", ADDRESS, "-p", str(self.port), "-U", "postgres", "-At", "-c", text).stdout.split()

    def check(self, clients):
        done = sum(int(n) for c in clients for n in read(os.path.join(c.directory, "count")).split())
        sums = self.query("select (select sum(abalance) from pgbench_accounts) = s and (select sum(bbalance) from pgbench_branches) = s and "
                          "(select sum(tbalance) from pgbench_tellers) = s, n from (select sum(delta) as s, count(*) as n from pgbench_history) h")
        assert sums == [f"t|{done}"], f"{sums}, and {done} transactions were told of"


class Mariadb(Server):
    """InnoDB reads and writes by io_uring. What clients have put into it is counted at the end."""

    def __init__(self, lab_, port=0):
        directory = lab_.directory("mariadb")
        subprocess.run(["chown", "mysql:mysql", directory], check=True)
        self.data = os.path.join(directory, "data")
        inside("n1", "mariadb-install-db", "--user=mysql", f"--datadir={self.data}", "--skip-test-db", "--auth-root-authentication-method=normal", timeout=120)
        super().__init__(lab_, "mariadb", port, ["mariadbd", "--no-defaults", "--user=mysql", f"--datadir={self.data}", f"--socket={directory}/socket", f"--pid-file={directory}/number",
                                                 "--port=PORT", "--bind-address=0.0.0.0", "--innodb-flush-log-at-trx-commit=1", "--innodb-buffer-pool-size=16M"])
        self.socket = f"{directory}/socket"
        wait_until("it takes queries", lambda: os.path.exists(self.socket), 60)
        inside("n1", "mariadb", "--no-defaults", "-u", "root", "-S", self.socket, "-e",
               "create database t; create table t.a (k int primary key auto_increment, v varchar(1000)); create user u@'%'; grant all on t.* to u@'%'")

    def clients(self, host):
        one = "mariadb --no-defaults -h ADDRESS -P PORT -u u -N -e \"insert into t.a(v) values (repeat('x', 900)); select count(*) from t.a\""
        many = "for i in $(seq 200); do echo \"insert into t.a(v) values (repeat('y', 900));\"; done | mariadb --no-defaults -h ADDRESS -P PORT -u u"
        return [again_and_again(self, host, "mariadb-one", one), again_and_again(self, host, "mariadb-many", many)]

    def query(self, text):
        return inside("x1", "mariadb", "--no-defaults", "-h", ADDRESS, "-P", str(self.port), "-u", "u", "-N", "-e", text).stdout.split()

    def check(self, clients):
        done = sum(int((read(c.out).split() or ["0"])[-1]) * (200 if c.name == "mariadb-many" else 1) for c in clients)
        there = self.query("select count(*) from t.a")
        assert there == [str(done)], f"{there} rows instead of {done}"
        assert self.query("check table t.a")[-1] == "OK"


# --- servers of the web -------------------------------------------------------------------------------------------------

def web_files():
    from ask import value
    return {f"v/{n}": value(n) for n in range(100)}


class Web(Server):
    """What answers GET /v/N."""

    def __init__(self, lab_, name, port, command, files=None, wrk=True, **options):
        self.wrk = wrk
        super().__init__(lab_, name, port, command, files, **options)

    def clients(self, host):
        made = [ask(self, host, "http"), ask(self, host, "http", 2, "renew")]
        if self.wrk:
            errors = "Socket errors|Non-2xx"
            made += [again_and_again(self, host, "wrk", "wrk -t1 -c6 -d2s --timeout 20s http://ADDRESS:PORT/v/99", errors),
                     again_and_again(self, host, "wrk-new", "wrk -t1 -c2 -d2s --timeout 20s -H 'Connection: close' http://ADDRESS:PORT/v/7", errors)]
        return made


def Nginx(lab_, port=0):
    return Web(lab_, "nginx", port, ["nginx", "-p", "DIR", "-c", "DIR/nginx.conf", "-e", "DIR/error"], {**web_files(), "nginx.conf": textwrap.dedent(f"""
        daemon off; master_process on; worker_processes 2; user root; pid nginx.pid; error_log error;
        events {{ worker_connections 512; }}
        http {{
            access_log off; sendfile on; keepalive_requests 1000000; keepalive_timeout 300;
            client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
            server {{ listen PORT; root .; }}
        }}
    """)})


class Download(Server):
    """One large file, by nginx, byte for byte."""

    def __init__(self, lab_, port=0, mib=1024):
        self.mib = mib
        super().__init__(lab_, "download", port, ["nginx", "-p", "DIR", "-c", "DIR/nginx.conf", "-e", "DIR/error"], {"nginx.conf": textwrap.dedent(f"""
            daemon off; worker_processes 1; user root; pid nginx.pid; error_log error;
            events {{ worker_connections 512; }}
            http {{ access_log off; sendfile on;
                client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
                server {{ listen PORT; root .; }} }}
        """)})
        with open(os.path.join(self.directory, "big"), "wb") as f:
            for n in range(mib):
                f.write(os.urandom(65536) * 8 + bytes([n & 255]) * 3 + os.urandom(524288 - 3))

    def clients(self, host):
        loop = f"while [ ! -e STOP ]; do curl -sS --fail http://ADDRESS:PORT/big | cmp - {self.directory}/big || exit 1; echo one; done"
        return [Client(self, host, "download", ["bash", "-o", "pipefail", "-c", loop])]


GO = textwrap.dedent("""
    package main
    import ("crypto/md5"; "fmt"; "net/http"; "os"; "strconv"; "strings")
    func main() {
        http.HandleFunc("/v/", func(w http.ResponseWriter, r *http.Request) {
            n, _ := strconv.Atoi(r.URL.Path[3:])
            fmt.Fprint(w, strings.Repeat(fmt.Sprintf("%x", md5.Sum([]byte(strconv.Itoa(n)))), 1 + n * 37 % 300))
        })
        panic(http.ListenAndServe(":" + os.Args[1], nil))
    }
""")


def go_binary(lab_):
    directory = os.path.join(os.path.dirname(lab_.directory("go")), "go-server")
    binary = os.path.join(directory, "server")
    if not os.path.exists(binary):
        os.makedirs(directory, exist_ok=True)
        with open(os.path.join(directory, "server.go"), "w", encoding="ascii") as f:
            f.write(GO)
        subprocess.run(["go", "build", "-o", binary, os.path.join(directory, "server.go")], check=True, capture_output=True, timeout=240,
                       env={**os.environ, "GOCACHE": os.path.join(directory, "cache"), "GO111MODULE": "off", "GOFLAGS": "-p=2"})
    return binary


def Go(lab_, port=0):
    return Web(lab_, "go", port, [go_binary(lab_), "PORT"])


NODE = textwrap.dedent("""
    const http = require('http'), crypto = require('crypto'), { WebSocketServer } = require('/usr/share/nodejs/ws');
    const server = http.createServer((q, r) => {
        const n = parseInt(q.url.slice(3));
        r.end(crypto.createHash('md5').update(String(n)).digest('hex').repeat(1 + n * 37 % 300));
    });
    server.keepAliveTimeout = 0;
    new WebSocketServer({ server }).on('connection', s => s.on('message', m => s.send(m)));
    server.listen(parseInt(process.argv[2]));
""")


NODE_CLUSTER = """
const cluster = require('cluster');
if (cluster.isPrimary) {
    for (let i = 0; i < 3; i++) cluster.fork();
    cluster.on('exit', (w, code, signal) => console.log('worker ended', code, signal));
} else {
""" + NODE + "}\n"


class Node(Web):
    def __init__(self, lab_, port=0, name="node", text=NODE):
        super().__init__(lab_, name, port, ["node", "DIR/server.js", "PORT"], {"server.js": text})

    def clients(self, host):
        return [ask(self, host, "http"), ask(self, host, "websocket"), ask(self, host, "websocket", 2, "renew")]


PLAIN = textwrap.dedent("""
    import hashlib
    def value(n): return hashlib.md5(b'%d' % n).hexdigest().encode() * (1 + n * 37 % 300)
    def app(environ, start):
        data = value(int(environ['PATH_INFO'][3:]))
        start('200 OK', [('Content-Length', str(len(data)))])
        return [data]
""")
AIOHTTP = PLAIN + textwrap.dedent("""
    import sys
    from aiohttp import web
    async def get(request): return web.Response(body=value(int(request.match_info['n'])))
    served = web.Application()
    served.add_routes([web.get('/v/{n}', get)])
    web.run_app(served, port=int(sys.argv[1]), print=None, keepalive_timeout=300)
""")


def Gunicorn(lab_, port=0):
    return Web(lab_, "gunicorn", port, [PYTHON, "-m", "gunicorn", "-w", "2", "-k", "gthread", "--threads", "16", "--keep-alive", "300", "-b", "0.0.0.0:PORT", "app:app"],
               {"app.py": PLAIN})


def Aiohttp(lab_, port=0):
    return Web(lab_, "aiohttp", port, [PYTHON, "DIR/app.py", "PORT"], {"app.py": AIOHTTP})


JAVA = textwrap.dedent("""
    import com.sun.net.httpserver.*;
    import java.net.*;
    import java.security.*;
    import java.util.concurrent.*;
    public class Server {
        public static void main(String[] a) throws Exception {
            HttpServer s = HttpServer.create(new InetSocketAddress(Integer.parseInt(a[0])), 100);
            s.createContext("/v/", x -> {
                try {
                    int n = Integer.parseInt(x.getRequestURI().getPath().substring(3));
                    StringBuilder hex = new StringBuilder();
                    for (byte b : MessageDigest.getInstance("MD5").digest(Integer.toString(n).getBytes())) hex.append(String.format("%02x", b));
                    byte[] data = hex.toString().repeat(1 + n * 37 % 300).getBytes();
                    x.sendResponseHeaders(200, data.length);
                    x.getResponseBody().write(data);
                    x.close();
                } catch (NoSuchAlgorithmException e) { throw new RuntimeException(e); }
            });
            s.setExecutor(Executors.newFixedThreadPool(8));
            s.start();
        }
    }
""")


def Java(lab_, port=0):
    return Web(lab_, "java", port, ["java", "-Xmx100m", "-XX:+UseSerialGC", "-Dsun.net.httpserver.idleInterval=300", "DIR/Server.java", "PORT"], {"Server.java": JAVA},
               wrk=False)    # it closes connections without saying so, which wrk takes for an error


class Haproxy(Web):
    """Between the clients and a server on another host: it has connections on both sides."""

    def __init__(self, lab_, port=0):
        self.behind = Web(lab_, "behind", 0, [go_binary(lab_), "PORT"], host="x1", address="10.66.0.101")
        super().__init__(lab_, "haproxy", port, ["haproxy", "-db", "-f", "DIR/cfg"], {"cfg": textwrap.dedent(f"""
            global
                maxconn 500
                nbthread 2
                log stdout format raw local0
            defaults
                mode http
                log global
                option httplog
                option dontlog-normal
                timeout connect 20s
                timeout client 300s
                timeout server 60s
                retries 0
            frontend f
                bind :PORT
                default_backend b
            backend b
                http-reuse always
                server s 10.66.0.101:{self.behind.port}
        """)})

    def end(self):
        super().end()
        self.behind.end()


# --- others -------------------------------------------------------------------------------------------------------------

class Iperf(Server):
    def __init__(self, lab_, port=0, mode="--bidir", seconds=15):
        self.mode, self.seconds = mode, seconds
        super().__init__(lab_, "iperf3", port, ["iperf3", "-s", "-p", "PORT", "--forceflush"], wait=False)
        wait_until("it listens", lambda: "listening" in self.log())

    def clients(self, host):
        """It serves one at a time."""
        return [again_and_again(self, host, "iperf3", f"iperf3 -c ADDRESS -p PORT -t {self.seconds} {self.mode}", "error")] if host == OUTSIDE else []


SSH_TALK = textwrap.dedent("""
    import hashlib, os, subprocess, sys
    port, key, known, address, stop = sys.argv[1:6]
    p = subprocess.Popen(['ssh', '-F', 'none', '-p', port, '-i', key, '-o', 'UserKnownHostsFile=' + known, '-o', 'StrictHostKeyChecking=no', '-o', 'ServerAliveInterval=2', sys.argv[6],
                          'root@' + address, sys.argv[7]], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    begin = p.stdout.readline()
    if begin.strip() != b'begin':
        print('wrong:', begin, p.poll(), flush=True); sys.exit(1)
    print('ready', flush=True)
    n = 0
    while not (n and os.path.exists(stop)):
        line = hashlib.md5(b'%d' % n).hexdigest().encode() * (1 + n % 100) + b'\\n'
        p.stdin.write(line); p.stdin.flush()
        got = p.stdout.readline()
        if got != line:
            print('wrong:', n, line[:40], got[:40], p.poll(), flush=True); sys.exit(1)
        n += 1
    if sys.argv[6] == '-tt':    # raw: no character ends it
        p.terminate(); p.wait(30)
    else:
        p.stdin.close()
        if p.wait(30):
            print('wrong: status', p.returncode, flush=True); sys.exit(1)
    print('ok', n, flush=True)
""")


class Ssh(Server):
    """sshd; what moves is the process of one session, with its shell."""

    def __init__(self, lab_, port=0, terminal=False, host="n1", address=ADDRESS):
        self.options = ["-tt"] if terminal else ["-T"]
        directory = lab_.directory("ssh-keys")
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", os.path.join(directory, name)], check=True)
        os.rename(os.path.join(directory, "user.pub"), os.path.join(directory, "authorized"))
        self.keys = directory
        inside(host, "mkdir", "-p", "/run/sshd")
        super().__init__(lab_, "sshd", port, ["/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", "-p", "PORT", "-h", f"{directory}/host", "-o", f"AuthorizedKeysFile={directory}/authorized",
                                              "-o", "StrictModes=no", "-o", "PermitRootLogin=yes", "-o", "UsePAM=no", "-o", "PidFile=none"], {"talk.py": SSH_TALK}, host=host, address=address)
        self.listener = self.process().pid

    def talk(self, known, stop):
        return [PYTHON, f"{self.directory}/talk.py", str(self.port), f"{self.keys}/user", known, self.address, stop, *self.options, "stty raw -echo 2>/dev/null; echo begin; exec cat"]

    def clients(self, host):
        made = Client(self, host, "ssh", self.talk("DIR/known", "STOP"), "ready") if host == OUTSIDE else None
        if not made:
            return []
        session = wait_until("the session", lambda: next((p for p in processes("n1") if p.parent == self.listener and any(q.parent == p.pid and "cat" in q.cmdline
                             for q in processes("n1"))), None), 20)
        self.pid = session.host_pid
        self.made.append(("n1", self.pid))
        return [made]


class SshClient(Server):
    """What moves is the client, with the program that speaks through it; sshd is outside."""

    def __init__(self, lab_, port=0):
        self.sshd = Ssh(lab_, host=OUTSIDE, address="10.66.0.101")
        stop = os.path.join(lab_.directory("ssh-stop"), "stop")
        super().__init__(lab_, "ssh-client", port, self.sshd.talk("DIR/known", stop), wait=False)
        self.stop = stop
        wait_until("the session begins", lambda: "ready" in self.log() or not self.process(), 20)

    def check(self, clients):
        with open(self.stop, "w", encoding="ascii"):
            pass
        wait_until(f"it ends: {self.log()}", lambda: not self.process(), 30)
        assert self.log().splitlines()[-1].startswith("ok "), self.log()

    def end(self):
        super().end()
        self.sshd.end()


class Unit(Server):
    """A shell with programs that check themselves: memory that threads write all the time, a file that grows, and connections."""

    PROGRAMS = {"memory": ("ws_threads", "8"), "file": ("file_writer",)}

    def __init__(self, lab_, port=0):
        victims = [f"{VICTIMS}/victim {name} DIR/{which} {' '.join(rest)} &" for which, (name, *rest) in self.PROGRAMS.items()]
        super().__init__(lab_, "unit", port, ["sh", "-c", " ".join([*victims, f"{VICTIMS}/talk serve {ADDRESS} PORT 0 DIR/talk & wait"])])
        for which in self.PROGRAMS:
            wait_until(f"{which} is ready", lambda which=which: "ready" in self.said(which), 60)

    def said(self, which):
        return read(os.path.join(self.directory, which))

    def clients(self, host):
        script = f"{VICTIMS}/talk echo ADDRESS PORT 3 & echo ready; while [ ! -e STOP ]; do kill -0 $! || exit 1; sleep 0.1; done; kill -TERM $!; wait $!"
        return [Client(self, host, "talk", ["sh", "-c", script], "ready")]

    def check(self, clients):
        """The verdict of each of its programs."""
        inside_it = [p for p in processes(self.host) if p.parent == self.process().pid]
        for which in self.PROGRAMS:
            for p in inside_it:
                if os.path.join(self.directory, which) in p.cmdline:
                    kill(p.pid, signal.SIGTERM)
            wait_until(f"the verdict of {which}", lambda which=which: re.search(r"^(ok|FAIL.*)$", self.said(which), re.M), 60)
            assert re.search(r"^ok$", self.said(which), re.M), f"{which}: {self.said(which)[-500:]}"


KINDS = {"unit": Unit, "redis": Redis, "memcached": Memcached, "postgres": Postgres, "mariadb": Mariadb, "nginx": Nginx, "download": Download, "go": Go, "node": Node,
         "node-cluster": lambda lab_: Node(lab_, name="node-cluster", text=NODE_CLUSTER), "gunicorn": Gunicorn,
         "aiohttp": Aiohttp, "java": Java, "haproxy": Haproxy, "iperf3": Iperf, "iperf3-up": lambda lab_: Iperf(lab_, mode="", seconds=8),
         "iperf3-down": lambda lab_: Iperf(lab_, mode="-R", seconds=8), "ssh": Ssh, "ssh-terminal": lambda lab_: Ssh(lab_, terminal=True), "ssh-client": SshClient}
