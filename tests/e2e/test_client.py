# SPDX-License-Identifier: GPL-2.0-or-later
"""libgodwit, as its example uses it: it lists, moves a unit there and back, says why one cannot move, and hears all of that. (tests/unit/test_client.py has the answers that a lab does not give.)"""

import os
import queue
import subprocess
import threading

from lab_driver import BUILD, inside, popen

EXAMPLE = os.path.join(BUILD, "examples/client/godwit-example")


class Followed:
    """What the example prints while it follows."""

    def __init__(self):
        self.process = popen("n1", EXAMPLE, "--follow", stdout=subprocess.PIPE)
        self.lines = queue.Queue()
        threading.Thread(target=lambda: [self.lines.put(line.strip()) for line in self.process.stdout], daemon=True).start()
        self.until("following")

    def until(self, wanted):
        while self.lines.get(timeout=15) != wanted:
            pass


def test_the_example_lists_moves_and_follows(lab2):
    followed = Followed()
    pid = int(inside("n1", "sh", "-c", "setsid sleep 900 </dev/null >/dev/null 2>&1 & echo $!").stdout)
    done = inside("n1", EXAMPLE, str(pid), "n2")
    assert f"n1:{pid} is on n2 now; it stood still for " in done.stdout, done
    followed.until(f"n1:{pid} has appeared on n2")
    listed = inside("n1", EXAMPLE).stdout
    assert f"unit n1:{pid}: sleep 900 on n2, moved 1 times" in listed and "node n2: ok, load " in listed, listed
    # by its name, from a node where it is not
    assert inside("n1", EXAMPLE, f"n1:{pid}", "home").returncode == 0
    followed.until(f"n1:{pid} has moved from n2 to n1")
    refused = inside("n1", EXAMPLE, f"n1:{pid}", "n1", check=False)
    assert refused.returncode == 1 and "[here-already]" in refused.stderr, refused
    inside("n1", "kill", str(pid))
    followed.until(f"n1:{pid} has ended")
    followed.process.terminate()
    followed.process.wait()


def test_a_refusal_has_its_reason(lab2):
    """godwitd decides, not the library: a user without rights reads why."""
    pid = int(inside("n1", "sh", "-c", "setsid sleep 900 </dev/null >/dev/null 2>&1 & echo $!").stdout)
    done = inside("n1", "setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", EXAMPLE, str(pid), "n2", check=False)
    assert done.returncode == 1 and "[refused]" in done.stderr and "it is of user 0" in done.stderr, done
    inside("n1", "kill", str(pid))
