# SPDX-License-Identifier: GPL-2.0-or-later
"""Real programs, moved in the middle of their work: the result is that of an unmoved run."""

import hashlib
import os
import re
import shutil
import subprocess
import textwrap

import pytest

from lab_driver import STRATEGIES, copies, find_process, inside, kill, migrate, popen, processes, read, residue, runs, wait_until

SOME = ["freeze-free", "pre-copy", "copy-on-reference"]


class Program:
    """A program in a session of its own, with its output in files of a directory that all hosts share."""

    def __init__(self, lab, name, command, stdin="/dev/null", env=(), directory=None, host="n1"):
        self.lab, self.name, self.host = lab, name, host
        self.directory = directory or lab.directory(name)
        self.mark = os.path.join(self.directory, "out")
        inside(host, "env", *env, "setsid", "-f", "sh", "-c", 'cd "$1" && echo $$ >pid && in=$2 && shift 2 && exec "$@" <"$in" >out 2>err', "sh",
               self.directory, stdin, *command)
        self.pid = int(wait_until(f"pid of {name}", lambda: read(os.path.join(self.directory, "pid")).strip()))

    def output(self, file="out"):
        return read(os.path.join(self.directory, file))

    def process(self):
        p = find_process(self.host, self.pid)
        return p if p and p.state not in "ZX" else None

    def wait_output(self, pattern, seconds=60, file="out"):
        def there():
            m = re.search(pattern, self.output(file), re.M)
            assert m or self.process(), f"{self.name} ended: {self.output()[-500:]} {self.output('err')[-500:]}"
            return m
        return wait_until(f"{self.name}: output {pattern}: {self.output('err')[-300:]}", there, seconds)

    def migrate(self, dest="n2", strategy="freeze-free"):
        source = self.host
        result = migrate(source, self.pid, dest, strategy, timeout=120)
        assert result.status == 0, f"{self.name}, {strategy}: {result.why()}\n{self.lab.log_tail(source)}\n{self.lab.log_tail(dest)}"
        left = find_process(source, self.pid)
        assert left is None or (strategy == "copy-on-reference" and not runs(left.pid)), "still at the source"
        self.host, self.pid = dest, result.json.get("pid") or self.pid
        p = self.process()
        if p and strategy != "copy-on-reference":
            assert not residue(p.pid), residue(p.pid)
        return result

    def wait_end(self, seconds=120):
        wait_until(f"end of {self.name}", lambda: not self.process(), seconds, 0.05)
        return self.output()

    def clean(self):
        for host in self.lab.hosts:
            for p in processes(host):
                if self.pid == p.host_pid and p.host_pid != 1 and "godwitd" not in p.name:
                    kill(p.pid, 9)


@pytest.fixture
def run(lab2):
    made = []

    def start(*arguments, **options):
        made.append(Program(lab2, *arguments, **options))
        return made[-1]
    yield start
    for p in made:
        p.clean()
    for p in made:
        shutil.rmtree(p.directory, ignore_errors=True)


def unmoved(command, **options):
    """What the same command prints on this side."""
    return subprocess.run(command, stdin=options.pop("stdin", subprocess.DEVNULL), capture_output=True, text=True, timeout=120, check=True, **options).stdout


# --- interpreters in the middle of a computation ------------------------------------------------------------------------

PYTHON = textwrap.dedent("""
    import hashlib, sys, threading, time, random, os
    rounds = int(sys.argv[1])
    random.seed(7)
    data = {i: random.random() for i in range(20000)}
    h = hashlib.sha256()
    done = []
    def side(n):
        x = n
        for i in range(rounds * 1000):
            x = (x * 6364136223846793005 + 1442695040888963407) % 2**64
        done.append((n, x))
    threads = [threading.Thread(target=side, args=(n,)) for n in range(3)]
    for t in threads: t.start()
    for r in range(rounds):
        for k in range(0, 20000, 7):
            data[k] = (data[k] * 3.9 * (1 - data[k]))
        h.update(repr(sorted(data.items())[r % 100]).encode())
        if r == 5: print('working', flush=True)
    for t in threads: t.join()
    print(h.hexdigest(), sum(data.values()), sorted(done))
""")

