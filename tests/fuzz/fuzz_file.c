// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * fuzz_file.c - the descriptor tables that a peer sends: what passes the checks is consistent
 *
 * Input: number of processes (u8), length (u16) and bytes of what was offered, what comes in the freeze, or before it of connections.
 */
#include <stdlib.h>

#include "base/util.h"
#include "image/file.h"

#define FILES 3
#define PROCESSES_MAX 8

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check_tables(const Gw__FdTable *t, uint32_t n_processes)
{
	if (t->n_table_of != n_processes)
		abort();
	for (uint32_t p = 0; p < n_processes; p++) {
		const Gw__FdNumbers *n = t->tables[t->table_of[p]];

		if (fdtable_first_sharer(t, p) > p)
			abort();
		for (size_t i = 0; i < n->n_fd; i++)
			if (n->desc[i] >= t->n_descs || !t->descs[n->desc[i]] || n->cloexec[i] > 1)
				abort();
	}
}

static void try_update(const uint8_t *data, size_t len, const Gw__FdTable *old)
{
	struct err e = ERR_INIT;
	Gw__FdTable *t;

	if (fdtable_decode_update(data, len, data, len, FILES, old, &t, &e) < 0) {
		if (!e.message[0])
			abort();
		return;
	}
	check_tables(t, (uint32_t)old->n_table_of);
	if (t->n_descs < old->n_descs || fdtable_validate_update(old, t, &e) < 0)
		abort();
	fdtable_update_free(t, old);
}

static void try_ahead(const uint8_t *data, size_t len, const Gw__FdTable *old)
{
	struct err e = ERR_INIT;
	Gw__FdTable *t;

	if (fdtable_decode_ahead(data, len, old, &t, &e) < 0) {
		if (!e.message[0])
			abort();
		return;
	}
	for (size_t i = 0; i < t->n_descs; i++)
		if (t->changed[i] >= old->n_descs || !old->descs[t->changed[i]]->socket->tcp || !t->descs[i]->socket->tcp->numbers)
			abort();
	gw__fd_table__free_unpacked(t, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct err e = ERR_INIT;
	Gw__FdTable *t;
	uint32_t n_processes;
	uint16_t offered;

	if (len < 1 + sizeof(offered))
		return 0;
	n_processes = *data % PROCESSES_MAX;
	memcpy(&offered, data + 1, sizeof(offered));
	data += 1 + sizeof(offered);
	len -= 1 + sizeof(offered);
	if (offered > len)
		return 0;
	if (fdtable_decode(data, offered, FILES, n_processes, &t, &e) < 0) {
		if (!e.message[0])
			abort();
		return 0;
	}
	check_tables(t, n_processes);
	if (fdtable_validate_update(t, t, &e) < 0)
		abort();
	try_update(data + offered, len - offered, t);
	try_ahead(data + offered, len - offered, t);
	gw__fd_table__free_unpacked(t, NULL);
	return 0;
}
