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
LONG = ["test_faults", "test_programs"]


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


@pytest.hookimpl(tryfirst=True)        # before xdist reads the marks
def pytest_collection_modifyitems(items):
    """What one of several workers (pytest -n) has to run as a whole: a module, a side of the faults, or a batch of victims. The long ones begin."""
    batches = {}
    for item in items:
        group, parameters = item.module.__name__, item.callspec.params if hasattr(item, "callspec") else {}
        if "side" in parameters:
            group += f"-{parameters['side']}"
        elif "case" in parameters and hasattr(item.module, "batches_of"):
            batches = batches or item.module.batches_of(chosen_cases(i for i in items if i.module is item.module))
            group += f"-{batches[str(parameters['case'])][0]}"
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: LONG.index(item.module.__name__) if item.module.__name__ in LONG else len(LONG) + (item.module.__name__ == "test_victims"))


def pytest_collection_finish(session):
    session.config.chosen = chosen_cases(session.items)
