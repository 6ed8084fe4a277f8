/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * journal.h - a line of the log as fields of systemd's journal, where standard error goes there (JOURNAL_STREAM)
 *
 * https://systemd.io/JOURNAL_NATIVE_PROTOCOL/: one datagram with lines KEY=value. Of event=moved unit=n1:4711 become GODWIT_EVENT and GODWIT_UNIT; MESSAGE is the whole.
 */
#ifndef GODWIT_BASE_JOURNAL_H
#define GODWIT_BASE_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>

/* Whether standard error is the journal's. */
bool journal_is_stderr(void);
/* text: one line without control characters. false: it has not been taken, and belongs to standard error. Never waits. */
bool journal_send(int priority, const char *text);
/* The datagram for that text; returns its length. What does not fit is left out, field by field. */
size_t journal_encode(int priority, const char *identifier, const char *text, char *to, size_t size);

#endif
