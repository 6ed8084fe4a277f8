// SPDX-License-Identifier: GPL-2.0-or-later
/* reply.c - lines of JSON to a client; see reply.h */
#include "daemon/reply.h"

#include <errno.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "base/util.h"
#include "image/notes.h"

#define CLIENT_STUCK_MS 3000

json_t *reply_text(const char *text)
{
	json_t *s = json_string(text);
	cleanup_free char *copy = NULL;
	size_t i;

	if (s)
		return s;
	copy = strdup(text);
	if (!copy)
		return NULL;
	for (i = 0; copy[i]; i++)
		if ((unsigned char)copy[i] > 126)
			copy[i] = '?';
	return json_string(copy);
}

int reply_bytes(int fd, const char *data, size_t len, int stuck_ms)
{
	while (len) {
		ssize_t n = send(fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);
		struct pollfd p = { .fd = fd, .events = POLLOUT };

		if (n > 0) {
			data += n;
			len -= (size_t)n;
		} else if (errno == EAGAIN) {
			if (!poll(&p, 1, stuck_ms))
				return -ETIMEDOUT;
		} else if (errno != EINTR) {
			return -errno;
		}
	}
	return 0;
}

void reply_line(int fd, json_t *line)
{
	cleanup_free char *text = line ? json_dumps(line, JSON_COMPACT) : NULL;
	size_t len = text ? strlen(text) : 0;

	json_decref(line);
	if (!text)
		return;
	text[len] = '\n'; /* over the 0: the length is known */
	reply_bytes(fd, text, len + 1, CLIENT_STUCK_MS);
}

void reply_result(int fd, json_t *result)
{
	reply_line(fd, json_pack("{s:s, s:o}", "event", "result", "result", result));
}

json_t *reply_refusals(const struct refusals *refusals)
{
	json_t *list = json_array();
	size_t i;

	for (i = 0; refusals && i < refusals->n; i++) {
		const struct refusal *r = &refusals->v[i];

		json_array_append_new(list, json_pack("{s:o, s:o, s:o, s:o}", "code", reply_text(r->code), "thing", reply_text(r->thing),
						      "cause", reply_text(r->cause), "way_out", reply_text(r->way_out)));
	}
	return list;
}

void reply_error(int fd, const char *code, const struct err *e, const struct refusals *refusals, json_t *result)
{
	json_t *error = json_pack("{s:s, s:i, s:o, s:o}", "code", code, "errno", e->code < 0 ? -e->code : e->code, "message",
				  reply_text(e->message), "refusals", reply_refusals(refusals));
	json_t *line = json_pack("{s:s, s:o}", "event", "error", "error", error);

	if (result)
		json_object_set_new(line, "result", result);
	reply_line(fd, line);
}

json_t *reply_report(const struct migrate_report *r)
{
	json_t *o = json_pack("{s:o, s:o, s:o, s:s, s:s, s:I, s:f, s:I}", "unit", reply_text(r->unit), "from", reply_text(r->from), "to",
			      reply_text(r->to), "strategy", r->portable ? "portable" : strategy_name(r->strategy), "outcome", r->outcome ? r->outcome : "", "freeze_us",
			      (json_int_t)r->freeze_us, "total_ms", r->total_ms, "bytes_sent", (json_int_t)r->bytes_sent);
	json_t *notes = json_array();
	struct rusage used;

	json_object_set_new(o, "stopped_at_ns", json_integer((json_int_t)r->stopped_at_ns));
	json_object_set_new(o, "pages_total", json_integer((json_int_t)r->pages_total));
	json_object_set_new(o, "pages_sent", json_integer((json_int_t)r->pages_sent));
	json_object_set_new(o, "pages_skipped_file", json_integer((json_int_t)r->pages_skipped_file));
	json_object_set_new(o, "pages_skipped_zero", json_integer((json_int_t)r->pages_skipped_zero));
	json_object_set_new(o, "pages_faulted", json_integer((json_int_t)r->pages_faulted));
	json_object_set_new(o, "rounds", json_integer(r->rounds));
	if (getrusage(RUSAGE_SELF, &used) == 0)
		json_object_set_new(o, "cpu_ms", json_integer((used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000 + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1000));
	json_object_set_new(o, "pid", json_integer(r->new_pid));
	for (size_t i = 0; i < notes_count(); i++)
		json_array_append_new(notes, reply_text(notes_get(i)));
	json_object_set_new(o, "notes", notes);
	return o;
}
