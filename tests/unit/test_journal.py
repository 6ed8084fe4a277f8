#!/usr/bin/python3 -I
# SPDX-License-Identifier: GPL-2.0-or-later
"""What godwitd says to systemd's journal: fields, where standard error is the journal's and it listens; lines otherwise. Usage, in a mount namespace of its own: test_journal.py GODWITD GODWIT"""

import importlib.util
import os
import socket
import subprocess
import sys
import unittest

HERE = os.path.dirname(os.path.realpath(__file__))
spec = importlib.util.spec_from_file_location("test_daemon", os.path.join(HERE, "test_daemon.py"))
common = importlib.util.module_from_spec(spec)
spec.loader.exec_module(common)
SOCKET = "/run/systemd/journal/socket"


def fields(datagram):
    return dict(line.split("=", 1) for line in datagram.decode().rstrip("\n").split("\n"))


class Journal(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        os.makedirs("/run/systemd", exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "none", "/run/systemd"], check=True)
        os.mkdir("/run/systemd/journal")

    def setUp(self):
        self.journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.journal.bind(SOCKET)
        self.journal.settimeout(10)
        self.daemon = common.Daemon(start=False)

    def tearDown(self):
        self.journal.close()
        if os.path.exists(SOCKET):
            os.unlink(SOCKET)

    def run_daemon(self, stream=None):
        """Its log, with standard error as the file there; stream: what JOURNAL_STREAM says, without it what is true."""
        with open(self.daemon.log, "a") as log:
            st = os.fstat(log.fileno())
        self.daemon.start(env={**os.environ, "JOURNAL_STREAM": stream or f"{st.st_dev}:{st.st_ino}"})
        with self.daemon.client() as client:
            client.sendall(b'{"verb":"nodes"}\n')
            client.recv(10)
        self.daemon.process.terminate()
        self.daemon.process.wait(10)
        text = self.daemon.text()
        self.daemon.dir.cleanup()
        return text

    def heard(self):
        self.journal.setblocking(False)
        while True:
            try:
                yield fields(self.journal.recv(65536))
            except BlockingIOError:
                return

    def test_fields(self):
        self.assertNotIn("event=ready", self.run_daemon())
        said = {f["GODWIT_EVENT"]: f for f in self.heard()}
        ready = said["ready"]
        self.assertEqual((ready["PRIORITY"], ready["SYSLOG_IDENTIFIER"], ready["GODWIT_LEVEL"], ready["GODWIT_NODE"]), ("6", "godwitd", "info", "t1"))
        self.assertTrue(ready["MESSAGE"].startswith("level=info event=ready node=t1 "), ready)
        self.assertEqual(said["stopping"]["GODWIT_SIGNAL"], "15")

    def test_nobody_listens(self):
        os.unlink(SOCKET)
        self.assertIn("<6>level=info event=ready node=t1 ", self.run_daemon())

    def test_elsewhere(self):
        """Who has sent standard error somewhere else than systemd has begun with means it."""
        self.assertIn("<6>level=info event=ready ", self.run_daemon("1:1"))
        self.assertEqual(list(self.heard()), [])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
