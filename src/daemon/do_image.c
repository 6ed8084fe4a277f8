// SPDX-License-Identifier: GPL-2.0-or-later
/* do_image.c - taking an image of a unit, and making a unit of one (migrate/checkpoint.h), for one client: that it hangs up, or says anything, cancels */
#include <errno.h>
#include <poll.h>

#include "base/log.h"
#include "base/util.h"
#include "daemon/daemon.h"
#include "daemon/reply.h"
#include "migrate/checkpoint.h"
#include "version.h"

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

static int take(const struct daemon *d, const struct request *request, int fd)
{
	const struct image_wish wish = { request->path, request->keep_running, request->store, GODWIT_VERSION, request->has_key ? &request->key : NULL };
	struct migrate_request order = {
		.pid = request->pid, .also = request->also, .n_also = request->n_also, .self_name = d->config.name, .self = d->config.listen, .strategy = request->strategy,
		.files = request->files, .tcp = request->tcp, .timeout_ms = request->timeout_ms, .progress = on_progress, .progress_arg = &fd,
	};
	struct migrate_report report = { .strategy = request->strategy };
	struct refusals refusals = { 0 };
	struct image_taken taken = { 0 };
	struct err e = ERR_INIT;
	int r = migrate_checkpoint(&order, &wish, &report, &refusals, &taken, &e);

	worker_set_done(d);
	if (r < 0) {
		fail(fd, code_of(r, &report, &refusals), r, &refusals, &e);
	} else {
		log_line(request->copy ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO, "event=image unit=%s path=\"%s\" freeze_us=%llu bytes=%llu", report.unit, request->path, (unsigned long long)report.freeze_us,
			 (unsigned long long)taken.file_bytes);
		reply_result(fd, json_pack("{s:o, s:i, s:o, s:b, s:s, s:I, s:f, s:I, s:I}", "unit", reply_text(report.unit), "pid", (int)request->pid, "path", reply_text(request->path),
					   "keep_running", request->keep_running, "strategy", strategy_name(report.strategy), "freeze_us", (json_int_t)report.freeze_us, "total_ms",
					   report.total_ms, "file_bytes", (json_int_t)taken.file_bytes, "raw_bytes", (json_int_t)taken.raw_bytes));
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
