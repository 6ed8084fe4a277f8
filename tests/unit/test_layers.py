#!/usr/bin/python3 -I
# SPDX-License-Identifier: GPL-2.0-or-later
"""Includes point downward only, as the table of modules in ARCHITECTURE.md says. Usage: test_layers.py ROOT"""

import os
import re
import sys

# directory: what it may include besides itself
ALLOWED = {
    "base": set(),
    "agent": set(),
    "kern": {"base"},
    "wire": {"base"},
    "pki": {"base"},
    "net": {"base", "kern", "wire"},
    "image": {"base", "kern", "wire"},
    "home": {"base", "kern", "wire"},
    "migrate": {"base", "kern", "wire", "net", "image", "home"},
    "cluster": {"base"},
    "portable": {"base"},
    "sim": {"base", "cluster"},
    "daemon": {"base", "kern", "wire", "net", "image", "home", "migrate", "cluster", "portable"},
    "ask": {"base"},
    "client": {"base", "ask"},
    "api": {"base", "ask"},
    "dashboard": set(),
    "gate": {"base", "ask", "wire", "pki"},
    "cli": {"base", "ask", "wire", "pki"},
}
# the agent's layout of the scratch, and the form in which it finds differences, are read by those who drive it
ABI = {"kern", "image", "migrate"}
ABI_HEADERS = {"agent/abi.h", "agent/delta.h"}
# `godwit config check` reads the configuration as godwitd does, `godwit image core` what is in an image
SHARED = {("cli", "daemon/config.h"), ("cli", "migrate/image_core.h"), ("cli", "image/secret.h")}
GENERATED = {"version.h"}
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)


def layer_of(include, directory, where):
    """The directory of src that an include belongs to; None for generated headers without a layer."""
    if include in GENERATED:
        return None
    if include.endswith(".pb-c.h"):
        return "wire"
    if include.startswith("../"):
        include = os.path.normpath(os.path.join(where, include))
    return include.split("/")[0] if "/" in include else directory


def main():
    src = os.path.join(sys.argv[1], "src")
    wrong, seen = [], 0
    for directory in sorted(os.listdir(src)):
        if not os.path.isdir(os.path.join(src, directory)):
            continue
        if directory not in ALLOWED:
            wrong.append(f"src/{directory}: no layer; add it to ARCHITECTURE.md and to this test")
            continue
        for where, _, files in os.walk(os.path.join(src, directory)):
            for name in sorted(files):
                if not name.endswith((".c", ".h", ".S")):
                    continue
                path = os.path.join(where, name)
                seen += 1
                with open(path, encoding="utf-8") as f:
                    for include in INCLUDE.findall(f.read()):
                        layer = layer_of(include, directory, os.path.relpath(where, src))
                        if layer in (None, directory) or layer in ALLOWED[directory]:
                            continue
                        if (include in ABI_HEADERS and directory in ABI) or (directory, include) in SHARED:
                            continue
                        wrong.append(f"{os.path.relpath(path, sys.argv[1])}: \"{include}\": {directory} may include "
                                     f"{', '.join(sorted(ALLOWED[directory])) or 'nothing'}")
    for line in wrong:
        print(line)
    print(f"{seen} files, {len(wrong)} includes that point upward or sideways")
    return 1 if wrong or not seen else 0


if __name__ == "__main__":
    sys.exit(main())
