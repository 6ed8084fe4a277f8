# SPDX-License-Identifier: GPL-2.0-or-later
"""What people really run: trees of processes, moved in the middle of their work. The result is that of an unmoved run."""

import glob
import os
import shutil
import textwrap
import time

import pytest

from lab_driver import STRATEGIES, copies, inside, migrate, processes, wait_until
from test_programs import Program

FAMILY = textwrap.dedent("""\
    import hashlib, os, signal, sys, threading, time
    read, write = os.pipe()
    shared = open("shared", "w+")
    me = os.getpid()

    def child(i):
        data = os.urandom(1 << 20)
        digest = hashlib.md5(data).digest()
        if i % 2:
            threading.Thread(target=lambda: [time.sleep(0.01) for _ in range(100000)], daemon=True).start()
        if i == 3:
            os.setsid()
        while True:
            # its memory, its parent, its session: the status tells which
            wrong = (hashlib.md5(data).digest() != digest) + 2 * (os.getppid() != me) + 4 * ((i == 3) != (os.getsid(0) == os.getpid()))
            if wrong:
                os._exit(90 + wrong)
            os.write(write, b"%d\\n" % i)
            time.sleep(0.02)

    kids = []
    for i in range(4):
        pid = os.fork()
        if pid == 0:
            child(i)
        kids.append(pid)
    zombie = os.fork()
    if zombie == 0:
        os._exit(42)
    stop = threading.Event()
    signal.signal(signal.SIGUSR1, lambda *ignored: stop.set())
    print("ready", flush=True)
    count = [0] * 4
    while not stop.is_set():
        for line in os.read(read, 65536).split():
            count[int(line)] += 1
    print("zombie", os.waitstatus_to_exitcode(os.waitpid(zombie, 0)[1]))
    for pid in kids:
        os.kill(pid, signal.SIGTERM)
        print("child", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    print("all counted", all(count), flush=True)
""")

FORKING = """\
sum=0
for i in $(seq 1 400); do
    x=$(echo $i | tr 0-9 a-j | tr a-j 0-9)
    [ "$x" = "$i" ] || exit 1
    sum=$((sum + x))
    [ $i = 20 ] && echo ready
done
echo sum $sum
"""


@pytest.fixture
def run(lab2):
    made = []

    def start(*arguments, **options):
        made.append(Program(lab2, *arguments, **options))
        return made[-1]
    yield start
    for p in made:
        for host in lab2.hosts:
            inside(host, "pkill", "-9", "-f", p.directory, check=False)
        p.clean()
        shutil.rmtree(p.directory, ignore_errors=True)


def there_and_back(program, moves=2, **options):
    for k in range(moves):
        program.migrate(("n2", "n1")[k % 2], **options)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_family(run, strategy):
    """Threads, a pipe and a file that all have, a session of its own, a zombie: relations, memory and status."""
    p = run("family-" + strategy, ["/usr/bin/python3", "-c", FAMILY])
    p.wait_output("^ready")
    there_and_back(p, 3, strategy=strategy)
    left = [x for x in processes("n1") if "shared = open" in x.cmdline]
    assert not left or strategy == "copy-on-reference", "somebody is still at the source"
    time.sleep(0.2)
    inside(p.host, "kill", "-USR1", str(p.pid))
    out = p.wait_end()
    assert out.split("\n")[1:] == ["zombie 42"] + ["child -15"] * 4 + ["all counted True", ""], out + p.output("err")


def moved_while_it_runs(program, moves):
    """There and back until it has ended, which it may do in the middle of a move; the number of its moves."""
    for k in range(moves):
        try:
            program.migrate(("n2", "n1")[k % 2])
        except AssertionError:
            if program.process():
                raise
            return k
    return moves


def test_shell_that_forks(run):
    """Some 1,600 processes, several at a time, each of some milliseconds: the unit is another one at every look."""
    p = run("forking", ["bash", "-c", FORKING])
    p.wait_output("^ready")
    p.migrate()
    assert p.wait_end() == "ready\nsum 80200\n", p.output("err")


SOURCES = 100


def make_library(run, moves):
    """Some sources, four at a time, and what came of it. Temporary files of the compiler lie where both hosts see them."""
    p = run("make", ["sh", "-c", "until [ -e Makefile ]; do sleep 0.02; done; mkdir tmp; TMPDIR=$PWD/tmp exec make -j4"])
    for i in range(SOURCES):
        with open(os.path.join(p.directory, f"f{i}.c"), "w", encoding="ascii") as f:
            f.writelines(f"int f{i}_{k}(int x) {{ return x * {k} + {i}; }}\n" for k in range(300))
    objects = " ".join(f"f{i}.o" for i in range(SOURCES))
    with open(os.path.join(p.directory, "Makefile.new"), "w", encoding="ascii") as f:
        f.write(f"lib.a: {objects}\n\tar rcsD $@ $^\n%.o: %.c\n\tcc -O2 -c $< -o $@\n")
    os.rename(os.path.join(p.directory, "Makefile.new"), os.path.join(p.directory, "Makefile"))
    if moves:
        p.wait_output(r"f2\.o")
        assert moved_while_it_runs(p, moves) > 0, "it had ended before it was moved"
    p.wait_end()
    made = glob.glob(os.path.join(p.directory, "*.o"))
    assert len(made) == SOURCES and not p.output("err"), p.output()[-500:] + p.output("err")[-500:]
    with open(os.path.join(p.directory, "lib.a"), "rb") as f:
        return f.read()


