// SPDX-License-Identifier: GPL-2.0-or-later
/* fuzz_request.c - a line of JSON from a client */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct request request;
	struct err e = ERR_INIT;
	int r = request_parse((const char *)data, len, &request, &e);

	if (r < 0 ? !e.message[0] : request.pid < 0 || strnlen(request.host, sizeof(request.host)) == sizeof(request.host))
		abort();
	if (r >= 0 && request.verb == VERB_MIGRATE && (!request.pid == !request.unit[0] || !request.host[0]))
		abort();
	if (r >= 0 && request.verb == VERB_SELECT && strnlen(request.require, sizeof(request.require)) == sizeof(request.require))
		abort();
	return 0;
}
