# SPDX-License-Identifier: GPL-2.0-or-later
"""Ranks of an MPI job on several hosts move in the middle of the computation: its result is that of an unmoved run."""

import os
import shutil
import subprocess

import pytest

from lab_driver import ROOT, inside, kill, migrate, popen, processes, read, wait_until

HOSTS = {"n1": "10.66.0.1", "n2": "10.66.0.2", "n3": "10.66.0.3"}
SSH_PORT = "4722"
HUGE_PAGES = "/proc/sys/vm/nr_hugepages"
# How each is told to use TCP between the ranks, and to start its helpers by the ssh of these tests.
KINDS = {
    "mpich": {"cc": "mpicc.mpich", "from": "n1", "run": ["mpiexec.hydra", "-launcher", "ssh", "-launcher-exec", "SSH", "-iface", "eth0", "-hosts", "HOSTS", "-n", "RANKS"],
              "env": {"UCX_TLS": "tcp,self", "UCX_NET_DEVICES": "eth0", "UCX_TCP_PUT_ENABLE": "n"}},
    "openmpi": {"cc": "mpicc.openmpi", "from": "n3", "run": ["mpirun.openmpi", "--allow-run-as-root", "--mca", "plm_rsh_agent", "SSH", "--mca", "pml", "ob1", "--mca", "btl", "tcp,self",
                                               "--mca", "btl_tcp_if_include", "eth0", "--mca", "oob_tcp_if_include", "eth0", "--mca", "mpi_yield_when_idle", "1",
                                               "PLACES"],
                "env": {"PMIX_MCA_gds": "hash"}},
}


class Job:
    """A job. Hydra leaks what it has open to ranks, and most of it to those of the host that it begins on."""

    def __init__(self, lab_, cluster, kind, hosts, rounds, pause_us=1000, env=None):
        self.lab, self.directory, self.program = lab_, lab_.directory(f"job-{kind}"), cluster.programs[kind]
        spec = KINDS[kind]
        words = {"SSH": cluster.ssh, "RANKS": str(len(hosts)), "HOSTS": ",".join(HOSTS[h] for h in hosts)}
        self.out = os.path.join(self.directory, "out")
        self.hurry = os.path.join(self.directory, "hurry")
        program = [self.program, str(rounds), str(pause_us), self.hurry]
        arguments = [words.get(word, word) for word in spec["run"]] + program
        if "PLACES" in arguments:
            # Each rank of Open MPI listens at the first port that is free on its host, for all addresses: two could not be on one host later.
            arguments = [word for word in arguments if word != "PLACES" and word not in program]
            for i, host in enumerate(hosts):
                arguments += [*([":"] if i else []), "--host", HOSTS[host], "-np", "1", "-x", f"OMPI_MCA_btl_tcp_port_min_v4={20000 + 1000 * i}",
                              "-x", f"OMPI_MCA_btl_tcp_port_min_v6={20000 + 1000 * i}", *program]
        with open(self.out, "w", encoding="utf-8") as out:
            self.process = popen(spec["from"], "env", *(f"{k}={v}" for k, v in {**spec["env"], **(env or {})}.items()), *arguments, stdin=subprocess.DEVNULL, stdout=out,
                                 stderr=subprocess.STDOUT)
        self.wait_round(0)

    def text(self):
        return read(self.out)

    def round(self):
        said = [line for line in self.text().splitlines() if line.startswith("round ")]
        return int(said[-1].split()[1]) if said else -1

    def wait_round(self, number):
        def there():
            assert self.process.poll() is None, f"the job has ended: {self.text()[-1500:]}"
            return self.round() >= number
        wait_until(f"round {number}: {self.text()[-500:]}", there, 60, 0.02)

    def ranks(self, host):
        return [p for p in processes(host) if p.cmdline.startswith(self.program) and p.state != "Z"]

    def move(self, host, to, rank=0):
        """Moves one of its ranks that are on that host; it goes on after that."""
        found = sorted(self.ranks(host), key=lambda p: p.host_pid)
        result = migrate(host, found[rank].host_pid, to)
        assert result.status == 0, f"{host} to {to}: {result.why()}\n{self.lab.log_tail(host)}\n{self.lab.log_tail(to)}"
        self.wait_round(self.round() + 100)
        return result

    def end(self, seconds=90):
        with open(self.hurry, "w", encoding="ascii"):
            pass
        self.process.wait(seconds)
        done = [line for line in self.text().splitlines() if line.startswith("done ")]
        assert done and self.process.returncode == 0, f"status {self.process.returncode}: {self.text()[-1500:]}"
        return done[0]