NODE = textwrap.dedent("""
    const crypto = require('crypto');
    const rounds = parseInt(process.argv[2]);
    let map = new Map(), h = crypto.createHash('sha256'), r = 0;
    for (let i = 0; i < 50000; i++) map.set('key' + i, { n: i, s: 'x'.repeat(i % 50) });
    function step() {
        for (let i = r % 7; i < 50000; i += 7) { const o = map.get('key' + i); o.n = (o.n * 48271) % 2147483647; o.s = o.s.slice(1) + o.n % 10; }
        h.update(JSON.stringify(map.get('key' + (r * 31 % 50000))));
        if (r === 3) process.stdout.write('working\\n');
        if (++r < rounds) setImmediate(step);
        else { let sum = 0; for (const o of map.values()) sum += o.n; console.log(h.digest('hex'), sum); }
    }
    setTimeout(step, 10);
""")

GO = textwrap.dedent("""
    package main
    import ("crypto/sha256"; "fmt"; "os"; "strconv"; "sync"; "time")
    func main() {
        rounds, _ := strconv.Atoi(os.Args[1])
        results := make([][32]byte, 64)
        var wg sync.WaitGroup
        for g := 0; g < 64; g++ {
            wg.Add(1)
            go func(g int) {
                defer wg.Done()
                m := map[int]string{}
                sum := sha256.Sum256([]byte{byte(g)})
                for i := 0; i < rounds; i++ {
                    sum = sha256.Sum256(append(sum[:], byte(i)))
                    m[i % 1000] = string(sum[:])
                    if i % 5000 == 0 { time.Sleep(time.Millisecond) }
                }
                for i := 0; i < 1000; i++ { sum = sha256.Sum256(append(sum[:], m[i]...)) }
                results[g] = sum
            }(g)
        }
        time.AfterFunc(200 * time.Millisecond, func() { fmt.Println("working") })
        wg.Wait()
        for _, r := range results { fmt.Printf("%x\\n", r) }
    }
""")

JAVA = textwrap.dedent("""
    import java.util.*;
    import java.util.concurrent.*;
    public class Work {
        public static void main(String[] a) throws Exception {
            int rounds = Integer.parseInt(a[0]);
            ExecutorService pool = Executors.newFixedThreadPool(32);
            List<Future<Long>> parts = new ArrayList<>();
            for (int t = 0; t < 32; t++) {
                final long seed = t;
                parts.add(pool.submit(() -> {
                    Random r = new Random(seed);
                    Map<Integer, Long> m = new HashMap<>();
                    for (int i = 0; i < rounds; i++) m.merge(r.nextInt(5000), r.nextLong(), (x, y) -> x * 31 + y);
                    long sum = 0;
                    for (Map.Entry<Integer, Long> e : new TreeMap<>(m).entrySet()) sum = sum * 31 + e.getValue() + e.getKey();
                    return sum;
                }));
            }
            System.out.println("working");
            System.out.flush();
            for (Future<Long> f : parts) System.out.println(f.get());
            pool.shutdown();
        }
    }
""")


def result_lines(text):
    return [line for line in text.splitlines() if line != "working"]


def move_and_compare(program, expected, strategy):
    program.wait_output("^working$")
    program.migrate(strategy=strategy)
    got = program.wait_end()
    assert result_lines(got) == result_lines(expected), f"{program.output('err')[-1000:]}"


