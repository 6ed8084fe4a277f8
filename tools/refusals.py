#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""refusals.py REFUSALS.MD: writes the table of `godwit explain` (src/cli/explain.h) from the sections whose headings are codes."""

import re
import sys
import textwrap

COLUMNS = 80


def sections(text):
    """(code, text), as they come."""
    for part in re.split(r"^### ", text, flags=re.M)[1:]:
        code, _, rest = part.partition("\n")
        body = re.split(r"^#", rest, flags=re.M)[0]
        yield code.strip(), re.sub(r"`", "", " ".join(body.split()))


def literal(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def main():
    with open(sys.argv[1], encoding="utf-8") as f:
        found = sorted(sections(f.read()))
    if len({code for code, _ in found}) != len(found) or not all(text for _, text in found):
        sys.exit(f"{sys.argv[1]}: a code is there twice, or has no text")
    print('/* Made by tools/refusals.py. */\n#include "cli/explain.h"\n\nconst struct explanation explanations[] = {')
    for code, text in found:
        print(f"\t{{ {literal(code)}, {literal(textwrap.fill(text, COLUMNS, break_long_words=False, break_on_hyphens=False))} }},")
    print("};\nconst size_t n_explanations = sizeof(explanations) / sizeof(explanations[0]);")


main()