class Cluster:
    """Hosts that reach each other by ssh, and the program, built with each MPI."""

    def __init__(self, lab_):
        self.lab, self.directory = lab_, lab_.directory("mpi")
        keys = os.path.join(self.directory, "key")
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", keys + name], check=True)
        self.ssh = os.path.join(self.directory, "ssh")
        with open(self.ssh, "w", encoding="ascii") as f:
            f.write(f"#!/bin/sh\nexec /usr/bin/ssh -F none -p {SSH_PORT} -i {keys}user -o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no -o LogLevel=ERROR \"$@\"\n")
        os.chmod(self.ssh, 0o755)
        self.sshd = ["/usr/sbin/sshd", "-f", "/dev/null", "-p", SSH_PORT, "-h", keys + "host", "-o", f"AuthorizedKeysFile={keys}user.pub", "-o", "StrictModes=no",
                     "-o", "PermitRootLogin=yes", "-o", "UsePAM=no", "-o", "PidFile=none"]
        self.programs = {}
        for kind, spec in KINDS.items():
            if shutil.which(spec["cc"]):
                self.programs[kind] = os.path.join(self.directory, f"ring-{kind}")
                subprocess.run([spec["cc"], "-O2", "-o", self.programs[kind], os.path.join(ROOT, "tests/victims/mpi.c")], check=True)

    def up(self):
        for host in HOSTS:
            inside(host, "mkdir", "-p", "/run/sshd")
            inside(host, *self.sshd)


@pytest.fixture(scope="module")
def cluster(whole_lab):
    return Cluster(whole_lab)


@pytest.fixture
def hosts(lab2, cluster):
    """UCX takes some of the machine's huge pages, which are all hosts' here: enough for twice as many ranks."""
    before = read(HUGE_PAGES)
    with open(HUGE_PAGES, "w", encoding="ascii") as f:
        f.write(str(int(before) + 32))
    cluster.up()
    yield lab2
    for host in HOSTS:
        for p in processes(host):
            if p.cmdline.startswith(cluster.directory):
                kill(p.pid, 9)
    with open(HUGE_PAGES, "w", encoding="ascii") as f:
        f.write(before)


@pytest.mark.parametrize("kind", list(KINDS))
def test_ranks_move(hosts, cluster, kind):
    """Any rank, the first one included, to a host of the job, to one that has no rank, and home."""
    expected = Job(hosts, cluster, kind, ["n1", "n2"], 4000, 0).end()
    job = Job(hosts, cluster, kind, ["n1", "n2"], 4000, 8000)     # longer than the moves take: it hurries after them
    job.move("n2", "n3")
    job.move("n1", "n2")
    job.move("n3", "n1")
    job.move("n2", "n3")
    assert job.end() == expected and expected.startswith("done ")


def test_shared_memory_between_ranks(hosts, cluster):
    """Ranks that share memory move together, with what has started them, and one alone is refused."""
    out = os.path.join(hosts.directory("job-shared"), "out")
    inside("n1", "setsid", "-f", "sh", "-c", 'exec "$0" "$@" </dev/null >' + out + " 2>&1", "mpirun.openmpi", "--allow-run-as-root", "--mca", "pml", "ob1", "--mca", "btl",
           "vader,self", "--mca", "mpi_yield_when_idle", "1", "-np", "2", "--oversubscribe", cluster.programs["openmpi"], "20000", "1000", out + ".hurry")
    wait_until("it computes", lambda: "round 100" in read(out), 30, 0.05)
    ranks = [p for p in processes("n1") if p.cmdline.startswith(cluster.programs["openmpi"]) and p.state != "Z"]
    refused = migrate("n1", ranks[0].host_pid, "n2")
    assert refused.status == 3 and "it is shared with another process" in str(refused.json["refusals"]), refused.why()
    both = next(p.host_pid for p in processes("n1") if p.pid == ranks[0].parent)
    told = f"move process {both} (mpirun.openmpi) instead"
    assert told in str(refused.json["refusals"]) and told in inside("n1", "godwit", "check", str(ranks[1].host_pid), "--to", "n2", check=False).stdout, refused.text
    moved = migrate("n1", both, "n2")
    assert moved.status == 0, moved.why()
    with open(out + ".hurry", "w", encoding="ascii"):
        pass
    wait_until("the result", lambda: "done " in read(out), 60, 0.1)
