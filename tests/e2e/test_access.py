# SPDX-License-Identifier: GPL-2.0-or-later
"""Users without privileges: what is theirs they move and see, and nothing else; and members of the group that the configuration names."""

import json
import os

from lab_driver import VICTIMS, Victim, inside, wait_until

REFUSED = 3


def as_user(host, *command, groups="--clear-groups"):
    return inside(host, "setpriv", "--reuid=nobody", "--regid=nogroup", groups, *command, check=False)


def start_as(*ids):
    """A program of n1's; its number."""
    pid = int(inside("n1", "setpriv", *ids, "sh", "-c", "setsid sleep 900 </dev/null >/dev/null 2>&1 & echo $!").stdout)
    wait_until("it sleeps", lambda: "sleep" in inside("n1", "cat", f"/proc/{pid}/comm", check=False).stdout)
    return pid


def nobodys():
    return start_as("--reuid=nobody", "--regid=nogroup", "--clear-groups")


def listed(host, **options):
    return {u["unit"] for u in json.loads(as_user(host, "godwit", "ps", "--json", **options).stdout)["units"]}


def is_away(pid):
    return not inside("n1", "test", "-e", f"/proc/{pid}", check=False).returncode == 0


def test_what_is_theirs(lab2):
    pid = nobodys()
    done = as_user("n1", "godwit", "check", str(pid))
    assert done.returncode == 0, done.stderr
    for unit, to in ((str(pid), "n2"), (f"n1:{pid}", "n3")):       # the second time it is asked for where it is not
        done = as_user("n1", "godwit", "migrate", unit, to)
        assert done.returncode == 0, done.stderr
    assert listed("n1") == listed("n2") == {f"n1:{pid}"}
    done = as_user("n1", "godwit", "balance", "explain", f"n1:{pid}")
    assert done.returncode == 0, done.stderr
    done = as_user("n2", "godwit", "migrate", f"n1:{pid}", "home")
    assert done.returncode == 0, done.stderr
    inside("n1", "setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "kill", str(pid))


def test_what_is_not(lab2):
    """Of another user, of root, with ids or capabilities besides their own, that may not be looked into, or with such below: refused, and not even touched."""
    others = [start_as("--reuid=0"), start_as("--reuid=games", "--regid=games", "--clear-groups"), start_as("--reuid=nobody", "--regid=games", "--clear-groups"),
              start_as("--ruid=nobody", "--euid=nobody", "--regid=nogroup", "--clear-groups", "--inh-caps=+net_raw", "--ambient-caps=+net_raw")]
    secret = int(inside("n1", "setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "/usr/bin/python3", "-c",
                        "import ctypes,os,sys,time\nif os.fork(): os._exit(0)\nos.setsid()\nctypes.CDLL(None).prctl(4, 0)\nprint(os.getpid(), flush=True)\n"
                        "[os.close(f) for f in (0,1,2)]\ntime.sleep(900)\n").stdout)
    parent = int(inside("n1", "/usr/bin/python3", "-c",
                        "import os,time\nif os.fork(): os._exit(0)\nos.setsid()\nprint(os.getpid(), flush=True)\n[os.close(f) for f in (0,1,2)]\n"
                        "if os.fork():\n os.setgroups([])\n os.setresgid(65534,65534,65534)\n os.setresuid(65534,65534,65534)\n os.execv('/bin/sleep', ['sleep', '900'])\n"
                        "time.sleep(900)\n").stdout)
    wait_until("it is nobody's", lambda: "sleep" in inside("n1", "cat", f"/proc/{parent}/comm").stdout)
    for pid in [*others, secret, parent]:
        done = as_user("n1", "godwit", "migrate", "--json", str(pid), "n2")
        assert done.returncode == REFUSED and "task.not-yours" in done.stdout, f"{pid} of {others}, {secret}, {parent}: {done.stdout}{done.stderr}"
        assert not is_away(pid)
        done = as_user("n1", "godwit", "check", "--json", str(pid))
        assert done.returncode != 0 and "task.not-yours" in done.stdout, done.stdout
    root = others[0]
    inside("n1", "godwit", "migrate", str(root), "n2")
    assert listed("n1") == listed("n2") == set()
    for host in ("n1", "n2", "n3"):
        done = as_user(host, "godwit", "migrate", "--json", f"n1:{root}", "n3")
        assert done.returncode == REFUSED and "task.not-yours" in done.stdout, done.stdout + done.stderr
    inside("n2", "kill", str(root))


def test_what_is_for_root(lab2):
    for command in (["drain", "n2"], ["undrain"], ["balance", "on"], ["balance", "status"], ["connections"], ["checkpoint", "1", "/tmp/image"], ["restore", "/tmp/image"]):
        done = as_user("n1", "godwit", *command)
        assert done.returncode not in (0, None) and "for root" in done.stderr, f"{command}: {done.stdout}{done.stderr}"
    pid = nobodys()
    for host in ("10.66.0.2", "localhost:4470"):        # a host of one's own would be given what files home has
        done = as_user("n1", "godwit", "migrate", str(pid), host)
        assert done.returncode != 0 and "only root" in done.stderr, done.stderr
    for command in (["nodes"], ["select"], ["check"]):
        assert as_user("n1", "godwit", *command).returncode == 0, command


def test_group(lab2):
    """Its members may do everything, others nothing where that is wanted."""
    inside("n1", "sh", "-c", "cp /etc/godwit/godwit.conf /tmp/conf && printf '[access]\\ngroup = games\\nusers = no\\n' >>/etc/godwit/godwit.conf")
    try:
        lab2.restart_daemon("n1")
        pid = start_as("--reuid=0")
        done = as_user("n1", "godwit", "nodes")
        assert done.returncode != 0 and "for root here" in done.stderr, done.stderr
        done = as_user("n1", "godwit", "migrate", str(pid), "n2", groups="--groups=games")
        assert done.returncode == 0, done.stderr
        assert listed("n1", groups="--groups=games") == {f"n1:{pid}"}
        inside("n2", "kill", str(pid))
    finally:
        inside("n1", "sh", "-c", "cp /tmp/conf /etc/godwit/godwit.conf")
        lab2.restart_daemon("n1")


def test_one_user_does_not_take_it_all(lab2):
    """Requests of a user that are never complete leave room for those of others."""
    hog = inside("n1", "setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "/usr/bin/python3", "-c",
                 "import socket\nkept=[]\nfor i in range(100):\n s=socket.socket(socket.AF_UNIX)\n s.connect('/run/godwit/godwitd.sock')\n s.settimeout(1)\n kept.append(s)\n"
                 "said=0\nfor s in kept:\n try: said+=b'not complete already' in s.recv(1000)\n except TimeoutError: pass\nprint(said)")
    assert int(hog.stdout) == 92, hog.stdout
    assert inside("n1", "godwit", "nodes").returncode == 0


SLEEPER = ("import os,sys,time\nif os.fork(): os._exit(0)\nos.setsid()\nkept=[open(p, 'r+') for p in sys.argv[1:]]\nprint(os.getpid(), flush=True)\n"
           "[os.close(f) for f in (0,1,2)]\ntime.sleep(900)\n")


def with_open(*paths):
    """A program of nobody's that has these files open; its number."""
    return int(inside("n1", "setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "/usr/bin/python3", "-c", SLEEPER, *paths).stdout)


def refusal(pid, code, *options):
    done = inside("n1", "godwit", "migrate", "--json", *options, str(pid), "n2", check=False)
    return done.returncode == REFUSED and code in done.stdout and not is_away(pid)


def test_what_is_admitted(lab2):
    """A host says as whom others may run something there: not as root, not with capabilities, and no file is made that would lend them."""
    inside("n2", "sh", "-c", "cp /etc/godwit/godwit.conf /tmp/conf && printf '[access]\narriving_users = 60000-65534\narriving_groups = 65534\narriving_capabilities = none\n' "
           ">>/etc/godwit/godwit.conf")
    nobody = ("--reuid=nobody", "--regid=nogroup", "--clear-groups")
    try:
        lab2.restart_daemon("n2")
        inside("n1", "sh", "-c", "umask 0; echo text >/tmp/plain; echo text >/tmp/lends; chown nobody:nogroup /tmp/plain /tmp/lends; chmod 4755 /tmp/lends")
        for ids in (("--reuid=0",), ("--reuid=nobody", "--regid=games", "--clear-groups"), ("--reuid=nobody", "--regid=nogroup", "--groups=games"),
                    (*nobody, "--inh-caps=+net_raw", "--ambient-caps=+net_raw"), ("--reuid=0", "unshare", "--map-root-user")):
            pid = start_as(*ids)
            assert refusal(pid, "task.not-admitted"), f"{ids}: {inside('n1', 'godwit', 'migrate', str(pid), 'n2', check=False)}"
        assert refusal(with_open("/tmp/lends"), "file.not-admitted", "--files=copy")
        for pid in (start_as(*nobody), start_as(*nobody, "unshare", "--map-root-user"), with_open("/tmp/plain")):
            inside("n1", "godwit", "migrate", str(pid), "n2")
            inside("n2", "kill", str(pid))
    finally:
        inside("n2", "sh", "-c", "cp /tmp/conf /etc/godwit/godwit.conf")
        lab2.restart_daemon("n2")


def test_links_lead_nowhere(lab2):
    """Files that the destination makes come to be where they were, and not where a user's symbolic link would have them; root's links are followed."""
    for owner in ("nobody", "root"):
        inside("n1", "sh", "-c", "rm -rf /tmp/way && mkdir /tmp/way && echo text >/tmp/way/file && chown -R nobody /tmp/way")
        inside("n2", "sh", "-c", f"rm -rf /tmp/way /tmp/elsewhere && mkdir /tmp/elsewhere && ln -s elsewhere /tmp/way && chown -h {owner} /tmp/way")
        pid = with_open("/tmp/way/file")
        done = inside("n1", "godwit", "migrate", "--files=copy", str(pid), "n2", check=False)
        made = inside("n2", "ls", "/tmp/elsewhere").stdout.split()
        assert (done.returncode == 0, made) == ((True, ["file"]) if owner == "root" else (False, [])), f"{owner}: {done.stderr} {made}"
        assert is_away(pid) == (owner == "root")
        inside("n2" if owner == "root" else "n1", "kill", str(pid))


def test_stand_ins_lend_nothing(lab2):
    """A set-id program that the destination lacks: what stands for it there is root's, and no set-id program."""
    inside("n1", "sh", "-c", "cp /bin/sleep /tmp/lent && chown nobody /tmp/lent && chmod 6755 /tmp/lent")
    pid = int(inside("n1", "sh", "-c", "setsid /tmp/lent 900 </dev/null >/dev/null 2>&1 & echo $!").stdout)
    inside("n1", "godwit", "migrate", str(pid), "n2")
    assert inside("n2", "stat", "-L", "-c", "%u %a", f"/proc/{pid}/exe").stdout.strip() in ("0 755", "65534 6755")
    inside("n2", "kill", str(pid))


def test_victim_of_a_user(lab2):
    """A program with memory, threads and files, moved by its user."""
    v = Victim(lab2, "ws_random", command=["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", os.path.join(VICTIMS, "victim"), "ws_random", "STATUS", "16"]).wait_ready()
    done = as_user("n1", "godwit", "migrate", str(v.pid), "n2")
    assert done.returncode == 0, done.stderr
    v.host = "n2"
    v.assert_ok()
