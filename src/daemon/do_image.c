// SPDX-License-Identifier: GPL-2.0-or-later
/* do_image.c - taking an image of a unit, and making a unit of one (migrate/checkpoint.h), for one client: that it hangs up, or says anything, cancels */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/util.h"
#include "daemon/daemon.h"
#include "daemon/reply.h"
#include "migrate/checkpoint.h"
#include "version.h"
#include "wire/archive_chain.h"

static bool client_cancels(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN | POLLRDHUP };

	return poll(&p, 1, 0) > 0 && p.revents & (POLLHUP | POLLERR | POLLIN | POLLRDHUP);
}

static bool on_progress(const struct migrate_report *report, void *arg)
{
	(void)report;
	return client_cancels(*(const int *)arg);
}

static const char *code_of(int r, const struct migrate_report *report, const struct refusals *refusals)
{
	if (report && report->outcome && strcmp(report->outcome, "moved") != 0)
		return report->outcome;
	return refusals->n ? "refused" : r == -ECANCELED ? "cancelled" : "failed";
}

static int fail(int fd, const char *code, int r, const struct refusals *refusals, struct err *e)
{
	if (!e->code) {
		cleanup_free char *text = refusals->n ? refusals_text(refusals) : NULL;

		err_set(e, r, "%s", text ? text : strerror(-r));
	}
	log_warning("event=image-failed code=%s error=\"%s\"", code, e->message);
	reply_error(fd, code, e, refusals, NULL);
	return 1;
}

/* Where an incremental image goes: what a wish refers to. */
struct where {
	char path[PATH_MAX], chain[PATH_MAX], name[ARCHIVE_LINK_NAME_MAX];
	int lock; /* on the directory, until this worker ends */
};

static int find_place(const struct request *request, struct where *w, struct image_wish *wish, struct err *e)
{
	struct stat st;
	int r;

	wish->chain = request->chain;
	wish->name = request->name;
	if (request->chain[0])
		return 0;
	if (stat(request->path, &st) < 0)
		return err_sys(e, -errno, "%s", request->path);
	if (!S_ISDIR(st.st_mode))
		return err_set(e, -ENOTDIR, "%s is no directory: incremental images need one, in which their chain is", request->path);
	w->lock = open(request->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (w->lock < 0 || flock(w->lock, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK ? err_set(e, -EBUSY, "%s: another image is being written there", request->path) : err_sys(e, -errno, "%s", request->path);
	r = archive_next_name(request->path, w->name, e);
	if (r < 0)
		return r;
	if ((size_t)snprintf(w->path, sizeof(w->path), "%s/%s", request->path, w->name) >= sizeof(w->path) ||
	    (size_t)snprintf(w->chain, sizeof(w->chain), "%s/" ARCHIVE_CHAIN_NAME, request->path) >= sizeof(w->chain))
		return err_set(e, -ENAMETOOLONG, "%s", request->path);
	wish->path = w->path;
	wish->chain = w->chain;
	wish->name = w->name;
	wish->directory = request->path;
	return 0;
}

static int take(const struct daemon *d, const struct request *request, int fd)
{
	struct where where;
	struct image_wish wish = { request->path, request->keep_running, request->store, GODWIT_VERSION, request->has_key ? &request->key : NULL, NULL, NULL, NULL };
	struct migrate_request order = {
		.pid = request->pid, .also = request->also, .n_also = request->n_also, .self_name = d->config.name, .self = d->config.listen, .strategy = request->strategy,
		.files = request->files, .tcp = request->tcp, .timeout_ms = request->timeout_ms, .progress = on_progress, .progress_arg = &fd,
	};
	struct migrate_report report = { .strategy = request->strategy };
	struct refusals refusals = { 0 };
	struct image_taken taken = { 0 };
	struct err e = ERR_INIT;
	int r = request->incremental ? find_place(request, &where, &wish, &e) : 0;

	if (r == 0)
		r = migrate_checkpoint(&order, &wish, &report, &refusals, &taken, &e);

	worker_set_done(d);
	if (r < 0) {
		fail(fd, code_of(r, &report, &refusals), r, &refusals, &e);
	} else {
		log_line(request->copy ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO, "event=image unit=%s path=\"%s\" freeze_us=%llu bytes=%llu", report.unit, wish.path, (unsigned long long)report.freeze_us,
			 (unsigned long long)taken.file_bytes);
		reply_result(fd, json_pack("{s:o, s:i, s:o, s:b, s:s, s:I, s:f, s:I, s:I, s:b, s:i, s:o}", "unit", reply_text(report.unit), "pid", (int)request->pid, "path", reply_text(wish.path),
					   "keep_running", request->keep_running, "strategy", strategy_name(report.strategy), "freeze_us", (json_int_t)report.freeze_us, "total_ms",
					   report.total_ms, "file_bytes", (json_int_t)taken.file_bytes, "raw_bytes", (json_int_t)taken.raw_bytes, "incremental", taken.links > 0, "needs", (int)taken.links, "whole_because",
					   reply_text(taken.whole)));
	}
	refusals_free(&refusals);
	return r < 0;
}

int do_checkpoint(const struct daemon *d, const struct request *given, int fd)
{
	struct request request = *given;
	struct refusals none = { 0 };
	struct err e = ERR_INIT;

	request_keep_tops(&request);
	request_name_unit(d, &request);
	log_set_context("side=source pid=%d", (int)request.pid);
	if (request.pid)
		return take(d, &request, fd);
	worker_set_done(d);
	err_set(&e, -ESRCH, "unit %s is not on this host (`godwit ps` says where it is): run this there", request.unit);
	return fail(fd, "unknown-unit", -ESRCH, &none, &e);
}

static bool restore_cancelled(void *arg)
{
	return client_cancels(*(const int *)arg);
}

int do_restore(const struct daemon *d, const struct request *request, int fd)
{
	struct image_restore order = { .path = request->path, .key = request->has_key ? &request->key : NULL, .self_name = d->config.name, .dest_name = request->host[0] ? request->host : d->config.name, .dest = d->config.listen,
				       .accept_changed = request->accept_changed, .cancelled = restore_cancelled, .arg = &fd };
	struct image_restored got = { 0 };
	struct refusals refusals = { 0 };
	struct err e = ERR_INIT;
	int r = 0;

	log_set_context("side=restore");
	if (order.dest.sin_addr.s_addr == htonl(INADDR_ANY))
		order.dest.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (strcmp(order.dest_name, d->config.name) != 0)
		r = host_resolve(d, &request->caller, request->host, &order.dest, &e);
	if (r < 0)
		return fail(fd, "unknown-host", r, &refusals, &e);
	r = migrate_restore(&order, &got, &refusals, &e);
	if (r < 0) {
		fail(fd, got.in_doubt ? "in-doubt" : code_of(r, NULL, &refusals), r, &refusals, &e);
	} else {
		log_info("event=restored unit=%s path=\"%s\"", got.unit, request->path);
		reply_result(fd, json_pack("{s:o, s:o, s:i, s:o}", "unit", reply_text(got.unit), "node", reply_text(got.node), "pid", (int)got.pid, "path", reply_text(request->path)));
	}
	refusals_free(&refusals);
	return r < 0;
}
