/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* pipe.c - pipes and FIFOs; see pipe.h */
#include "image/pipe.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/ioctl.h>

#include "base/util.h"
#include "image/file_gone.h"
#include "image/place.h"
#include "image/relay.h"

#define RELAY_SIZE (64u << 10)

/* Sizes that the kernel itself gives: a power of two, at least a page. */
static bool size_ok(uint32_t size_bytes)
{
	return size_bytes >= PAGE_SIZE_BYTES && size_bytes <= PIPE_SIZE_MAX && !(size_bytes & (size_bytes - 1));
}

/*
 * Reads everything that lies in `from` (a scratch pipe) and a byte behind it into p; one read gives one packet, or all when there are no packets. Which of them a single piece is, that byte
 * tells: it comes with a stream (*ret_stream is set then), and not with a packet.
 */
static int read_all(int from, Gw__FdPipe *p, size_t expected, bool *ret_stream, struct err *e)
{
	uint8_t *data = fd_alloc(expected + 1);
	uint32_t *packets = NULL;
	size_t len = 0, n_packets = 0;

	while (len < expected) {
		ssize_t n = read(from, data + len, expected + 1 - len);

		if (n <= 0)
			break;
		if (len + (size_t)n > expected) {
			*ret_stream = true;
			n--;
		}
		packets = realloc(packets, (n_packets + 1) * sizeof(*packets));
		if (!packets)
			abort();
		packets[n_packets++] = (uint32_t)n;
		len += (size_t)n;
	}
	p->data = (ProtobufCBinaryData){ len, data };
	p->packet_bytes = packets;
	p->n_packet_bytes = n_packets;
	if (len != expected)
		return err_set(e, -EAGAIN, "pipe: %zu of %zu bytes could be read", len, expected);
	return 0;
}

static void forget_data(Gw__FdPipe *p)
{
	free(p->data.data);
	free(p->packet_bytes);
	p->data = (ProtobufCBinaryData){ 0, NULL };
	p->packet_bytes = NULL;
	p->n_packet_bytes = 0;
}

void pipe_forget(Gw__FdPipe *p)
{
	forget_data(p);
	p->size_bytes = PAGE_SIZE_BYTES;
}

int pipe_capture(int held, bool contents, Gw__FdPipe *p, struct err *e)
{
	cleanup_close int reader = -1, scratch_read = -1, scratch_write = -1;
	int size = fcntl(held, F_GETPIPE_SZ), scratch[2], waiting = 0, flags = fcntl(held, F_GETFL), r;
	ssize_t copied;
	bool stream;

	if (size < 0 || flags < 0 || ioctl(held, FIONREAD, &waiting) < 0)
		return err_sys(e, -errno, "pipe: reading its size");
	forget_data(p);
	p->size_bytes = (uint32_t)size;
	/* Without a reader nobody can ever see the contents. */
	if (!contents || !waiting || pipe_is_broken(held, true))
		return 0;
	if (pipe2(scratch, O_CLOEXEC | O_NONBLOCK) < 0)
		return err_sys(e, -errno, "pipe2");
	scratch_read = scratch[0];
	scratch_write = scratch[1];
	if (fcntl(scratch_write, F_SETPIPE_SZ, MAX(size, 2 * (int)PAGE_SIZE_BYTES)) < size)
		return err_sys(e, -errno, "pipe: a copy of %d bytes", size);
	if ((flags & O_ACCMODE) == O_WRONLY) {
		reader = fd_reopen(held, O_RDONLY | O_NONBLOCK);
		if (reader < 0)
			return err_sys(e, reader, "pipe: opening its other end");
	}
	copied = tee(reader >= 0 ? reader : held, scratch_write, (size_t)size, SPLICE_F_NONBLOCK);
	if (copied < 0)
		return err_sys(e, -errno, "pipe: tee");
	/* A packet is one buffer: there is room behind a single one. */
	stream = write(scratch_write, "", 1) != 1;
	r = read_all(scratch_read, p, (size_t)copied, &stream, e);
	if (r < 0)
		return r;
	if (p->n_packet_bytes == 1 && stream) {
		free(p->packet_bytes);
		p->packet_bytes = NULL;
		p->n_packet_bytes = 0;
	}
	return 0;
}

