# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures of the end-to-end tests: one lab of two hosts for the whole run."""

import os
import signal
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import lab_driver  # noqa: E402

TEST_SECONDS = 300
LONG = ["test_faults-", "test_programs", "test_faults"]     # what begins, when several workers share the tests


@pytest.fixture(scope="session")
def whole_lab():
    """Three hosts; n3 is for moves that go on."""
    made = lab_driver.Lab(3)
    yield made
    made.down()


@pytest.fixture(autouse=True)
def limit():
    """A test that waits for ever fails by itself, and not with all those behind it."""
    def ring(*_):
        raise AssertionError(f"not done after {TEST_SECONDS} s")
    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(TEST_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def lab2(whole_lab):
    """The lab, working and empty before and after the test."""
    whole_lab.mend()
    yield whole_lab
    whole_lab.mend()


def chosen_cases(items):
    """Of test_victims.py, whose batches are made of the tests that were chosen."""
    return [item.callspec.params["case"] for item in items if hasattr(item, "callspec") and "case" in item.callspec.params]


def group_of(item, batches):
    """What one of several workers has to run as a whole: a module, a side of the faults, or a batch of victims."""
    group, parameters = item.module.__name__, item.callspec.params if hasattr(item, "callspec") else {}
    if "side" in parameters:
        return f"{group}-{parameters['side']}"
    if "case" in parameters and hasattr(item.module, "batches_of"):
        if not batches:
            batches.update(item.module.batches_of(chosen_cases(i for i in item.session.items if i.module is item.module)))
        return f"{group}-{batches[str(parameters['case'])][0]}"
    return group


def claimed(items, directory):
    """Those items of which no other worker has taken the group first; the groups that take long come first."""
    groups, batches = {}, {}
    for item in items:
        groups.setdefault(group_of(item, batches), []).append(item)
    for group in sorted(groups, key=lambda g: next((i for i, name in enumerate(LONG) if g.startswith(name)), len(LONG))):
        try:
            os.close(os.open(os.path.join(directory, group.replace("/", "-")), os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        yield from groups[group]


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session):
    """One of several workers (tools/run_tests.py): takes groups of tests as long as there are some."""
    directory = os.environ.get("GODWIT_E2E_CLAIMS")
    if not directory or session.config.option.collectonly:
        return None
    mine = claimed(session.items, directory)
    item = next(mine, None)
    while item and not session.shouldstop:
        following = next(mine, None)
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        item = following
    return True


def pytest_collection_finish(session):
    session.config.chosen = chosen_cases(session.items)
