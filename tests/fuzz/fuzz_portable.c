// SPDX-License-Identifier: GPL-2.0-or-later
/* fuzz_portable.c - what a node says of a program that is to go on here: first byte 'o': an offer, other: how it was started */
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "daemon/portable.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void offer(const uint8_t *data, size_t len)
{
	struct err e = ERR_INIT;
	Gw__PortableOffer *o;

	if (portable_offer_decode(data, len, &o, &e) < 0) {
		if (!e.message[0])
			abort();
		return;
	}
	if (o->path[0] != '/' || !strchr(o->unit, ':') || o->n_limits != 2ul * PORTABLE_LIMITS || o->n_groups > PORTABLE_GROUPS_MAX)
		abort();
	gw__portable_offer__free_unpacked(o, NULL);
}

static void start(const uint8_t *data, size_t len)
{
	char *copy = malloc(len + 1);
	struct portable_start s;
	struct err e = ERR_INIT;
	size_t sum = 0;

	if (!copy)
		abort();
	memcpy(copy, data, len);
	if (portable_start_decode(copy, len, &s, &e) < 0) {
		if (!e.message[0])
			abort();
	} else {
		if (!s.n_arguments || s.arguments[s.n_arguments] || s.environment[s.n_environment] || s.directory[0] != '/')
			abort();
		for (char **p = s.arguments; *p; p++)
			sum += strlen(*p);
		for (char **p = s.environment; *p; p++)
			if (!strchr(*p, '=') || !strncmp(*p, "GODWIT_PORTABLE_", 16))
				abort();
		if (sum > len)
			abort();
		portable_start_free(&s);
	}
	free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	if (len && data[0] == 'o')
		offer(data + 1, len - 1);
	else if (len)
		start(data + 1, len - 1);
	return 0;
}
