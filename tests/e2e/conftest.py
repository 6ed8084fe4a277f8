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


def pytest_collection_finish(session):
    """The batches of test_victims.py are made of the tests that were chosen."""
    session.config.chosen = [item.callspec.params["case"] for item in session.items if hasattr(item, "callspec") and "case" in item.callspec.params]
