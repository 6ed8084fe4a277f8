# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab itself: hosts are separate, exec passes everything through, links can be cut, a kill is silent, down finds all."""

import os
import select
import signal
import subprocess
import time

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DEV = os.path.join(ROOT, "dev")
NAME = "labtest"
ENV = {**os.environ, "GODWIT_LAB": NAME}
ENV.pop("GODWIT_LAB_DIR", None)
STATE = f"/var/tmp/godwit-lab-{NAME}"


def lab(*arguments, check=True, **options):
    return subprocess.run([DEV, "lab", *arguments], env=ENV, capture_output=True, text=True, timeout=60, check=check, **options)


def sh(host, script, **options):
    return lab("exec", host, "--", "sh", "-c", script, **options)


def popen(host, *command, **options):
    return subprocess.Popen([DEV, "lab", "exec", host, "--", *command], env=ENV, text=True, stdout=subprocess.PIPE, **options)


def reachable(a, b):
    return lab("exec", a, "--", "ping", "-n", "-c", "1", "-W", "1", b, check=False).returncode == 0


@pytest.fixture(scope="module")
def hosts():
    """n1, n2 and x1; tests leave them as they found them."""
    lab("up", "2", "--outside", "1", "--force")
    yield
    lab("down")


def test_streams_and_status(hosts):
    done = sh("n1", "cat; echo error >&2; exit 7", input="in\n", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, "in\n", "error\n")


def test_arguments_are_passed_unchanged(hosts):
    words = ["", " a  b ", "*", "$HOME", "--", "-x", "é\n"]
    done = lab("exec", "n1", "--", "printf", "<%s>", *words)
    assert done.stdout == "".join(f"<{word}>" for word in words)


@pytest.mark.parametrize("command,status", [("/nonexistent", 127), ("/etc/passwd", 126)])
def test_a_command_that_cannot_run(hosts, command, status):
    done = lab("exec", "n1", "--", command, check=False)
    assert done.returncode == status and command in done.stderr


def test_errors_of_the_lab_itself(hosts):
    done = lab("exec", "n9", "--", "true", check=False)
    assert done.returncode == 125 and "n9" in done.stderr
    assert lab("kill", "n9", check=False).returncode != 0
    done = lab("up", "1", check=False)
    assert done.returncode != 0 and "is there already" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_reach_the_command(hosts, number):
    name = number.name.removeprefix("SIG")
    p = popen("n1", "sh", "-c", f"trap 'echo got; exit 3' {name}; echo ready; while :; do sleep 0.02; done")
    assert p.stdout.readline() == "ready\n"
    p.send_signal(number)
    assert p.communicate(timeout=10)[0] == "got\n"
    assert p.returncode == 3


def test_death_by_signal_is_passed_on(hosts):
    assert sh("n1", "kill -KILL $$", check=False).returncode == -signal.SIGKILL
    p = popen("n1", "sleep", "100")
    while "sleep 100" not in sh("n1", "ps -eo args").stdout:
        pass
    p.terminate()
    assert p.wait(timeout=10) == -signal.SIGTERM


def test_the_command_has_a_session_and_no_foreign_descriptors(hosts):
    with open("/dev/null") as extra:
        done = lab("exec", "n1", "--", "sh", "-c", "ps -o sid= -p $$; echo $$; ls /proc/self/fd", pass_fds=[extra.fileno()])
    words = done.stdout.split()
    assert words[0] == words[1]
    assert words[2:] == ["0", "1", "2", "3"]        # 3 is the directory that ls reads


def test_a_background_process_stays(hosts):
    pid = sh("n1", "sleep 1000 >/dev/null 2>&1 </dev/null & echo $!").stdout.strip()
    assert sh("n1", f"ps -o ppid=,args= -p {pid}").stdout.split() == ["1", "sleep", "1000"]
    sh("n1", f"kill {pid}; while kill -0 {pid} 2>/dev/null; do sleep 0.01; done")        # and its init reaps


def test_exec_is_quick(hosts):
    """As quick as a few programs are to start, however long that takes on this machine at this moment."""
    took, bash = [], []
    for _ in range(30):
        start = time.monotonic()
        lab("exec", "n1", "--", "true")
        middle = time.monotonic()
        subprocess.run(["bash", "-c", "true"], check=True)
        took.append(middle - start)
        bash.append(time.monotonic() - middle)
    assert min(took) < max(0.03, 5 * min(bash)), f"{min(took):.3f} s, a shell {min(bash):.3f} s"


def test_a_terminal(hosts):
    done = subprocess.run(["script", "-qec", f"{DEV} lab exec --tty n1 -- sh -c 'tty; exit 5'", "/dev/null"],
                          env=ENV, capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL)
    assert "/dev/pts/0" in done.stdout and done.returncode == 5


def test_what_a_host_has_of_its_own(hosts):
    assert sh("n1", "hostname").stdout == "n1\n"
    assert sh("n1", "ps -o args= -p 1").stdout.split()[1] == "init"
    for directory in ("/tmp", "/run", "/dev/shm", "/var/lib/godwit"):
        sh("n1", f"echo x >{directory}/only-n1")
        assert sh("n2", f"cat {directory}/only-n1", check=False).returncode == 1
        assert not os.path.exists(f"{directory}/only-n1")
    assert sh("n1", "ls /sys/class/net").stdout.split() == ["eth0", "lo"]
    assert sh("n1", "ip -br addr show eth0").stdout.split()[2] == "10.66.0.1/24"
    assert f"{NAME}-n1" in subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout


def test_what_hosts_share(hosts):
    path = "/var/tmp/godwit-lab-test-shared"
    try:
        sh("n1", f"echo shared >{path}")
        assert sh("n2", f"cat {path}").stdout == "shared\n"
    finally:
        os.unlink(path)


def test_pids_of_hosts_lie_apart(hosts):
    pids = [int(sh(host, "echo $$").stdout) for host in ("n1", "n2", "x1")]
    assert all(abs(a - b) > 1000 for a in pids for b in pids if a is not b)


def test_names_resolve_and_hosts_reach_each_other(hosts):
    for a, b in (("n1", "n2"), ("n2", "n1"), ("n1", "x1"), ("x1", "n2")):
        assert reachable(a, b)


def test_cut_and_heal(hosts):
    lab("cut", "n1", "n2")
    try:
        assert not reachable("n1", "n2") and not reachable("n2", "n1")
        assert reachable("n1", "x1") and reachable("n2", "x1")
        assert "cut   n1 n2" in lab("status").stdout
    finally:
        lab("heal", "n2", "n1")
    assert reachable("n1", "n2")
    lab("heal", "n1", "n2")         # what is whole can be mended


SERVER = "import socket; s=socket.create_server(('',7000)); print('up', flush=True); c=s.accept()[0]; print(c.recv(9), flush=True); print(c.recv(9))"
CLIENT = "import socket,time; s=socket.create_connection(('n2',7000)); s.send(b'hello'); time.sleep(100)"


def test_kill_is_silent_and_start_brings_it_back(hosts):
    sh("n1", "echo kept >/var/lib/godwit/f; echo gone >/tmp/f")
    server = popen("n2", "/usr/bin/python3", "-c", SERVER)
    assert server.stdout.readline() == "up\n"
    client = popen("n1", "/usr/bin/python3", "-c", CLIENT)
    assert server.stdout.readline() == "b'hello'\n"
    lab("kill", "n1")
    try:
        assert client.wait(timeout=10) == -signal.SIGKILL
        assert lab("exec", "n1", "--", "true", check=False).returncode == 125
        assert not select.select([server.stdout], [], [], 1)[0], "the peer of a host without power heard something"
        assert "ESTAB" in sh("n2", "ss -tn sport = :7000").stdout
    finally:
        server.terminate()
        server.wait(timeout=10)
        lab("start", "n1")
    assert reachable("n2", "n1")
    assert sh("n1", "cat /var/lib/godwit/f; ls /tmp/f", check=False).stdout == "kept\n"


def test_a_frozen_process_does_not_outlive_the_power(hosts):
    pid = sh("n1", "sleep 1000 >/dev/null 2>&1 </dev/null & echo $!").stdout.strip()
    sh("n1", f"kill -STOP {pid}; until grep -q '^State:.T' /proc/{pid}/status; do :; done")
    lab("kill", "n1")
    lab("start", "n1")
    assert "sleep 1000" not in sh("n1", "ps -eo args").stdout


def test_daemons_run_and_restart(hosts):
    def daemon():
        line = next(line for line in lab("status").stdout.splitlines() if line.startswith("n1 "))
        return int(line.split("godwitd pid ")[1])

    first = daemon()
    assert sh("n1", f"cat /proc/{first}/comm").stdout == "godwitd\n"
    lab("restart-daemon", "n1")
    assert daemon() != first
    assert sh("n1", f"kill -0 {first}", check=False).returncode != 0
    assert "ready" in lab("logs", "n1").stdout
    assert lab("restart-daemon", "x1", check=False).returncode != 0
    assert "godwitd" not in sh("x1", "ps -eo comm").stdout


def test_memory_limit(hosts):
    eat = ["exec", "n2", "--", "/usr/bin/python3", "-c", "x = bytearray(b'x') * (96 << 20)"]
    lab("limit", "n2", "32M")
    assert lab(*eat, check=False).returncode == -signal.SIGKILL
    lab("limit", "n2", "none")
    assert lab(*eat, check=False).returncode == 0
    lab("kill", "n2")
    lab("start", "n2")
    assert lab("limit", "n2", "much", check=False).returncode != 0


def leftovers():
    spaces = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    inits = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in spaces.splitlines() if line.startswith(NAME)] + [
        line for line in inits.splitlines() if "labhost init" in line and f" {NAME} " in line]


def test_down_after_a_crash():
    """`up` is killed in the middle, and the state directory is lost."""
    for delay_ms in (10, 40, 70, 100, 150):
        up = subprocess.Popen([DEV, "lab", "up", "2", "--force"], env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(delay_ms / 1000)         # no event to wait for: any moment will do
        up.kill()
        up.wait()
        if delay_ms == 70:
            subprocess.run(["rm", "-rf", STATE], check=True)
        lab("down")
        assert not leftovers() and not os.path.exists(STATE)
    assert lab("down").returncode == 0          # nothing to do is no failure


def test_same_pids():
    lab("up", "2", "--same-pids", "--force")
    try:
        first, second = (int(sh(host, "echo $$").stdout) for host in ("n1", "n2"))
        assert abs(first - second) < 100
    finally:
        lab("down")
