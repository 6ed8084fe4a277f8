/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* dest_address.c - see dest_address.h */
#include "migrate/dest_address.h"

#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "image/ns.h"
#include "migrate/dest.h"
#include "migrate/skeleton.h"
#include "net/redirect.h"

static bool begins_process(const struct dest_addresses *a, size_t i)
{
	return !i || a->process[i] != a->process[i - 1];
}

static int decode(struct dest *d, struct err *e)
{
	struct dest_addresses *a = &d->addresses;

	if (d->offer->n_addresses > OWNED_MAX)
		return err_set(e, -EPROTO, "%zu addresses", d->offer->n_addresses);
	for (size_t i = 0; i < d->offer->n_addresses; i++) {
		const Gw__NetAddress *m = d->offer->addresses[i];

		if (m->process >= d->nprocs || m->hardware.len != 6 || address_parse(m->address, &a->v[i], NULL) < 0 || !a->v[i].prefix || (i && m->process < a->process[i - 1]))
			return err_set(e, -EPROTO, "an address of a unit that cannot be");
		a->process[i] = m->process;
		a->keepers[i] = (struct owned_keeper){ 0, -1 };
	}
	a->n = d->offer->n_addresses;
	return 0;
}

/* The one that was asked for at home may be called otherwise here. */
static int choose_device(struct netlink *nl, struct owned_address *a, struct err *e)
{
	struct owned_address any = *a;
	int ret = address_choose_device(nl, a, e);

	any.device[0] = 0;
	if (ret < 0 && a->device[0] && address_choose_device(nl, &any, NULL) == 0) {
		memcpy(a->on, any.on, sizeof(a->on));
		ret = 0;
	}
	return ret;
}

/* The source has it, until the commit: it must be the one that answers. */
static void judge_one(struct dest *d, struct owned_address *a, const uint8_t source[6], struct refusals *refusals)
{
	static const char code[] = "net.address";
	char text[ADDRESS_TEXT], cause[160];
	struct err why = ERR_INIT;
	uint8_t other[6];

	address_text(a, text);
	if (choose_device(&d->addresses.nl, a, &why) < 0) {
		refusals_add(refusals, code, why.message, "move it to a host on the same link", "address %s", text);
		return;
	}
	if (address_is_here(&d->addresses.nl, a)) {
		refusals_add(refusals, code, "it is an address of the destination itself", "remove it there", "address %s", text);
		return;
	}
	switch (address_ask(&d->addresses.nl, d->addresses.host, a, source, other)) {
	case NEIGHBOUR_EXPECTED:
		return;
	case NEIGHBOUR_NOBODY:
		snprintf(cause, sizeof(cause), "the source is not on the link of the destination's device %s: who talks to the address would not find it there", a->on);
		refusals_add(refusals, code, cause, "move it to a host on the same link", "address %s", text);
		return;
	case NEIGHBOUR_OTHER:
		snprintf(cause, sizeof(cause), "another host on the link of the destination's device %s has it (%02x:%02x:%02x:%02x:%02x:%02x)", a->on, other[0], other[1],
			 other[2], other[3], other[4], other[5]);
		refusals_add(refusals, code, cause, "end that one", "address %s", text);
	}
}

int dest_address_judge(struct dest *d, struct refusals *refusals, struct err *e)
{
	struct dest_addresses *a = &d->addresses;
	uint8_t v[OWNED_MAX][16];
	int ret;

	a->host = -1;
	if (!d->offer->n_addresses)
		return 0;
	ret = decode(d, e);
	if (ret == 0) {
		a->host = ns_open_hosts(NS_NET);
		ret = a->host < 0 ? err_sys(e, -errno, "the host's network namespace") : netlink_open(&a->nl, NETLINK_ROUTE, a->host, e);
	}
	if (ret == 0)
		owned_tidy(a->host); /* of a unit that has ended or left just now */
	for (size_t i = 0; i < a->n && ret == 0; i++) {
		judge_one(d, &a->v[i], d->offer->addresses[i]->hardware.data, refusals);
		memcpy(v[i], a->v[i].address, sizeof(v[i]));
		if (!refusals->n && begins_process(a, i))
			ret = owned_keeper_prepare(a->host, &a->keepers[i], e);
	}
	return ret == 0 && d->net.r ? redirect_set_owned(d->net.r, v, a->n, e) : ret;
}

/* How many addresses there are of the process of v[i]. */
static size_t count(const struct dest_addresses *a, size_t i)
{
	size_t n = 1;

	while (i + n < a->n && !begins_process(a, i + n))
		n++;
	return n;
}

int dest_address_expect(struct dest *d, struct err *e)
{
	struct dest_addresses *a = &d->addresses;
	int ret = 0;

	for (size_t i = 0; i < a->n && ret == 0; i += count(a, i))
		ret = owned_expect(&a->keepers[i], d->procs[a->process[i]].skeleton->pid, &a->v[i], count(a, i), e);
	return ret;
}

void dest_address_live(struct dest *d)
{
	struct dest_addresses *a = &d->addresses;

	for (size_t i = 0; i < a->n; i += count(a, i))
		owned_arrived(&a->nl, &a->v[i], count(a, i), &a->keepers[i]);
}

void dest_address_undo(struct dest *d)
{
	struct dest_addresses *a = &d->addresses;

	for (size_t i = 0; i < a->n; i++)
		owned_keeper_close(&a->keepers[i]);
	if (a->n) {
		netlink_close(&a->nl);
		close_fdp(&a->host);
	}
	a->n = 0;
}