def test_make(run):
    assert make_library(run, 3) == make_library(run, 0), "the library differs from that of the unmoved run"


PGBENCH = """\
B=$(ls -d /usr/lib/postgresql/*/bin)
D=$PWD
$B/initdb -D data -A trust >init.log 2>&1 || exit 1
$B/postgres -D data -k $D -c listen_addresses='' >log 2>&1 &
server=$!
until $B/psql -h $D -d postgres -c 'select 1' >/dev/null 2>&1; do sleep 0.1; done
$B/pgbench -h $D -i -s 1 postgres >>init.log 2>&1
echo ready
$B/pgbench -h $D -c 4 -j 2 -T 8 postgres >bench.log 2>&1 || echo pgbench failed
$B/psql -h $D -d postgres -At -c "select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history),
    (select sum(bbalance) from pgbench_branches) = (select sum(delta) from pgbench_history), (select count(*) from pgbench_history) > 100"
kill -INT $server
wait $server
echo ended $?
"""


def test_postgresql_under_pgbench(run):
    """A server with its clients: shared memory, semaphores, signals, connections over a unix socket."""
    p = run("postgresql", ["sh", "-c", 'chown nobody . && exec su -s /bin/bash nobody -c "$0"', PGBENCH])
    p.wait_output("^ready", 120)
    time.sleep(1)
    there_and_back(p)
    assert p.wait_end() == "ready\nt|t|t\nended 0\n", p.output("log")[-800:] + p.output("bench.log")[-500:] + p.output("err")


CLUSTER = """\
const cluster = require('cluster');
if (cluster.isPrimary) {
  const sum = {};
  let done = 0;
  console.log('ready');
  for (let i = 0; i < 3; i++) cluster.fork();
  cluster.on('message', (worker, m) => {
    if (m.end) { worker.send('end'); if (++done == 3) console.log('sums', JSON.stringify(Object.values(sum))); return; }
    sum[worker.id] = (sum[worker.id] || 0) + m.n;
  });
} else {
  let n = 0;
  const t = setInterval(() => {
    process.send({n: ++n});
    if (n == 150) { clearInterval(t); process.send({end: true}); }
  }, 20);
  process.on('message', () => process.exit(0));
}
"""


def test_node_cluster(run):
    p = run("cluster", ["sh", "-c", 'printf %s "$0" >cluster.js; exec node cluster.js', CLUSTER])
    p.wait_output("^ready")
    time.sleep(0.7)
    there_and_back(p)
    assert p.wait_end() == "ready\nsums [11325,11325,11325]\n", p.output("err")


def test_tmux_session(lab2):
    """A server with two shells on terminals of its own: input, output and sizes; then a pipeline in one of them."""
    directory = lab2.directory("tmux")
    tmux = ["env", "TMUX_TMPDIR=" + directory, "tmux", "-f", "/dev/null"]

    def screen(host):
        return inside(host, *tmux, "capture-pane", "-p", "-t", "s").stdout
    try:
        inside("n1", "sh", "-c", 'exec "$@" </dev/null >/dev/null 2>&1', "sh", *tmux, "new-session", "-d", "-x", "90", "-y", "30", "-s", "s", "bash --norc")
        inside("n1", *tmux, "new-window", "-t", "s", "bash --norc")
        inside("n1", *tmux, "send-keys", "-t", "s", "for i in $(seq 40); do echo tick $i; sleep 0.1; done", "Enter")
        wait_until("the loop", lambda: "tick 3" in screen("n1"), 20)
        server = next(p for p in processes("n1") if p.name.startswith("tmux: server"))
        result = migrate("n1", server.host_pid, "n2")
        assert result.status == 0, result.why()
        wait_until("the end of the loop", lambda: "tick 40" in screen("n2"), 30)
        inside("n2", *tmux, "send-keys", "-t", "s", "stty size; seq 5 | tr '\\n' + | sed 's/+$/ sum/'; echo", "Enter")
        wait_until("a pipeline", lambda: "1+2+3+4+5 sum" in screen("n2"), 20)
        assert "29 90" in screen("n2") or "30 90" in screen("n2"), screen("n2")
        assert not copies(["n1"], directory)
    finally:
        for host in lab2.hosts:
            inside(host, *tmux, "kill-server", check=False)
        shutil.rmtree(directory, ignore_errors=True)