@pytest.fixture(scope="module")
def scripts(whole_lab):
    """The programs' files, and what each prints when it is not moved."""
    directory = whole_lab.directory("scripts")
    for name, text in (("work.py", PYTHON), ("work.js", NODE), ("work.go", GO), ("Work.java", JAVA)):
        with open(os.path.join(directory, name), "w") as f:
            f.write(text)
    return directory


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_python(run, scripts, strategy):
    command = ["/usr/bin/python3", os.path.join(scripts, "work.py"), "1000"]
    expected = cached(command)
    move_and_compare(run("python", command, env=["PYTHONHASHSEED=0"]), expected, strategy)


CACHE = {}


def cached(command):
    key = tuple(command)
    if key not in CACHE:
        CACHE[key] = unmoved(command, env={**os.environ, "PYTHONHASHSEED": "0"})
    return CACHE[key]


@pytest.mark.parametrize("strategy", SOME)
def test_node(run, scripts, strategy):
    command = ["node", os.path.join(scripts, "work.js"), "150"]
    expected = cached(command)
    move_and_compare(run("node", command), expected, strategy)


@pytest.fixture(scope="module")
def go_program(scripts):
    binary = os.path.join(scripts, "work-go")
    subprocess.run(["go", "build", "-o", binary, os.path.join(scripts, "work.go")], check=True, capture_output=True, timeout=240,
                   env={**os.environ, "GOCACHE": os.path.join(scripts, "cache"), "GO111MODULE": "off", "GOFLAGS": "-p=2"})
    return binary


@pytest.mark.parametrize("strategy", SOME)
def test_go(run, go_program, strategy):
    command = [go_program, "60000"]
    expected = cached(command)
    move_and_compare(run("go", command), expected, strategy)


@pytest.mark.parametrize("strategy", ["freeze-free", "pre-copy"])
def test_java(run, scripts, strategy):
    command = ["java", "-Xmx200m", "-XX:+UseSerialGC", os.path.join(scripts, "Work.java"), "400000"]
    expected = cached(command)
    move_and_compare(run("java", command), expected, strategy)


# --- xz -----------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("strategy", SOME)
def test_xz_with_threads(lab2, run, strategy):
    directory = lab2.directory("xz-data")
    plain = os.path.join(directory, "plain")
    with open(plain, "wb") as f:
        block = b""
        for i in range(30000):
            block = hashlib.sha512(block).digest()
            f.write(block * 3 + b"the quick brown fox %d " % i * 150)
    with open(plain, "rb") as f:
        digest = hashlib.sha256(f.read()).hexdigest()
    command = ["xz", "-T2", "--block-size=2MiB", "-6", "-c", plain]
    p = run("xz", command)
    wait_until("output of xz", lambda: os.path.getsize(p.mark) > 100000 or not p.process(), 60)
    assert p.process(), "xz was too fast for this test"
    p.migrate(strategy=strategy)
    p.wait_end()
    back = subprocess.run(["xz", "-dc", p.mark], capture_output=True, check=True).stdout
    assert hashlib.sha256(back).hexdigest() == digest
    expected = subprocess.run(command, capture_output=True, check=True).stdout
    with open(p.mark, "rb") as f:
        assert f.read() == expected, "the compressed file differs from an unmoved run's"


# --- sqlite3 in a transaction ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("strategy", SOME)
def test_sqlite_in_a_transaction(lab2, run, strategy):
    """A transaction is open, with its locks and its journal, while the shell moves; it commits at the destination."""
    directory = lab2.directory("sqlite")
    script = os.path.join(directory, "script.sql")
    db = os.path.join(directory, "db")
    with open(script, "w") as f:
        f.write("PRAGMA cache_size=50; CREATE TABLE t(k INTEGER PRIMARY KEY, v TEXT);\nBEGIN IMMEDIATE;\n"
                "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<20000) INSERT INTO t SELECT i, printf('%.*c', i % 50, 'x') || i FROM c;\n"
                "SELECT 'working';\n"
                "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<9000000) SELECT 'counted', sum(i*i % 7) FROM c;\n"
                "INSERT INTO t VALUES(1000000, 'after');\nCOMMIT;\nSELECT count(*), sum(length(v)), sum(k) FROM t;\nPRAGMA integrity_check;\n")
    p = run("sqlite3", ["stdbuf", "-oL", "sqlite3", db], stdin=script)
    p.wait_output("^working$")
    other = ["sqlite3", db, "BEGIN IMMEDIATE;"]
    locked = inside("n1", *other, check=False)
    assert "locked" in locked.stderr, locked.stderr
    p.migrate(strategy=strategy)
    assert "locked" in inside("n2", *other, check=False).stderr, "the lock did not move"
    got = p.wait_end().splitlines()
    with open(script) as f:
        expected = unmoved(["sqlite3", ":memory:"], stdin=f).splitlines()
    assert got == expected, p.output("err")


