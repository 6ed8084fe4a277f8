// SPDX-License-Identifier: GPL-2.0-or-later
/* do_address.c - addresses for a process, which it takes along wherever it is moved (godwit run --address) */
#include "base/log.h"
#include "base/util.h"
#include "daemon/daemon.h"
#include "daemon/reply.h"
#include "net/owned.h"

int do_address(const struct request *request, int fd)
{
	struct owned_address v[OWNED_MAX];
	struct err e = ERR_INIT;
	json_t *list;

	memcpy(v, request->addresses, sizeof(v));
	if (owned_give(request->pid, v, request->n_addresses, &e) < 0) {
		reply_error(fd, "failed", &e, NULL, NULL);
		return 1;
	}
	list = json_array();
	for (size_t i = 0; i < request->n_addresses; i++) {
		char text[ADDRESS_TEXT];

		log_info("event=address-given pid=%d address=%s device=%s", (int)request->pid, address_text(&v[i], text), v[i].on);
		json_array_append_new(list, json_pack("{s:s, s:s}", "address", text, "device", v[i].on));
	}
	reply_result(fd, json_pack("{s:i, s:o}", "pid", (int)request->pid, "addresses", list));
	return 0;
}
