// SPDX-License-Identifier: GPL-2.0-or-later
/* fuzz_file.c - the descriptor table that a peer sends: what passes the checks is consistent */
#include <stdlib.h>

#include "base/util.h"
#include "image/file.h"

#define FILES 3

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct fdtable t = FDTABLE_INIT;
	struct err e = ERR_INIT;
	uint8_t *packed = NULL;
	size_t packed_len = 0;

	if (fdtable_decode(data, len, FILES, &t.msg, &e) < 0) {
		if (!e.message[0])
			abort();
		return 0;
	}
	for (size_t i = 0; i < t.msg->n_slot_fd; i++)
		if (t.msg->slot_desc[i] >= t.msg->n_descs)
			abort();
	if (fdtable_validate_update(t.msg, t.msg, &e) < 0)
		abort();
	/* Decoding again is not asked for: protobuf-c keeps malformed unknown fields that it would not take a second time. */
	if (fdtable_encode(&t, &packed, &packed_len, &e) < 0)
		abort();
	gw__fd_table__free_unpacked(t.msg, NULL);
	free(packed);
	return 0;
}
