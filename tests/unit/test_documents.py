#!/usr/bin/python3 -I
# SPDX-License-Identifier: GPL-2.0-or-later
"""That links in the documents lead somewhere, to a heading where they name one, and that each document can be reached from the site's contents. Usage: test_documents.py ROOT"""

import pathlib
import re
import sys
import unittest

ROOT = pathlib.Path(sys.argv[1]).resolve()
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")


def documents():
    return [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


def plain(path):
    """Without what is shown as it stands."""
    return re.sub(r"```.*?```|`[^`\n]*`|^    .*$", "", path.read_text(encoding="utf-8"), flags=re.S | re.M)


def anchors(path):
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.M)}


class Documents(unittest.TestCase):
    def test_links(self):
        n = 0
        for path in documents():
            for target, anchor in LINK.findall(plain(path)):
                with self.subTest(document=str(path.relative_to(ROOT)), link=target, anchor=anchor):
                    to = path.parent / target if target else path
                    self.assertTrue(to.exists(), "it leads nowhere")
                    if anchor and to.suffix == ".md":
                        self.assertIn(anchor, anchors(to))
                n += 1
        self.assertGreater(n, 50)

    def test_contents(self):
        contents = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
        for path in [*(ROOT / "docs").glob("*.md"), *(ROOT / "docs/man").glob("*.[0-9]")]:
            name = path.name if path.suffix == ".md" else f"man/{path.name}.md"
            self.assertIn(f": {name}\n", contents, f"{path} is not in mkdocs.yml")


unittest.main(argv=sys.argv[:1])