bool pipe_is_broken(int held, bool write_end)
{
	struct pollfd p = { .fd = held };

	/* A write end shows POLLERR when there is no reader, a read end POLLHUP when there is no writer. */
	return poll(&p, 1, 0) == 1 && (p.revents & (write_end ? POLLERR : POLLHUP));
}

static void scan_process(pid_t pid, struct pipe_holder *holders, size_t n)
{
	char path[64], link[64];
	cleanup_closedir DIR *dir = NULL;
	struct dirent *entry;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	while (dir && (entry = readdir(dir))) {
		ssize_t len = readlinkat(dirfd(dir), entry->d_name, link, sizeof(link) - 1);
		struct stat st;
		uint64_t ino = 0;

		if (len <= 0)
			continue;
		link[len] = '\0';
		if (sscanf(link, "pipe:[%lu]", &ino) != 1 && sscanf(link, "socket:[%lu]", &ino) != 1) {
			/* A FIFO has a path. Devices and anonymous inodes need no stat. */
			if (link[0] != '/' || !strncmp(link, "/dev/", 5) || fstatat(dirfd(dir), entry->d_name, &st, 0) < 0 ||
			    !S_ISFIFO(st.st_mode))
				continue;
			ino = st.st_ino;
		}
		for (size_t i = 0; i < n; i++)
			if (holders[i].ino == ino && !holders[i].pid) {
				holders[i].pid = pid;
				holders[i].fd = atoi(entry->d_name);
			}
	}
}

void pipe_outside_scan(const pid_t *inside, size_t n_inside, struct pipe_holder *holders, size_t n)
{
	cleanup_closedir DIR *proc = opendir("/proc");
	struct dirent *entry;

	for (size_t i = 0; i < n; i++)
		holders[i].pid = 0;
	while (proc && (entry = readdir(proc))) {
		pid_t other = atoi(entry->d_name);
		bool is_inside = other == getpid();

		for (size_t i = 0; i < n_inside && !is_inside; i++)
			is_inside = inside[i] == other;
		if (other > 0 && !is_inside)
			scan_process(other, holders, n);
	}
}

int pipe_validate(const Gw__FdPipe *p, struct err *e)
{
	uint64_t sum = 0;

	if (!size_ok(p->size_bytes))
		return err_set(e, -EPROTO, "pipe: size %u", p->size_bytes);
	if (p->data.len > p->size_bytes)
		return err_set(e, -EPROTO, "pipe: more data than fits");
	for (size_t i = 0; i < p->n_packet_bytes; i++) {
		if (!p->packet_bytes[i])
			return err_set(e, -EPROTO, "pipe: an empty packet");
		sum += p->packet_bytes[i];
	}
	if (p->n_packet_bytes && sum != p->data.len)
		return err_set(e, -EPROTO, "pipe: packets of another length than the data");
	if (p->relay > RELAY_UNIT_WRITES || p->relay_id >= RELAYS_MAX)
		return err_set(e, -EPROTO, "pipe: relay %u of kind %u", p->relay_id, p->relay);
	if (strlen(p->fifo_path) >= PATH_MAX || (p->fifo_path[0] && p->fifo_path[0] != '/'))
		return err_set(e, -EPROTO, "pipe: bad path");
	if (p->deleted)
		return file_gone_validate(p->fifo_path, p->deleted, e);
	return 0;
}

/*
 * A relay's pipe has been made larger when the unit left a host, or when it was given back at home: what is on its way would become more with each move.
 */
static int size_here(const Gw__FdPipe *p)
{
	size_t size = RELAY_SIZE;

	while (size < p->data.len)
		size *= 2;
	return (int)(p->relay ? MIN(size, (size_t)p->size_bytes) : p->size_bytes);
}

static int set_size(const Gw__FdPipe *p, int fd, struct err *e)
{
	int size = size_here(p);

	if (fcntl(fd, F_GETPIPE_SZ) == size || fcntl(fd, F_SETPIPE_SZ, size) >= 0)
		return 0;
	return err_sys(e, -errno, "pipe: a size of %d bytes (fs.pipe-max-size on this host is too small?)", size);
}

