// SPDX-License-Identifier: GPL-2.0-or-later
/* fuzz_home.c - the messages between home and where a unit runs */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "home/session.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	Gw__HomeMessage *m;
	struct err e = ERR_INIT;

	if (home_message_decode(data, len, &m, &e) < 0)
		return 0;
	if (m->signal > 64 || (m->info.len && m->info.len != 128))
		abort();
	gw__home_message__free_unpacked(m, NULL);
	return 0;
}
