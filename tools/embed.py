#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes the pages of api/page.h in C: the files of the dashboard, with their types, below /dashboard/; index.html is /."""

import os
import sys

TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


def main(paths):
    print('#include "api/page.h"\n')
    entries = []
    for i, path in enumerate(paths):
        name = os.path.basename(path)
        with open(path, "rb") as f:
            data = f.read()
        print(f"static const unsigned char file{i}[] = {{")
        for at in range(0, len(data), 64):
            print("\t" + ",".join(map(str, data[at:at + 64])) + ",")
        print("};\n")
        entries.append(f'\t{{ "/{"" if name == "index.html" else "dashboard/" + name}", "{TYPES[os.path.splitext(name)[1]]}", file{i}, sizeof(file{i}) }},')
    print("const struct page pages[] = {\n" + "\n".join(entries) + "\n};\n")
    print("const size_t n_pages = sizeof(pages) / sizeof(pages[0]);")


main(sys.argv[1:])
