/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * log.h - lines with key=value fields on stderr; under systemd they are fields of its journal (journal.h)
 *
 * Only migrate, daemon and cli log; everything below returns errors. Control characters in the formatted text
 * are escaped, so that strings from a peer cannot forge lines.
 */
#ifndef GODWIT_BASE_LOG_H
#define GODWIT_BASE_LOG_H

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARNING, LOG_LEVEL_ERROR };

/* Lines below this level are dropped. Default: LOG_LEVEL_INFO, or what GODWIT_LOG (debug, info, warning, error) says. */
void log_set_level(enum log_level level);

/* A prefix of fields for every later line of this process, such as "mig=7f3a side=source". */
void log_set_context(const char *format, ...) __attribute__((format(printf, 1, 2)));

void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_debug(...) log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)
#define log_info(...) log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_warning(...) log_line(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_error(...) log_line(LOG_LEVEL_ERROR, __VA_ARGS__)

#endif