# --- redis ------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("strategy", STRATEGIES)
def test_redis(run, strategy):
    """64 MiB of keys; commands before and after; every value compared, and the server serves at the destination."""
    p = run("redis", ["redis-server", "--port", "6379", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--appendonly", "no",
                      "--daemonize", "no"])
    wait_until("redis answers", lambda: inside("n1", "redis-cli", "PING", check=False).stdout == "PONG\n", 20, 0.05)
    fill = "for i=1,16384 do redis.call('SET', 'k'..i, string.rep(redis.sha1hex(tostring(i)), 100)) end return redis.call('DBSIZE')"
    check = "local bad=0 for i=1,16384 do if redis.call('GET', 'k'..i) ~= string.rep(redis.sha1hex(tostring(i)), 100) then bad=bad+1 end end return bad"
    assert inside("n1", "redis-cli", "EVAL", fill, "0").stdout.strip() == "16384"
    inside("n1", "redis-cli", "SET", "expires", "soon", "PX", "100000")
    p.migrate(strategy=strategy)
    assert inside("n2", "redis-cli", "EVAL", check, "0", timeout=60).stdout.strip() == "0"
    assert 0 < int(inside("n2", "redis-cli", "PTTL", "expires").stdout) <= 100000
    assert inside("n2", "redis-cli", "INCRBY", "n", "5").stdout.strip() == "5"
    assert inside("n3", "redis-cli", "-h", "n2", "DBSIZE").stdout.strip() == "16386"
    for host, address in (("n3", "n1"), ("n1", "n1"), ("n1", "127.0.0.1")):
        assert inside(host, "redis-cli", "-h", address, "DBSIZE").stdout.strip() == "16386", f"{host} calls the old address, {address}"
    assert strategy == "copy-on-reference" or not copies(["n1"], "redis-server")


