/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* lease.c - file leases; see lease.h */
#include "image/lease.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>

#include "base/util.h"
#include "image/file_gone.h"
#include "image/fsfile.h"
#include "image/place.h"

#define OPEN_FLAGS (O_ACCMODE | O_APPEND | O_SYNC | O_DSYNC | O_DIRECT | O_NOATIME)
#define RETRY_MS 2

struct lease_waiting {
	int fd;
	int number; /* the process's, which its signals tell; -1: any */
	bool write, breaking, to_read;
};

bool lease_capture(const struct fd_look *look, Gw__FdDesc *d)
{
	Gw__FdLease *lease = NULL;
	char kind[16], how[16], type[16];

	for (const char *line = look->info; line; line = fdinfo_next_line(line)) {
		/* "lock:	1: LEASE  BREAKING  READ  1234 00:2f:5678 0 EOF"; the type is what is left when it has been broken */
		if (sscanf(line, "lock: %*d: %15s %15s %15s", kind, how, type) != 3)
			continue;
		if (!strcmp(kind, "DELEG"))
			return false;
		if (strcmp(kind, "LEASE"))
			continue;
		lease = fd_alloc(sizeof(*lease));
		gw__fd_lease__init(lease);
		lease->breaking = !strcmp(how, "BREAKING");
		lease->to_read = lease->breaking && !strcmp(type, "READ");
		lease->write = lease->breaking ? lease->to_read || (d->flags & O_ACCMODE) != O_RDONLY : !strcmp(type, "WRITE");
		break;
	}
	if (d->lease)
		gw__fd_lease__free_unpacked(d->lease, NULL);
	d->lease = lease;
	return true;
}

bool lease_is_touchy(const Gw__FdDesc *d)
{
	return d->lease && (d->lease->write || d->lease->breaking);
}

int lease_identify(const struct fd_look *look, Gw__FdDesc *d, struct refusals *refusals)
{
	uint8_t boot_id[16];
	size_t len;

	if (look->link[0] != '/' || file_gone(look->link, look->st, &len) || fsfile_boot_id(boot_id, NULL) < 0) {
		refusals_add(refusals, "fd.lease", "its lease would be broken by reading the file, which has no name any more", "release it first",
			     "fd %d (%s)", look->fd, look->link);
		return FD_REFUSED;
	}
	d->path = fd_strdup(look->link);
	d->directory = fd_alloc(sizeof(*d->directory));
	gw__fd_directory__init(d->directory);
	d->directory->dev = look->st->st_dev;
	d->directory->ino = look->st->st_ino;
	d->directory->boot_id.data = fd_alloc(sizeof(boot_id));
	d->directory->boot_id.len = sizeof(boot_id);
	memcpy(d->directory->boot_id.data, boot_id, sizeof(boot_id));
	return 0;
}

int lease_validate(const Gw__FdDesc *d, struct err *e)
{
	if (d->lease && ((d->kind != GW__FD_KIND__FD_FILE && d->kind != GW__FD_KIND__FD_LEASED) || (d->flags & O_PATH)))
		return err_set(e, -EPROTO, "a lease on something else than a file");
	if (d->kind != GW__FD_KIND__FD_LEASED)
		return lease_is_touchy(d) ? err_set(e, -EPROTO, "a write lease on a file like others") : 0;
	if (!d->lease || !d->directory || d->directory->boot_id.len != 16 || d->path[0] != '/' || strlen(d->path) >= PATH_MAX)
		return err_set(e, -EPROTO, "a lease without its file");
	return 0;
}

static bool is_here(const Gw__FdDesc *d)
{
	uint8_t boot_id[16];
	struct stat st;

	return lstat(place_of(d->path), &st) == 0 && S_ISREG(st.st_mode) && fsfile_boot_id(boot_id, NULL) == 0 &&
		!memcmp(boot_id, d->directory->boot_id.data, sizeof(boot_id)) && st.st_dev == d->directory->dev && st.st_ino == d->directory->ino;
}

void lease_judge(const Gw__FdDesc *d, int fd, struct refusals *refusals)
{
	if (d->kind == GW__FD_KIND__FD_LEASED && !is_here(d))
		refusals_add(refusals, "fd.lease", "a file with a write lease must be the very same on the destination, and is not", "release the lease first",
			     "fd %d (%s)", fd, d->path);
}

void lease_release_all(const Gw__FdTable *t, int (*held)(void *arg, uint32_t desc), void *arg)
{
	for (uint32_t i = 0; i < t->n_descs; i++)
		if (t->descs[i]->lease && held(arg, i) >= 0)
			fcntl(held(arg, i), F_SETLEASE, F_UNLCK);
}

