// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * do_protect.c - godwit protect, godwit unprotect: what is said of a unit goes into its record, from which godwit-protect takes it (protect.h)
 *
 * The first copy is waited for: a unit of which none can be made, or that no node would keep, is not protected, and the reason is said at once.
 */
#include <errno.h>
#include <poll.h>

#include "base/log.h"
#include "base/util.h"
#include "daemon/fence.h"
#include "daemon/keep.h"
#include "daemon/owner.h"
#include "daemon/protect.h"
#include "daemon/reply.h"

#define FIRST_MS 120000
#define LOOK_US 20000
#define RECORD_MS 15000
#define RECORD_LOOK_US 500000

static int fail(int fd, const char *code, const struct err *e)
{
	log_warning("event=protect-failed code=%s error=\"%s\"", code, e->message);
	reply_error(fd, code, e, NULL, NULL);
	return 1;
}

/* The record of a process, which is a unit from now on. */
static int find_record(const struct daemon *d, pid_t pid, struct registry_entry *ret, struct err *e)
{
	int r = registry_lookup(pid, ret, e);

	if (r != -ENOENT)
		return r;
	*ret = (struct registry_entry){ .pid = pid, .local = true };
	snprintf(ret->unit, sizeof(ret->unit), "%s:%d", d->config.name, (int)pid);
	snprintf(ret->from, sizeof(ret->from), "%s", d->config.name);
	return 0;
}

static json_t *result_of(const struct registry_entry *entry)
{
	json_t *result = json_pack("{s:o, s:i}", "unit", reply_text(entry->unit), "pid", (int)entry->pid);

	protect_describe(entry, result);
	return result;
}

/* Until the first copy is complete, or has failed. `since`: copies of before do not count. */
static int wait_first(const struct registry_entry *entry, const struct protect_journal *before, int fd, struct err *e)
{
	uint64_t until = clock_ns(CLOCK_MONOTONIC) + FIRST_MS * 1000000ull;
	struct protect_journal j;
	char key[KEEP_UNIT_MAX];

	keep_key(entry, key);
	while (clock_ns(CLOCK_MONOTONIC) < until) {
		struct pollfd p = { fd, POLLRDHUP, 0 };

		if (protect_journal_read(key, &j, NULL) == 0 && (j.made > before->made || j.failed > before->failed))
			return j.made > before->made ? 0 : err_set(e, -EIO, "%s", j.error);
		if (poll(&p, 1, 0) > 0)
			return err_set(e, -ECANCELED, "cancelled");
		if (!registry_start_ticks(entry->pid))
			return err_set(e, -ESRCH, "the unit has ended");
		usleep(LOOK_US);
	}
	return err_set(e, -ETIMEDOUT, "no copy has been complete within %d s", FIRST_MS / 1000);
}

/* With etcd: nobody restores a unit whose record is another's, perhaps for a moment still the one of a unit that had the same number. */
static int wait_record(const struct daemon *d, pid_t pid, struct err *e)
{
	uint64_t until = clock_ns(CLOCK_MONOTONIC) + RECORD_MS * 1000000ull;
	int r;

	do {
		struct refusals refusals = { 0 };

		*e = ERR_INIT;
		r = d->config.etcd.n_servers ? owner_ask(&d->config, pid, &refusals, e) : 0;
		refusals_free(&refusals);
		if (r < 0)
			usleep(RECORD_LOOK_US);
	} while (r < 0 && clock_ns(CLOCK_MONOTONIC) < until);
	return r;
}

static int protect_here(const struct daemon *d, const struct request *request, int fd)
{
	struct registry_entry entry, old;
	struct protect_journal before = { 0 };
	struct err e = ERR_INIT;
	size_t candidates;
	char key[KEEP_UNIT_MAX];

	if (fence_why_not()) {
		err_set(&e, -ENOTCONN, "%s holds no lease in etcd, and protected units need one: godwitd's log says why", d->config.name);
		return fail(fd, "no-lease", &e);
	}
	if (find_record(d, request->pid, &entry, &e) < 0)
		return fail(fd, "failed", &e);
	old = entry;
	entry.protection = request->protection;
	if (old.protection.every_ms)
		memcpy(entry.protection.id, old.protection.id, sizeof(entry.protection.id));
	else if (protection_new_id(&entry.protection, &e) < 0)
		return fail(fd, "failed", &e);
	candidates = protect_candidates(d, &entry.protection);
	if (candidates < entry.protection.copies) {
		err_set(&e, -EHOSTUNREACH, "%u copies are to be kept, and %zu nodes can be reached that could (`godwit nodes` shows them)", entry.protection.copies, candidates);
		return fail(fd, "no-node", &e);
	}
	keep_key(&entry, key);
	protect_journal_read(key, &before, NULL);
	if (protection_check(&entry.protection, &e) < 0 || registry_add(&entry, &e) < 0)
		return fail(fd, "failed", &e);
	if (wait_record(d, entry.pid, &e) < 0 || wait_first(&entry, &before, fd, &e) < 0) {
		entry.protection = old.protection;
		if (registry_start_ticks(entry.pid) == old.start_ticks || !old.start_ticks)
			registry_add(&entry, NULL);
		return fail(fd, e.code == -ECANCELED ? "cancelled" : "failed", &e);
	}
	log_info("event=protected unit=%s every_ms=%u copies=%u", entry.unit, entry.protection.every_ms, entry.protection.copies);
	reply_result(fd, result_of(&entry));
	return 0;
}

static int unprotect_here(const struct request *request, int fd)
{
	struct registry_entry entry;
	struct err e = ERR_INIT;
	bool was = registry_lookup(request->pid, &entry, NULL) == 0 && entry.protection.every_ms;

	if (was) {
		entry.protection = (struct protection){ 0 };
		if (registry_add(&entry, &e) < 0)
			return fail(fd, "failed", &e);
		log_info("event=unprotected unit=%s", entry.unit);
	}
	reply_result(fd, json_pack("{s:o, s:i, s:b}", "unit", reply_text(was ? entry.unit : ""), "pid", (int)request->pid, "was_protected", was));
	return 0;
}

/* A unit that is elsewhere is protected there. */
int do_protect(const struct daemon *d, const struct request *given, int fd)
{
	struct request request = *given;
	struct err e = ERR_INIT;

	request_name_unit(d, &request);
	log_set_context("side=request pid=%d", (int)request.pid);
	if (request.pid)
		return request.verb == VERB_PROTECT ? protect_here(d, &request, fd) : unprotect_here(&request, fd);
	if (do_forward(d, &request, fd, &e) >= 0)
		return 0;
	return fail(fd, "unknown-unit", &e);
}
