/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * uring_flight.c - requests of io_urings that wait for something, at the source; see uring.h
 *
 * What a request was submitted as is read from what the kernel has of it. Only those are carried of which all is known, and which have done nothing yet.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "base/util.h"
#include "image/bytes.h"
#include "image/file_owner.h"
#include "image/uring_internal.h"

static const char *const names[] = {
	"NOP", "READV", "WRITEV", "FSYNC", "READ_FIXED", "WRITE_FIXED", "POLL_ADD", "POLL_REMOVE", "SYNC_FILE_RANGE", "SENDMSG", "RECVMSG", "TIMEOUT", "TIMEOUT_REMOVE",
	"ACCEPT", "ASYNC_CANCEL", "LINK_TIMEOUT", "CONNECT", "FALLOCATE", "OPENAT", "CLOSE", "FILES_UPDATE", "STATX", "READ", "WRITE", "FADVISE", "MADVISE", "SEND", "RECV",
	"OPENAT2", "EPOLL_CTL", "SPLICE", "PROVIDE_BUFFERS", "REMOVE_BUFFERS", "TEE", "SHUTDOWN", "RENAMEAT", "UNLINKAT", "MKDIRAT", "SYMLINKAT", "LINKAT", "MSG_RING",
	"FSETXATTR", "SETXATTR", "FGETXATTR", "GETXATTR", "SOCKET", "URING_CMD", "SEND_ZC", "SENDMSG_ZC", "READ_MULTISHOT", "WAITID", "FUTEX_WAIT", "FUTEX_WAKE",
	"FUTEX_WAITV", "FIXED_FD_INSTALL", "FTRUNCATE", "BIND", "LISTEN", "RECV_ZC", "EPOLL_WAIT", "READV_FIXED", "WRITEV_FIXED", "PIPE",
};

const char *uring_operation_name(unsigned opcode)
{
	return opcode < ARRAY_SIZE(names) ? names[opcode] : "(unknown)";
}

/* IOSQE_* of a request that can be submitted again by itself. */
#define FLAGS_ALLOWED (IOSQE_FIXED_FILE | IOSQE_ASYNC | IOSQE_CQE_SKIP_SUCCESS)

bool uring_operation_is_known(unsigned opcode)
{
	switch (opcode) {
	case IORING_OP_POLL_ADD:
	case IORING_OP_TIMEOUT:
	case IORING_OP_ACCEPT:
	case IORING_OP_READ:
	case IORING_OP_WRITE:
	case IORING_OP_SEND:
	case IORING_OP_RECV:
		return true;
	default:
		return false;
	}
}

static bool is_transfer(unsigned opcode)
{
	return opcode == IORING_OP_SEND || opcode == IORING_OP_RECV;
}

const char *uring_flight_obstacle(const struct uring_request *r)
{
	if (!uring_operation_is_known(r->opcode))
		return "operations of this kind cannot be submitted again yet";
	if (r->linked || r->flags & (IOSQE_IO_LINK | IOSQE_IO_HARDLINK))
		return "others are linked to it";
	if (r->flags & IOSQE_BUFFER_SELECT)
		return "it takes one of several buffers";
	if (r->flags & ~FLAGS_ALLOWED)
		return "it was submitted with flags that are not known";
	if (is_transfer(r->opcode) && r->ioprio & RECVSEND_FIXED_BUFFER)
		return "it uses a registered buffer";
	if (r->done)
		return "it has transferred a part already";
	/* tests/facts/uring_rules.c; the program is in a time namespace afterwards, and such as it submits there would come at another time. */
	if (r->opcode == IORING_OP_TIMEOUT && r->operation_flags & IORING_TIMEOUT_ABS && r->clock != CLOCK_REALTIME)
		return "absolute times of io_uring are of each host's own clock (IORING_TIMEOUT_ABS)";
	if (r->opcode == IORING_OP_TIMEOUT && r->operation_flags & TIMEOUT_MULTISHOT)
		return "it is one that comes again and again (IORING_TIMEOUT_MULTISHOT)";
	return NULL;
}

uint64_t uring_host_to_process(const struct uring_clocks *c, uint32_t clock, uint64_t ns)
{
	return clock == CLOCK_MONOTONIC ? ns + (uint64_t)c->monotonic_offset_ns : clock == CLOCK_BOOTTIME ? ns + (uint64_t)c->boottime_offset_ns : ns;
}