/* Its signal goes nowhere meanwhile: to this worker, with a number that is ignored. */
static int break_again(bool to_read, int fd, struct err *e)
{
	int signal_number = fcntl(fd, F_GETSIG), opened;
	struct f_owner_ex owner, self = { F_OWNER_PID, getpid() };

	if (signal_number < 0 || fcntl(fd, F_GETOWN_EX, &owner) < 0 || fcntl(fd, F_SETOWN_EX, &self) < 0 || fcntl(fd, F_SETSIG, SIGURG) < 0)
		return err_sys(e, -errno, "a lease: its signal");
	opened = fd_reopen(fd, (to_read ? O_RDONLY : O_WRONLY) | O_NONBLOCK);
	if (opened >= 0)
		close(opened);
	if (fcntl(fd, F_SETSIG, signal_number) < 0 || fcntl(fd, F_SETOWN_EX, &owner) < 0)
		return err_sys(e, -errno, "a lease: its signal");
	return opened == -EWOULDBLOCK ? 0 : err_set(e, opened < 0 ? opened : -EIO, "a lease that is not broken as it was");
}

/* The kernel remembers the number through which a lease is taken, for its signals: this worker lends its own of that number for a moment. */
static int set_by_number(int fd, int number, int type)
{
	cleanup_close int lent = -1;
	int r;

	if (number < 0 || number == fd)
		return fcntl(fd, F_SETLEASE, type) < 0 ? -errno : 0;
	lent = fcntl(number, F_DUPFD_CLOEXEC, 0);
	if (dup3(fd, number, O_CLOEXEC) < 0)
		return -errno;
	r = fcntl(number, F_SETLEASE, type) < 0 ? -errno : 0;
	if (lent >= 0)
		dup3(lent, number, O_CLOEXEC);
	else
		close(number);
	return r;
}

static int take(const struct lease_waiting *w, struct err *e)
{
	int r = set_by_number(w->fd, w->number, w->write ? F_WRLCK : F_RDLCK);

	if (r < 0)
		return err_sys(e, r, "taking a %s lease", w->write ? "write" : "read");
	return w->breaking ? break_again(w->to_read, w->fd, e) : 0;
}

static struct lease_waiting waiting(const Gw__FdLease *lease, int fd, int number)
{
	return (struct lease_waiting){ fd, number, lease->write, lease->breaking, lease->to_read };
}

/* The lowest number of a description. */
static int number_of(const Gw__FdTable *t, uint32_t desc)
{
	for (size_t k = 0; k < t->n_tables; k++)
		for (size_t i = 0; i < t->tables[k]->n_fd; i++)
			if (t->tables[k]->desc[i] == desc)
				return (int)t->tables[k]->fd[i];
	return -1;
}

void lease_retake_all(const Gw__FdTable *t, int (*held)(void *arg, uint32_t desc), void *arg)
{
	for (uint32_t i = 0; i < t->n_descs; i++) {
		int fd = t->descs[i]->lease ? held(arg, i) : -1;
		struct lease_waiting w;

		if (fd < 0)
			continue;
		w = waiting(t->descs[i]->lease, fd, number_of(t, i));
		take(&w, NULL);
	}
}

int lease_open(const Gw__FdDesc *d, int *ret_fd, struct err *e)
{
	cleanup_close int fd = -1;
	struct stat st;

	if (!is_here(d))
		return err_set(e, -EAGAIN, "%s is another file by now", d->path);
	fd = open(place_of(d->path), (int)(d->flags & OPEN_FLAGS) | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return err_sys(e, -errno, "%s", d->path);
	if (fstat(fd, &st) < 0 || st.st_ino != d->directory->ino || fcntl(fd, F_SETFL, (int)(d->flags & (OPEN_FLAGS | O_NONBLOCK))) < 0 ||
	    lseek(fd, d->position, SEEK_SET) < 0)
		return err_sys(e, -errno, "%s", d->path);
	*ret_fd = take_fd(&fd);
	return 0;
}

int lease_take(const Gw__FdTable *t, uint32_t desc, int fd, struct lease_late *late, struct err *e)
{
	struct lease_waiting w = waiting(t->descs[desc]->lease, fd, number_of(t, desc)), *grown;
	int r = take(&w, e);

	if (r != -EAGAIN)
		return r;
	grown = realloc(late->v, (late->n + 1) * sizeof(*grown));
	w.fd = grown ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
	if (w.fd < 0)
		return err_set(e, -ENOMEM, "no memory for a lease");
	late->v = grown;
	late->v[late->n++] = w;
	return 0;
}

void lease_late_take(struct lease_late *late, unsigned timeout_ms)
{
	for (unsigned ms = 0; late->n && ms <= timeout_ms; ms += RETRY_MS) {
		size_t left = 0;

		for (size_t i = 0; i < late->n; i++) {
			if (take(&late->v[i], NULL) == -EAGAIN)
				late->v[left++] = late->v[i];
			else
				close(late->v[i].fd);
		}
		late->n = left;
		if (left)
			usleep(RETRY_MS * 1000);
	}
}

void lease_late_free(struct lease_late *late)
{
	for (size_t i = 0; i < late->n; i++)
		close(late->v[i].fd);
	free(late->v);
	*late = (struct lease_late){ 0 };
}
