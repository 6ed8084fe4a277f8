/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* present.c - what the main thread of the skeleton has already; see present.h */
#include "image/present.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "image/bytes.h"
#include "image/cred.h"
#include "image/ns_user.h"

#define PERSONALITY_ASK 0xffffffffu

int present_ask(struct batch *b, struct present *ret, struct err *e)
{
	Gw__Credentials *credentials = must_alloc(sizeof(*credentials));
	struct remote_call *personality;
	struct cred_query query;
	uint64_t at, *limits;
	int code;

	gw__credentials__init(credentials);
	limits = batch_space(b, sizeof(ret->rlimits), &at);
	for (unsigned i = 0; i < PROCESS_RLIMITS; i++)
		batch_call(b, "prlimit64", SYS_prlimit64, 0, i, 0, at + i * 16);
	personality = batch_call(b, "personality", SYS_personality, PERSONALITY_ASK);
	cred_capture_plan(b, &query, NULL);
	code = batch_run(b, e);
	/* More groups than there is room for: then nothing is known. */
	if (code == 0 && cred_capture_collect(&query, credentials, NULL) == 0) {
		*ret = (struct present){ .known = true, .personality = (uint64_t)personality->ret, .credentials = credentials };
		memcpy(ret->rlimits, limits, sizeof(ret->rlimits));
		credentials = NULL;
	}
	batch_reset(b);
	if (credentials)
		gw__credentials__free_unpacked(credentials, NULL);
	return code;
}

void present_free(struct present *p)
{
	if (p->credentials)
		gw__credentials__free_unpacked(p->credentials, NULL);
	*p = (struct present){ 0 };
}

bool present_has_limit(const struct present *p, unsigned i, const uint64_t limit[2])
{
	return p && p->known && !memcmp(&p->rlimits[2 * i], limit, 2 * sizeof(*limit));
}

bool present_has_personality(const struct present *p, uint64_t personality)
{
	return p && p->known && p->personality == personality;
}

static bool same_list(const uint32_t *a, size_t na, const uint32_t *b, size_t nb)
{
	return na == nb && (!na || !memcmp(a, b, na * sizeof(*a)));
}

static bool is_root(const Gw__Credentials *c)
{
	for (size_t i = 0; i < c->n_uids; i++)
		if (c->uids[i])
			return false;
	return c->n_uids && c->cap_effective == c->cap_permitted;
}

bool present_has_credentials(const struct present *p, const Gw__Credentials *msg)
{
	const Gw__Credentials *c = p->credentials;

	return p->known && !ns_user_is_owned() && is_root(c) && same_list(c->uids, c->n_uids, msg->uids, msg->n_uids) && same_list(c->gids, c->n_gids, msg->gids, msg->n_gids) &&
	       same_list(c->groups, c->n_groups, msg->groups, msg->n_groups) && c->securebits == msg->securebits &&
	       c->request_keyring == msg->request_keyring && c->cap_permitted == msg->cap_permitted && c->cap_effective == msg->cap_effective && c->cap_inheritable == msg->cap_inheritable && c->cap_bounding == msg->cap_bounding && c->cap_ambient == msg->cap_ambient;
}
