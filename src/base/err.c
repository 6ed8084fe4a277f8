/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* err.c - errors that keep their cause; see err.h */
#define ERR_IMPLEMENTATION
#include "base/err.h"

#include <errno.h>

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int set_va(struct err *e, int code, const char *format, va_list ap)
{
	if (code > 0)
		code = -code;
	if (e) {
		e->code = code;
		vsnprintf(e->message, sizeof(e->message), format, ap);
	}
	return code;
}

int err_set(struct err *e, int code, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	code = set_va(e, code, format, ap);
	va_end(ap);
	return code;
}

int err_sys(struct err *e, int code, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	code = set_va(e, code, format, ap);
	va_end(ap);
	if (e) {
		size_t len = strlen(e->message);
		snprintf(e->message + len, sizeof(e->message) - len, ": %s%s", strerror(-code), code == -EMFILE ? " (raise godwitd's LimitNOFILE)" : "");
	}
	return code;
}

int err_wrap(struct err *e, const char *format, ...)
{
	char inner[ERR_MESSAGE_MAX];
	va_list ap;
	size_t len;

	if (!e)
		return 0;
	memcpy(inner, e->message, sizeof(inner));
	va_start(ap, format);
	vsnprintf(e->message, sizeof(e->message), format, ap);
	va_end(ap);
	len = strlen(e->message);
	snprintf(e->message + len, sizeof(e->message) - len, ": %s", inner);
	return e->code;
}
