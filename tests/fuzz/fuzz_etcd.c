// SPDX-License-Identifier: GPL-2.0-or-later
/* fuzz_etcd.c - what etcd answers */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "cluster/etcd_wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	json_t *answer = json_loadb((const char *)data, len, JSON_DISABLE_EOF_CHECK, NULL);
	cleanup_free struct membership_record *records = NULL;
	cleanup_free struct membership_node *nodes = NULL;
	struct err e = ERR_INIT;
	uint64_t number;
	size_t n = 0;
	bool done;

	if (!answer)
		return 0;
	if (etcd_read_nodes(answer, "/g/", &nodes, &n, &e) == 0)
		for (size_t i = 0; i < n; i++)
			if (!nodes[i].name[0] || strnlen(nodes[i].name, sizeof(nodes[i].name)) == sizeof(nodes[i].name) || !nodes[i].port)
				abort();
	if (etcd_read_records(answer, "/g/", &records, &n, &e) == 0)
		for (size_t i = 0; i < n; i++)
			if (!records[i].unit[0] || !records[i].owner[0] || !records[i].fence)
				abort();
	if ((etcd_read_lease(answer, false, &number, &e) < 0 || etcd_read_lease(answer, true, &number, &e) < 0 || etcd_read_swap(answer, &done, &number, &e) < 0) && !e.message[0])
		abort();
	json_decref(answer);
	return 0;
}