/* Makes the pipe itself: a descriptor open for both directions, so that opening its ends never blocks. */
static int pipe_make(const Gw__FdPipe *p, struct pipe_made *made, struct err *e)
{
	struct stat st;

	/* A relayed FIFO is one at home: of the name here somebody else may have the other end. */
	if (p->deleted && !p->relay) {
		int r = file_gone_open(p->fifo_path, p->deleted, S_IFIFO, O_RDWR | O_NONBLOCK, &made->both, e);

		if (r < 0)
			return r;
	} else if (p->fifo_path[0] && !p->relay) {
		made->both = open(place_of(p->fifo_path), O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
		if (made->both < 0)
			return err_sys(e, -errno, "FIFO %s: opening it", p->fifo_path);
		if (fstat(made->both, &st) < 0 || !S_ISFIFO(st.st_mode))
			return err_set(e, -EINVAL, "%s: not a FIFO on this host", p->fifo_path);
	} else {
		if (pipe2(made->ends, O_CLOEXEC) < 0)
			return err_sys(e, -errno, "pipe2");
		made->both = fd_reopen(made->ends[0], O_RDWR | O_NONBLOCK);
		if (made->both < 0)
			return err_sys(e, made->both, "pipe: opening both ends");
	}
	return set_size(p, made->both, e);
}

int pipe_open(const Gw__FdPipe *p, uint32_t flags, struct pipe_made *made, int *ret_fd, struct err *e)
{
	int r = made->both < 0 ? pipe_make(p, made, e) : 0, access = (int)(flags & O_ACCMODE), fd;
	int status = (int)(flags & (O_NONBLOCK | O_DIRECT));

	if (r < 0)
		return r;
	/* pipe2's own ends differ from reopened ones in O_LARGEFILE, which F_GETFL shows. */
	if (access != O_RDWR && !(flags & FD_O_LARGEFILE) && made->ends[access == O_WRONLY] >= 0) {
		if (status && fcntl(made->ends[access == O_WRONLY], F_SETFL, status) < 0)
			return err_sys(e, -errno, "pipe: F_SETFL");
		*ret_fd = take_fd(&made->ends[access == O_WRONLY]);
		return 0;
	}
	fd = fd_reopen(made->both, access | status);
	if (fd < 0)
		return err_sys(e, fd, "pipe: opening an end");
	*ret_fd = fd;
	return 0;
}

void pipe_made_close(struct pipe_made *made)
{
	close_fdp(&made->both);
	close_fdp(&made->ends[0]);
	close_fdp(&made->ends[1]);
}

static int write_all(int fd, const uint8_t *data, size_t len, struct err *e)
{
	while (len) {
		ssize_t n = write(fd, data, len);

		if (n <= 0)
			return err_sys(e, n < 0 ? -errno : -EIO, "pipe: filling it");
		data += n;
		len -= (size_t)n;
	}
	return 0;
}

int pipe_fill(const Gw__FdPipe *p, int fd, struct err *e)
{
	cleanup_close int both = fd_reopen(fd, O_RDWR | O_NONBLOCK);
	size_t at = 0;
	char drain[4096];
	int r = both < 0 ? err_sys(e, both, "pipe: opening both ends") : set_size(p, both, e);

	if (r < 0)
		return r;
	while (read(both, drain, sizeof(drain)) > 0)
		;
	if (!p->n_packet_bytes)
		return write_all(both, p->data.data, p->data.len, e);
	for (size_t i = 0; i < p->n_packet_bytes && r == 0; i++) {
		/* A packet never exceeds a page; a longer piece is bytes written without packet mode. */
		int direct = p->packet_bytes[i] <= PAGE_SIZE_BYTES ? O_DIRECT : 0;

		if (fcntl(both, F_SETFL, O_NONBLOCK | direct) < 0)
			return err_sys(e, -errno, "pipe: packet mode");
		r = write_all(both, p->data.data + at, p->packet_bytes[i], e);
		at += p->packet_bytes[i];
	}
	return r;
}
