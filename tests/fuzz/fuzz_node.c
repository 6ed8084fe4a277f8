// SPDX-License-Identifier: GPL-2.0-or-later
/* fuzz_node.c - what a node says of itself */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "daemon/daemon.h"
#include "wire/hello.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct err e = ERR_INIT;
	Gw__NodeInfo *info;

	if (node_info_decode(data, len, &info, &e) < 0) {
		if (!e.message[0])
			abort();
		return 0;
	}
	if (!hello_name_valid(info->name) || strlen(info->kernel) > 128 || !isfinite(info->load1))
		abort();
	gw__node_info__free_unpacked(info, NULL);
	return 0;
}