Gw__UringRequest *uring_flight_add(Gw__Uring *ring, const struct uring_request *r, const struct uring_clocks *clocks)
{
	Gw__UringRequest **grown = realloc(ring->requests, (ring->n_requests + 1) * sizeof(*grown)), *to = must_alloc(sizeof(*to));

	if (!grown)
		abort();
	gw__uring_request__init(to);
	to->opcode = r->opcode;
	to->flags = r->flags;
	to->tid = (uint32_t)fd_owner_seen((pid_t)r->tid, "NSpid:");
	to->fd = r->fd;
	to->data = r->data;
	to->address = r->address;
	to->address2 = r->address2;
	to->offset = r->offset;
	to->len = r->len;
	to->operation_flags = r->operation_flags;
	to->ioprio = r->ioprio & (is_transfer(r->opcode) ? RECVSEND_FLAGS : UINT16_MAX);
	to->place = r->place;
	to->events = r->events;
	if (r->opcode == IORING_OP_TIMEOUT) {
		to->clock = r->clock;
		to->expires_ns = uring_host_to_process(clocks, r->clock, (uint64_t)r->expires);
	}
	ring->requests = grown;
	grown[ring->n_requests++] = to;
	return to;
}

/* --- what stays behind --- */

static const Gw__FdDesc *find_desc(const Gw__FdTable *t, uint32_t process, const Gw__Uring *ring, const Gw__UringRequest *r)
{
	const Gw__FdNumbers *n = t->tables[t->table_of[process]];
	int64_t fd = r->fd;

	for (size_t i = 0; r->flags & IOSQE_FIXED_FILE && i < ring->n_files; i++)
		if (ring->files[i]->index == (uint32_t)r->fd)
			fd = ring->files[i]->fd;
	for (size_t i = 0; i < n->n_fd; i++)
		if (n->fd[i] == fd)
			return t->descs[n->desc[i]];
	return NULL;
}

static bool is_relayed(const Gw__FdTable *t, const Gw__FdDesc *d)
{
	switch (d->kind) {
	case GW__FD_KIND__FD_PIPE:
		return t->pipes[d->index]->relay;
	case GW__FD_KIND__FD_PTY_SLAVE:
	case GW__FD_KIND__FD_PTY_TTY:
		return t->ptys[d->index]->relay;
	case GW__FD_KIND__FD_UNIX:
		return d->unix_socket && d->unix_socket->relay;
	default:
		return false;
	}
}

void uring_refuse_relayed(const Gw__FdTable *t, uint32_t process, const Gw__Process *msg, struct refusals *refusals)
{
	for (size_t i = 0; i < msg->n_urings; i++)
		for (size_t k = 0; k < msg->urings[i]->n_requests; k++) {
			const Gw__UringRequest *r = msg->urings[i]->requests[k];
			bool takes = r->opcode != IORING_OP_POLL_ADD && r->opcode != IORING_OP_TIMEOUT;
			const Gw__FdDesc *d = takes ? find_desc(t, process, msg->urings[i], r) : NULL;

			if (d && is_relayed(t, d))
				refusals_add(refusals, "fd.io_uring.request", "the other end stays at this host, where the old request would go on until the process's end", "let it end",
					     "fd %u (io_uring, IORING_OP_%s of descriptor %d in flight)", msg->urings[i]->fd, uring_operation_name(r->opcode), r->fd);
		}
}

/* --- both --- */

int uring_flight_validate(const Gw__Uring *ring, struct err *e)
{
	for (size_t i = 0; i < ring->n_requests; i++) {
		const Gw__UringRequest *r = ring->requests[i];

		if (!uring_operation_is_known(r->opcode) || r->flags & ~FLAGS_ALLOWED || !r->tid || r->tid > 0x400000 || r->ioprio > UINT16_MAX ||
		    (ring->submitter && r->tid != ring->submitter) || r->clock > CLOCK_TAI || r->expires_ns > INT64_MAX ||
		    (r->opcode != IORING_OP_TIMEOUT && r->fd < 0))
			return err_set(e, -EBADMSG, "io_uring %u: a request of kind %u that makes no sense", ring->fd, r->opcode);
	}
	return 0;
}
