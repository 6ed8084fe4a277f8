/* SPDX-License-Identifier: GPL-2.0-or-later */
/* conf_edit.h - changes single values in a text of godwit.conf(5), and leaves all else as people have written it */
#ifndef GODWIT_CLI_CONF_EDIT_H
#define GODWIT_CLI_CONF_EDIT_H

#include "base/err.h"

/*
 * *text (malloc'ed, replaced) has afterwards `key = value` in [section]: in the place of the line that said it, behind the section's last line, or in a section of its own at the end. value NULL: no such line is
 * left. -ENOMEM.
 */
int conf_set(char **text, const char *section, const char *key, const char *value, struct err *e);

#endif
