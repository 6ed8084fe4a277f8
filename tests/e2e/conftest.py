# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures of the end-to-end tests: one lab of two hosts for the whole run."""

import os
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import lab_driver  # noqa: E402


@pytest.fixture(scope="session")
def whole_lab():
    """Three hosts; n3 is for moves that go on."""
    made = lab_driver.Lab(3)
    yield made
    made.down()


@pytest.fixture
def lab2(whole_lab):
    """The lab, working and empty before and after the test."""
    whole_lab.mend()
    yield whole_lab
    whole_lab.mend()


def pytest_collection_finish(session):
    """The batches of test_victims.py are made of the tests that were chosen."""
    session.config.chosen = [item.callspec.params["case"] for item in session.items if hasattr(item, "callspec") and "case" in item.callspec.params]