def test_another_server_at_the_old_address(run):
    """One that is started where the first one was comes first there, whether that is served elsewhere or has ended."""
    command = ["redis-server", "--port", "6379", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--daemonize", "no"]
    first = run("redis", command)
    wait_until("redis answers", lambda: inside("n1", "redis-cli", "PING", check=False).stdout == "PONG\n", 20, 0.05)
    inside("n1", "redis-cli", "SET", "who", "first")
    first.migrate()
    assert inside("n1", "redis-cli", "GET", "who").stdout == "first\n"
    run("redis2", command)
    wait_until("the second one answers", lambda: inside("n1", "redis-cli", "GET", "who", check=False).stdout == "\n", 20, 0.05)
    inside("n1", "redis-cli", "SET", "who", "second")
    assert inside("n2", "redis-cli", "GET", "who").stdout == "first\n"
    inside("n2", "redis-cli", "SHUTDOWN", "NOSAVE", check=False)
    wait_until("... also others", lambda: inside("n3", "redis-cli", "-h", "n1", "GET", "who", check=False).stdout == "second\n", 20, 0.05)


def test_redis_with_writes_going_on(run):
    """A timer inside the server goes on (active expiry), and a client at the destination writes as soon as it can connect."""
    p = run("redis", ["redis-server", "--port", "6379", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--appendonly", "yes",
                      "--appendfsync", "no", "--hz", "100"])
    wait_until("redis answers", lambda: inside("n1", "redis-cli", "PING", check=False).stdout == "PONG\n", 20, 0.05)
    inside("n1", "redis-cli", "EVAL", "for i=1,5000 do redis.call('SET', 't'..i, i, 'PX', 500 + i) redis.call('RPUSH', 'list', i) end", "0")
    writer = popen("n2", "sh", "-c", "until redis-cli -h n2 PING >/dev/null 2>&1; do :; done; "
                   "i=0; while [ $i -lt 200 ]; do i=$((i+1)); echo RPUSH list new-$i; done | redis-cli -h n2 >/dev/null")
    p.migrate()
    assert writer.wait(60) == 0
    assert inside("n2", "redis-cli", "LLEN", "list").stdout.strip() == "5200"
    assert inside("n2", "redis-cli", "LRANGE", "list", "5000", "5001").stdout.split() == ["new-1", "new-2"]
    wait_until("keys expire", lambda: inside("n2", "redis-cli", "DBSIZE").stdout.strip() == "1", 15, 0.1)


# --- registers, read by a debugger ----------------------------------------------------------------------------------------------

MASK = 2**64 - 1


def mix(x):
    """The victims' splitmix64."""
    x = (x + 0x9e3779b97f4a7c15) & MASK
    x = ((x ^ x >> 30) * 0xbf58476d1ce4e5b9) & MASK
    x = ((x ^ x >> 27) * 0x94d049bb133111eb) & MASK
    return x ^ x >> 31


def registers_by_gdb(host, pid, directory):
    """The registers of the thread that holds its pattern, or None when it was caught outside of its loop."""
    commands = os.path.join(directory, "gdb")
    with open(commands, "w") as f:
        f.write("set pagination off\nset height 0\nset width 0\nthread 2\nbt 1\np/x $rbx\np/x $r15\np/x $rbp\np/x $mxcsr\np/x $xmm7.v2_int64\n"
                "p/x $xmm12.v2_int64\nquit\n")
    seen = inside(host, "gdb", "-q", "-batch", "-nx", "-x", commands, "-p", str(pid), check=False, timeout=60)
    words = re.findall(r"^\$\d+ = (.*)$", seen.stdout, re.M)
    assert len(words) == 6, seen.stdout[-1500:] + seen.stderr[-1500:]
    if not re.search(r"^#0 .*hold_registers", seen.stdout, re.M):
        return None
    return [[int(w, 16) for w in re.findall(r"0x[0-9a-f]+", word)] for word in words]


def test_registers_read_by_gdb(lab2):
    """A debugger can attach at the destination, and the registers that it reads are the pattern that the thread holds."""
    from lab_driver import Victim
    v = Victim(lab2, "regs_1").wait_ready()
    v.migrate("n2")
    for _ in range(10):
        got = registers_by_gdb(v.host, v.pid, v.directory)
        if not got:
            continue
        seed = next((131 + n for n in range(1000000) if mix((131 + n) * 1000) == got[0][0]), None)
        if seed is not None:
            break
    assert got and seed is not None, got
    assert got[1] == [mix(seed * 1000 + 12)] and got[2] == [mix(seed * 1000 + 13)], got
    assert got[3] == [0x1f80 | (seed & 3) << 13 | (seed & 1) << 15 | (seed >> 2 & 1) << 6 | (seed & 0x3f)], got
    assert got[4] == [mix(seed * 10000 + 7 * 8 + j) for j in range(2)] and got[5] == [mix(seed * 10000 + 12 * 8 + j) for j in range(2)], got
    v.assert_ok()


# --- files that change and come and go while the program moves -------------------------------------------------------------

LOGGER = textwrap.dedent(r"""
    import os, time, tempfile, hashlib, sys, mmap
    log = open('/tmp/log-%d' % os.getpid(), 'ab', buffering=0)
    os.makedirs('/tmp/deep/er', exist_ok=True)
    rw = open('/tmp/deep/er/rw-%d' % os.getpid(), 'w+b', buffering=0)
    tmp = tempfile.TemporaryFile(buffering=0)
    h = hashlib.sha256(); n = 0
    end = int(sys.argv[1])
    m = bytearray(300000)
    while n < end:
        line = b'%d line\n' % n
        log.write(line); tmp.write(line); h.update(line)
        at = (n * 7919) % 299000
        rw.seek(at); rw.write(line); m[at:at+len(line)] = line
        if n % 50 == 0:   # opens and closes files all the time
            p = '/tmp/short-%d-%d' % (os.getpid(), n)   # a name of its own: what is closed stays on the host it was closed on
            with open(p, 'w') as f: f.write('x' * (n % 5000))
            with open(p) as f: assert len(f.read()) == n % 5000, (n, p)
            with open('/usr/lib/python3.11/%s' % ('os.py', 'abc.py', 'ast.py')[n % 3]) as f: f.read(100)
            q = tempfile.TemporaryFile(); q.write(line); q.seek(0); assert q.read() == line; q.close()
        n += 1
        if n % 10 == 0: time.sleep(0.001)
    tmp.seek(0); ht = hashlib.sha256(tmp.read()).hexdigest()
    hl = hashlib.sha256(open(log.name, 'rb').read()).hexdigest()
    rw.seek(0); r = rw.read()
    print(ht == h.hexdigest(), hl == h.hexdigest(), r == bytes(m[:len(r)]) and not any(m[len(r):]), tmp.tell(), log.tell())
""")

JOURNALS = textwrap.dedent(r"""
    import asyncio, sqlite3, sys, hashlib, os
    db = sqlite3.connect('aio.db'); db.execute('create table t(k integer primary key, v text)')
    async def ticker(n, out):
        for i in range(n): await asyncio.sleep(0.003); out.append(i)
    async def writer(n):
        for i in range(n):
            with db: db.execute('insert into t values(?,?)', (i, hashlib.sha1(b'%d' % i).hexdigest()))
            await asyncio.sleep(0)
    async def main():
        o1, o2 = [], []
        await asyncio.gather(ticker(800, o1), ticker(700, o2), writer(1500))
        print(o1 == list(range(800)), o2 == list(range(700)), db.execute('select count(*), max(v), sum(k) from t').fetchall(), db.execute('pragma integrity_check').fetchone())
        db.close()
    asyncio.run(main())
""")


def round_trip(p, strategy, hops=("n2", "n3", "n1")):
    """Moves on and back home, for as long as the program runs."""
    for dest in hops:
        if p.process():
            p.migrate(dest, strategy)
    return p.wait_end()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_files_of_each_host(run, lab2, strategy):
    """A log, a file written at random and an unlinked one, all in the /tmp that each host has for itself, written all the time: nothing is lost."""
    script = os.path.join(lab2.directory("logger"), "logger.py")
    with open(script, "w") as f:
        f.write(LOGGER)
    p = run("logger", ["/usr/bin/python3", script, "12000"])
    wait_until("log", lambda: p.process() and len(os.listdir(f"/proc/{p.process().pid}/fd")) >= 6, 20)
    assert round_trip(p, strategy).split()[:3] == ["True"] * 3, p.output() + p.output("err")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_journals_come_and_go(run, lab2, strategy):
    """sqlite makes and removes its journal on a shared file system some hundred times a second."""
    script = os.path.join(lab2.directory("journals"), "journals.py")
    with open(script, "w") as f:
        f.write(JOURNALS)
    p = run("journals", ["/usr/bin/python3", script])
    wait_until("database", lambda: os.path.exists(os.path.join(p.directory, "aio.db")), 20)
    out = round_trip(p, strategy)
    assert out.startswith("True True [(1500, ") and out.rstrip().endswith("('ok',)"), out + p.output("err")
