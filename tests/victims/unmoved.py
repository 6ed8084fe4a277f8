#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs victims without moving them: what they check must hold, and damage done on purpose must be noticed.

unmoved.py BUILD_DIR victims [PROGRAM]   every victim: set up, stopped and continued once, host name changed, checked: "ok"
unmoved.py BUILD_DIR vandal              one change made from outside for each case: "FAIL" that names it
"""
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

CHECK_FILE, MOVE, HIDDEN, NO_STOP = 1, 8, 32, 64
# (victim, action, what the verdict must contain)
VANDALISM = [
    ('mem_anon', 'flip "" 5000', 'anonymous memory'),
    ('mem_zero', 'flip "" 4096', 'zero page'),
    ('mem_shared_file', 'flip data 20000', 'shared file mapping|file behind'),
    ('mem_private_file', 'flip data 9000', 'private file'),
    ('mem_memfd', 'flip memfd 77', 'memfd'),
    ('shm_sysv_parts', 'flip SYSV 5000', 'segment'),
    ('shm_holes', 'flip zero 300', 'hole'),
    ('ws_random', 'flip "" 0', 'version'),
    ('regs_main', 'reg rbx', 'rbx|carry'),
    ('regs_main', 'reg r15', 'r15'),
    ('regs_main', 'reg xmm7', 'zmm7'),
    ('regs_main', 'reg ymm9', 'zmm9'),
    ('regs_main', 'reg mxcsr', 'mxcsr'),
    ('regs_main', 'reg st', 'ST'),
    ('regs_main', 'reg carry', 'carry'),
    ('signal_mask', 'call 14 0 status 0 8', 'Blk|mask'),
    ('signal_pending', 'sigtake 35', 'signal|sigtimedwait|value'),
    ('thread_altstack', 'altoff', 'alternate stack'),
    ('timer_itimer_left', 'itimer', 'ITIMER_REAL'),
    ('ident_plain', 'call 95 0', 'Umask|umask'),
    ('ident_plain', 'call 141 0 0 7', 'nice'),
    ('ident_plain', 'call 135 0x0040000', 'personality'),
    ('ident_creds', 'call 157 38 1 0 0 0', 'NoNewPrivs|no_new_privs'),
    ('ident_prctl', 'call 157 29 77 0 0 0', 'slack'),
    ('ident_sched', 'call 251 1 0 0x4003', 'ioprio'),
    ('file_offsets', 'call 8 FD 5 1', 'offset'),
    ('file_shared', 'call 33 FD 4', 'share'),
    ('file_many', 'call 3 101', 'fd 101'),
    ('file_many', 'call 72 101 2 0', 'fd 101'),
    ('ipc_pipe', 'call 72 4 1031 4096', 'size of a pipe|bytes'),
    ('ipc_listen', 'call 3 3', 'accept|listener|setup|getsockname|port|errno'),
    ('mem_mlockall', 'call 152', 'area_len|MCL'),
]


class Victim:
    def __init__(self, build, name, args=(), env=None, program='victim'):
        self.dir = tempfile.mkdtemp(prefix='unmoved-' + name + '-', dir=os.environ.get('VICTIM_TMP'))
        os.chmod(self.dir, 0o777)
        self.status = os.path.join(self.dir, 'status')
        self.proc = subprocess.Popen([os.path.join(build, 'tests/victims', program), name, self.status, *args],
                                     stdin=subprocess.DEVNULL, env=env)
        self.pidfd = os.pidfd_open(self.proc.pid)

    def text(self):
        try:
            with open(self.status) as f:
                return f.read()
        except FileNotFoundError:
            return ''

    def wait_line(self, pattern, seconds):
        end = time.monotonic() + seconds
        while not (m := re.search(pattern, self.text(), re.M)):
            if time.monotonic() > end:
                return None
            if select.select([self.pidfd], [], [], 0.005)[0]:
                return re.search(pattern, self.text(), re.M)
        return m

    def ask(self, flags):
        if flags & CHECK_FILE:
            open(self.status + '.check', 'w').close()
        else:
            os.kill(self.proc.pid, signal.SIGTERM)

    def verdict(self):
        m = self.wait_line(r'^(ok|FAIL.*)$', 60)
        try:
            self.proc.wait(10)
        except subprocess.TimeoutExpired:
            self.proc.kill()
            return 'did not end: ' + self.text()
        return m.group(1) if m else 'no verdict: ' + self.text()

    def clean(self):
        if self.proc.poll() is None:
            self.proc.kill()
            self.proc.wait()
        subprocess.run(['rm', '-rf', self.dir])


def kinds(build, program='victim'):
    out = subprocess.run([os.path.join(build, 'tests/victims', program), '--list'], capture_output=True, text=True, check=True).stdout
    for line in out.splitlines():
        name, flags, text = (line.split(' ', 2) + [''])[:3]
        yield name, int(flags), text


def run_one(build, name, flags, program):
    v = Victim(build, name, program=program)
    try:
        if not v.wait_line(r'^ready', 30):
            return f'{name}: not ready: {v.text()}'
        if not flags & NO_STOP:
            os.kill(v.proc.pid, signal.SIGSTOP)
            os.waitid(os.P_PIDFD, v.pidfd, os.WSTOPPED)
            os.kill(v.proc.pid, signal.SIGCONT)
        time.sleep(0.05)
        v.ask(flags)
        verdict = v.verdict()
        return None if verdict == 'ok' else f'{name}: {verdict}'
    finally:
        v.clean()


def run_victims(build, program):
    """Two at a time; those that wait for another host name come last, in a UTS namespace whose name changes."""
    bad = []
    todo = [(n, f) for n, f, _ in kinds(build, program) if not f & HIDDEN]
    with ThreadPoolExecutor(3) as pool:
        bad += [r for r in pool.map(lambda k: run_one(build, k[0], k[1], program), [k for k in todo if not k[1] & MOVE]) if r]
    for name, flags in [k for k in todo if k[1] & MOVE]:
        socket.sethostname('before')
        v = Victim(build, name, env=dict(os.environ, VICTIM_EXPECT_MOVE='1'), program=program)
        if not v.wait_line(r'^ready', 30):
            bad.append(f'{name}: not ready: {v.text()}')
        os.kill(v.proc.pid, signal.SIGSTOP)
        socket.sethostname('after')
        os.kill(v.proc.pid, signal.SIGCONT)
        if name == 'storm_exec':
            v.wait_line(r'ready[^$]*\nready', 30)
        else:
            time.sleep(0.1)
        v.ask(flags)
        verdict = v.verdict()
        if verdict != 'ok':
            bad.append(f'{name}: {verdict}')
        v.clean()
    print(f'{len(todo)} victims, {len(bad)} bad')
    return bad


def vandalise(build, v, name, action):
    tool = os.path.join(build, 'tests/victims/vandal')
    pid = str(v.proc.pid)
    if action == 'itimer':  # alarm(5000)
        return subprocess.run([tool, pid, 'call', '37', '5000'], check=True)
    if action == 'altoff':  # sigaltstack with SS_DISABLE
        return subprocess.run([tool, pid, 'call', '131', hex(disabled_stack(v)), '0'], check=True)
    if action.startswith('sigtake'):  # a pending signal is lost
        return subprocess.run([tool, pid, 'call', '128', hex(scratch_word(v, 1 << 34)), '0', '0', '8'], check=True)
    words = [w.strip('"') for w in action.split()]
    words = [hex(scratch_word(v, 0x1234)) if w == 'status' else w for w in words]
    words = [str(lowest_file(v)) if w == 'FD' else w for w in words]
    return subprocess.run([tool, pid, *words], check=True, stdout=subprocess.DEVNULL)


def stack_bottom(v):
    with open(f'/proc/{v.proc.pid}/maps') as f:
        for line in f:
            if '[stack]' in line:
                return int(line.split('-')[0], 16)


def scratch_word(v, value):
    at = stack_bottom(v) + 64
    with open(f'/proc/{v.proc.pid}/mem', 'r+b', buffering=0) as mem:
        mem.seek(at)
        mem.write(value.to_bytes(8, 'little'))
    return at


def disabled_stack(v):
    at = stack_bottom(v) + 256
    with open(f'/proc/{v.proc.pid}/mem', 'r+b', buffering=0) as mem:
        mem.seek(at)
        mem.write((0).to_bytes(8, 'little') + (2).to_bytes(8, 'little') + (0).to_bytes(8, 'little'))
    return at


def lowest_file(v):
    for fd in sorted(map(int, os.listdir(f'/proc/{v.proc.pid}/fd'))):
        if fd > 2 and os.readlink(f'/proc/{v.proc.pid}/fd/{fd}').startswith(v.dir):
            return fd
    return 3


def run_vandal(build):
    bad = []
    flags = {n: f for n, f, _ in kinds(build)}

    def case(c):
        for _ in range(3 if 'reg ' in c[1] else 1):  # the change may hit the few instructions outside the spin
            bad = one(c)
            if not bad:
                return None
        return bad

    def one(c):
        name, action, expected = c
        v = Victim(build, name)
        try:
            if not v.wait_line(r'^ready', 30):
                return f'{name}: not ready: {v.text()}'
            if name.startswith(('regs', 'ws')):
                time.sleep(0.02)
            for _ in range(5 if 'reg ' in action else 1):
                if v.proc.poll() is None:
                    vandalise(build, v, name, action)
                if 'reg ' in action and v.wait_line(r'^FAIL', 0.1):
                    break
            if v.proc.poll() is None:
                v.ask(flags[name])
            verdict = v.verdict()
        except (subprocess.CalledProcessError, FileNotFoundError, ProcessLookupError) as e:
            verdict = f'{v.text().strip().splitlines()[-1:]} {e}'
        finally:
            v.clean()
        if verdict == 'ok':
            return f'{name}: {action}: the damage was not noticed'
        return None if re.search(expected, verdict) else f'{name}: {action}: expected a verdict about {expected}, got: {verdict}'

    with ThreadPoolExecutor(3) as pool:
        bad += [r for r in pool.map(case, VANDALISM) if r]
    print(f'{len(VANDALISM)} acts of vandalism, {len(bad)} bad')
    return bad


def main():
    build, what = sys.argv[1:3]
    if what == 'victims':
        os.environ['VICTIM_TMP'] = build
        if 'VICTIM_IN_UTS' not in os.environ:
            os.environ['VICTIM_IN_UTS'] = '1'
            os.execvp('unshare', ['unshare', '--uts', *[sys.executable, *sys.argv]])
        bad = run_victims(build, sys.argv[3] if len(sys.argv) > 3 else 'victim')
    else:
        os.environ['VICTIM_TMP'] = build
        bad = run_vandal(build)
    for b in bad:
        print('FAIL:', b)
    return 1 if bad else 0


if __name__ == '__main__':
    sys.exit(main())
