/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* plan.c - what a migration would move; see plan.h */
#include "migrate/plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/util.h"
#include "migrate/source.h"

static const struct {
	const char *name, *means;
} kinds[PLAN_KINDS] = {
	[PLAN_FILE_THERE] = { "file", "the same file is there, and opened at its position" },
	[PLAN_FILE_HOME] = { "file-from-home", "served from home by its file service" },
	[PLAN_FILE_SENT] = { "file-sent", "its contents are sent, and made there" },
	[PLAN_DIRECTORY] = { "directory", "opened there under the same path" },
	[PLAN_DEVICE] = { "device", "opened there under the same path" },
	[PLAN_KERNEL_FILE] = { "kernel-file", "opened there: of /proc, /sys or a control group" },
	[PLAN_PIPE] = { "pipe", "made there with what is in it; where an end is outside of the unit, relayed from here" },
	[PLAN_UNIX] = { "unix-socket", "made there with what is in it; where its other end is outside of the unit, relayed from here" },
	[PLAN_TERMINAL] = { "terminal", "made there if it is the unit's own, otherwise relayed from here" },
	[PLAN_EVENT] = { "event", "made there in the same state (eventfd, epoll, timerfd, signalfd, inotify, fanotify)" },
	[PLAN_PIDFD] = { "pidfd", "opened there of the same process" },
	[PLAN_MQUEUE] = { "message-queue", "made there with its messages" },
	[PLAN_URING] = { "io_uring", "made there in the same state" },
	[PLAN_BPF_MAP] = { "bpf-map", "made there with its contents" },
	[PLAN_TUN] = { "tun", "its interface is made there" },
	[PLAN_NAMESPACE] = { "namespace", "opened there" },
	[PLAN_LISTENER] = { "tcp-listener", "listens there; this host leads new connections to it" },
	[PLAN_TCP_OUTSIDE] = { "tcp", "made there with its numbers; this host leads its packets to it, and the other end sees nothing" },
	[PLAN_TCP_CLOSED] = { "tcp-closed", "ended, as --tcp close says: the other end gets a reset" },
	[PLAN_TCP_INSIDE] = { "tcp-inside", "both ends are the unit's, or the other one is gone: made there with what is in it" },
	[PLAN_SOCKET] = { "socket", "made there with its options and what it has not read (UDP, netlink, packet, unconnected)" },
};

const char *plan_kind_name(enum plan_kind kind)
{
	return kinds[kind].name;
}

const char *plan_kind_means(enum plan_kind kind)
{
	return kinds[kind].means;
}

static enum plan_kind file_kind(const struct source *s, uint32_t i)
{
	if (i >= s->nanswers || i >= s->unit.files.n)
		return PLAN_FILE_THERE;
	if (fsfile_answer_lacks(&s->answers[i]))
		return PLAN_FILE_SENT;
	return fsfile_is_homes(&s->unit.files.v[i]) ? PLAN_FILE_HOME : PLAN_FILE_THERE;
}

static enum plan_kind socket_kind(const struct source *s, const Gw__FdSocket *socket)
{
	if (socket && socket->listening)
		return PLAN_LISTENER;
	if (tcp_outside_is_one(socket))
		return s->request->tcp == TCP_OUTSIDE_CLOSE ? PLAN_TCP_CLOSED : PLAN_TCP_OUTSIDE;
	return socket && socket->tcp ? PLAN_TCP_INSIDE : PLAN_SOCKET;
}

static enum plan_kind kind_of(const struct source *s, const Gw__FdDesc *d)
{
	switch (d->kind) {
	case GW__FD_KIND__FD_FILE:
		return file_kind(s, d->index);
	case GW__FD_KIND__FD_LEASED:
		return PLAN_FILE_THERE;
	case GW__FD_KIND__FD_DIRECTORY:
	case GW__FD_KIND__FD_DELETED_DIR:
	case GW__FD_KIND__FD_PATH:
		return PLAN_DIRECTORY;
	case GW__FD_KIND__FD_DEVICE:
		return PLAN_DEVICE;
	case GW__FD_KIND__FD_KERNEL_FILE:
		return PLAN_KERNEL_FILE;
	case GW__FD_KIND__FD_PIPE:
		return PLAN_PIPE;
	case GW__FD_KIND__FD_UNIX:
		return PLAN_UNIX;
	case GW__FD_KIND__FD_PTY_MASTER:
	case GW__FD_KIND__FD_PTY_SLAVE:
	case GW__FD_KIND__FD_PTY_TTY:
		return PLAN_TERMINAL;
	case GW__FD_KIND__FD_PIDFD:
		return PLAN_PIDFD;
	case GW__FD_KIND__FD_MQUEUE:
		return PLAN_MQUEUE;
	case GW__FD_KIND__FD_URING:
		return PLAN_URING;
	case GW__FD_KIND__FD_BPF_MAP:
		return PLAN_BPF_MAP;
	case GW__FD_KIND__FD_TUN:
		return PLAN_TUN;
	case GW__FD_KIND__FD_NAMESPACE:
		return PLAN_NAMESPACE;
	case GW__FD_KIND__FD_SOCKET:
		return socket_kind(s, d->socket);
	default:
		return PLAN_EVENT;
	}
}

/* Memory that is in no file: files that are memory, too, count as files. */
static void add_memory(pid_t pid, struct migrate_plan *plan)
{
	char path[40], line[256];
	cleanup_fclose FILE *f = NULL;
	uint64_t kib;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "VmRSS: %" SCNu64, &kib) == 1)
			plan->resident_bytes += kib * 1024;
		else if (sscanf(line, "RssAnon: %" SCNu64, &kib) == 1)
			plan->own_bytes += kib * 1024;
		else if (sscanf(line, "VmSwap: %" SCNu64, &kib) == 1)
			plan->swapped_bytes += kib * 1024;
	}
}

static uint64_t content_bytes(const struct fsfile *f)
{
	struct stat st;

	if (fsfile_is_memory(f) && f->fd >= 0 && fstat(f->fd, &st) == 0)
		return (uint64_t)st.st_blocks * 512; /* it may be as large as it likes */
	return f->size;
}

static void add_file(const struct source *s, uint32_t i, struct migrate_plan *plan)
{
	enum plan_kind kind = file_kind(s, i);

	plan->files_there += kind == PLAN_FILE_THERE;
	plan->files_home += kind == PLAN_FILE_HOME;
	plan->files_sent += kind == PLAN_FILE_SENT;
	if (kind == PLAN_FILE_SENT)
		plan->files_bytes += content_bytes(&s->unit.files.v[i]);
}

void plan_fill(const struct source *s, struct migrate_plan *ret)
{
	const Gw__FdTable *fds = s->unit.fds.msg;

	*ret = (struct migrate_plan){ .known = true, .strategy = s->strategy, .processes = s->unit.nprocs, .namespaces = s->unit.ns ? s->unit.ns->owned : 0 };
	for (size_t i = 0; i < s->unit.nprocs; i++) {
		ret->threads += s->unit.procs[i].nthreads;
		if (!s->unit.procs[i].guest)
			add_memory(s->unit.procs[i].pid, ret);
	}
	for (uint32_t i = 0; i < s->unit.files.n; i++)
		add_file(s, i, ret);
	for (size_t i = 0; fds && i < fds->n_descs; i++)
		if (fds->descs[i]->kind != GW__FD_KIND__FD_CLOSED)
			ret->kinds[kind_of(s, fds->descs[i])]++;
}
