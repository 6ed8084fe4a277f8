/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* pty.c - pseudo-terminals on the source, and the checks on what a peer sent; see pty.h. The destination's part is in pty_restore.c */
#include "image/pty.h"

#include <asm/termbits.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/kcmp.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include "base/util.h"
#include "image/place.h"
#include "image/process_check.h"
#include "image/pty_internal.h"
#include "image/pty_session.h"
#include "image/relay.h"
#include "kern/tty_peek.h"

#define ECHO_START 0xff /* in the echo buffer: what follows is an operation */
#define ECHO_MOVE_BACK 0x80
#define ECHO_SET_COLUMN 0x81
#define ECHO_ERASE_TAB 0x82

Gw__FdKind pty_kind(uint32_t device_major, uint32_t device_minor)
{
	if (device_major >= 136 && device_major <= 143)
		return GW__FD_KIND__FD_PTY_SLAVE;
	if (device_major == 5 && device_minor == 2)
		return GW__FD_KIND__FD_PTY_MASTER;
	if (device_major == 5 && device_minor == 0)
		return GW__FD_KIND__FD_PTY_TTY;
	return GW__FD_KIND__FD_CLOSED;
}

bool pty_is_kind(Gw__FdKind kind)
{
	return kind == GW__FD_KIND__FD_PTY_MASTER || kind == GW__FD_KIND__FD_PTY_SLAVE || kind == GW__FD_KIND__FD_PTY_TTY;
}

int pty_number_of(int fd)
{
	unsigned int device;
	struct stat st;

	if (ioctl(fd, TIOCGDEV, &device) == 0)
		return major(device) >= 136 && major(device) <= 143 ? (int)(minor(device) + ((major(device) - 136) << 20)) : -1;
	/* hung up */
	if (fstat(fd, &st) < 0 || major(st.st_rdev) != 136)
		return -1;
	return (int)minor(st.st_rdev);
}

bool pty_same(const Gw__FdDesc *d, int fd)
{
	return pty_number_of(fd) == (int)d->device_minor;
}

/* Whether a process has one of the unit's descriptions of a pseudo-terminal in its table. */
static bool pty_shared_with(const struct pty_source *s, uint32_t index, pid_t pid)
{
	cleanup_closedir DIR *dir = NULL;
	char path[64], link[64];
	struct dirent *entry;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	while (dir && (entry = readdir(dir))) {
		ssize_t len = readlinkat(dirfd(dir), entry->d_name, link, sizeof(link) - 1);

		link[len < 0 ? 0 : len] = 0;
		if (strncmp(link, "/dev/pt", 7) && strncmp(link, "/dev/tty", 8))
			continue;
		for (uint32_t i = 0; i < s->msg->n_descs; i++)
			if (pty_is_kind(s->msg->descs[i]->kind) && s->msg->descs[i]->index == index &&
			    syscall(SYS_kcmp, getpid(), pid, KCMP_FILE, s->held(s->arg, i), atoi(entry->d_name)) == 0)
				return true;
	}
	return false;
}

/* What one capture finds out about a pseudo-terminal. */
struct found {
	int master;          /* the worker's duplicates; -1: none */
	int slave;
	uint32_t opened;     /* of the slave, as the kernel counts them */
	uint32_t ours;       /* of the slave, descriptions of the unit */
	bool live;           /* some of the slave's descriptions are not hung up */
	bool broken;         /* refused */
	bool relayed;        /* its master is outside, and stays there */
};

struct scan {
	const struct pty_source *s;
	struct tty_record_file *files;
	size_t n_files;
	struct found *found; /* one for each of msg->ptys */
	size_t n_before;     /* ptys that were known before this capture */
};

static const struct tty_record_file *find_file(const struct scan *c, int fd)
{
	for (size_t i = 0; i < c->n_files; i++)
		if (c->files[i].fd == (unsigned int)fd)
			return &c->files[i];
	return NULL;
}

static void refuse(const struct scan *c, uint32_t desc, const char *cause, const char *way_out)
{
	Gw__FdDesc *d = c->s->msg->descs[desc];
	char link[64], path[FD_LINK_MAX] = "";

	snprintf(link, sizeof(link), "/proc/self/fd/%d", c->s->held(c->s->arg, desc));
	if (readlink(link, path, sizeof(path) - 1) < 0)
		path[0] = 0;
	refusals_add(c->s->refusals, "fd.tty", cause, way_out, "fd %d (terminal %s)", c->s->number(c->s->arg, desc), path);
	c->s->refused(c->s->arg, desc);
	d->kind = GW__FD_KIND__FD_CLOSED;
}

/* The pseudo-terminal, known by the kernel's object of its slave, or a new one. */
static uint32_t find_pty(struct scan *c, uint64_t id, uint32_t number)
{
	Gw__FdTable *m = c->s->msg;
	Gw__FdPty *p;
	size_t n = m->n_ptys;

	for (size_t i = 0; i < n; i++)
		if ((*c->s->ids)[i] == id && m->ptys[i]->number == number)
			return (uint32_t)i;
	p = fd_alloc(sizeof(*p));
	gw__fd_pty__init(p);
	p->number = number;
	p->master = fd_alloc(sizeof(*p->master));
	gw__fd_pty_end__init(p->master);
	p->slave = fd_alloc(sizeof(*p->slave));
	gw__fd_pty_end__init(p->slave);
	c->found = realloc(c->found, (n + 1) * sizeof(*c->found));
	*c->s->ids = realloc(*c->s->ids, (n + 1) * sizeof(**c->s->ids));
	if (!c->found || !*c->s->ids)
		abort();
	(*c->s->ids)[n] = id;
	c->found[n] = (struct found){ .master = -1, .slave = -1 };
	fd_append(&m->ptys, &m->n_ptys, p);
	return (uint32_t)n;
}

/* Of two with one number one has been closed since; unless the other is of another /dev/pts and stays at home. */
static int check_namesakes(const struct scan *c, struct err *e)
{
	const Gw__FdTable *m = c->s->msg;

	for (size_t i = 0; i < m->n_ptys; i++)
		for (size_t k = 0; k < i && !m->ptys[i]->relay; k++)
			if (m->ptys[i]->number == m->ptys[k]->number && !m->ptys[k]->relay)
				return err_set(e, -EAGAIN, "terminal %u has been closed, and another one opened", m->ptys[i]->number);
	return 0;
}

/* One description of an end. -EAGAIN: it is not what it was. */
static int look_at(struct scan *c, uint32_t i, struct err *e)
{
	Gw__FdDesc *d = c->s->msg->descs[i];
	int held = c->s->held(c->s->arg, i), number = pty_number_of(held);
	const struct tty_record_file *file = find_file(c, held);
	struct winsize window;
	struct found *f;
	uint32_t index;
	bool hung_up, known;

	if (number < 0 || !file || !file->is_pty) {
		refuse(c, i, "a terminal of this kind cannot move", "start it with its input and output redirected (setsid, </dev/null >file)");
		return 0;
	}
	index = find_pty(c, file->is_master ? file->peer : file->id, (uint32_t)number);
	f = &c->found[index];
	hung_up = d->kind != GW__FD_KIND__FD_PTY_MASTER && ioctl(held, TIOCGWINSZ, &window) < 0 && errno == EIO;
	known = d->path[0];
	if (c->s->frozen && ((known && (d->index != index || hung_up != (bool)d->hung_up)) ||
			     (!known && index < c->n_before && (hung_up || d->kind == GW__FD_KIND__FD_PTY_TTY))))
		return err_set(e, -EAGAIN, "fd %d: its terminal was hung up or opened anew during the migration; try again",
			c->s->number(c->s->arg, i));
	d->index = index;
	d->device_minor = (uint32_t)number;
	d->hung_up = hung_up;
	if (!known)
		d->path = fd_strdup(d->kind == GW__FD_KIND__FD_PTY_TTY ? "/dev/tty" : d->kind == GW__FD_KIND__FD_PTY_MASTER ? "/dev/ptmx" : "/dev/pts");
	if (d->kind == GW__FD_KIND__FD_PTY_MASTER) {
		f->master = held;
		f->opened = file->peer_opened;
		return 0;
	}
	if (f->slave < 0 || !hung_up)
		f->slave = held;
	f->live |= !hung_up;
	f->opened = file->opened;
	f->ours++;
	return 0;
}

/* Who outside of the unit shares one of its descriptions of this pseudo-terminal (inherited it, or was sent it)? */
static pid_t find_sharer(const struct scan *c, uint32_t index)
{
	cleanup_closedir DIR *proc = opendir("/proc");
	struct dirent *entry;

	while (proc && (entry = readdir(proc))) {
		pid_t pid = atoi(entry->d_name);

		if (pid > 0 && !c->s->inside(c->s->arg, pid) && pty_shared_with(c->s, index, pid))
			return pid;
	}
	return 0;
}

/* The slave's count of descriptions includes one for the pair itself, until the master is closed. */
static void check_outside(struct scan *c, uint32_t index)
{
	struct found *f = &c->found[index];
	const char *text = NULL;
	char cause[160];
	pid_t sharer;
	int relay = fdtable_relayed_terminal(c->s->msg);

	if (f->master < 0 && f->live && (relay < 0 || relay == (int)index)) {
		f->relayed = true;
		return;
	}
	if (f->master < 0 && f->live)
		text = "its other end belongs to a process that would stay behind";
	else if (f->master >= 0 && f->opened > f->ours + 1)
		text = "a process that would stay behind has it open, too";
	sharer = text || (c->s->frozen && index < c->n_before) ? 0 : find_sharer(c, index);
	if (sharer)
		snprintf(cause, sizeof(cause), "process %d has it open, too, and would stay behind", (int)sharer);
	else if (text)
		snprintf(cause, sizeof(cause), "%s", text);
	else
		return;
	f->broken = true;
	for (uint32_t i = 0; i < c->s->msg->n_descs; i++)
		if (pty_is_kind(c->s->msg->descs[i]->kind) && c->s->msg->descs[i]->index == index)
			refuse(c, i, cause, "start it with its input and output redirected (setsid, </dev/null >file), or let the other process end first");
}

void pty_set_bytes(ProtobufCBinaryData *b, const void *data, size_t len)
{
	free(b->data);
	b->data = fd_alloc(len);
	if (len)
		memcpy(b->data, data, len);
	b->len = len;
}

/* What is not written by the settings: who owns it, its session and foreground group. */
static int capture_owner(const struct scan *c, uint32_t index, struct err *e)
{
	const struct found *f = &c->found[index];
	Gw__FdPty *p = c->s->msg->ptys[index];
	char link[64], path[PATH_MAX];
	struct stat st;
	ssize_t len;

	snprintf(path, sizeof(path), "/dev/pts/%u", p->number);
	if (stat(place_of(path), &st) < 0 || !S_ISCHR(st.st_mode) || st.st_rdev != makedev(136, p->number))
		return err_set(e, -ENODEV, "%s is not the terminal that the unit has open (another /dev/pts?)", path);
	p->mode = st.st_mode & 07777;
	p->uid = st.st_uid;
	p->gid = st.st_gid;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", f->master);
	len = readlink(link, path, sizeof(path) - 1);
	path[len < 0 ? 0 : len] = 0;
	free(p->master_path == (char *)protobuf_c_empty_string ? NULL : p->master_path);
	p->master_path = fd_strdup(path[0] == '/' ? path : "/dev/ptmx");
	return 0;
}

/* The session and the window may only change before the freeze: signals go with them. */
static int capture_settings(const struct scan *c, uint32_t index, struct err *e)
{
	bool known = c->s->frozen && index < c->n_before;
	Gw__FdPty *p = c->s->msg->ptys[index];
	int fd = c->found[index].master, word = 0, sid = 0, group = 0, seen;
	struct termios2 settings;
	struct termios locked;
	struct winsize window;

	if (ioctl(fd, TCGETS2, &settings) < 0 || ioctl(fd, TIOCGLCKTRMIOS, &locked) < 0 || ioctl(fd, TIOCGWINSZ, &window) < 0 ||
	    ioctl(fd, TIOCGPTLCK, &word) < 0)
		return err_sys(e, -errno, "/dev/pts/%u: its settings", p->number);
	if (ioctl(fd, TIOCGSID, &sid) < 0)
		sid = 0;
	if (!sid || ioctl(fd, TIOCGPGRP, &group) < 0)
		group = 0;
	/* A leader outside keeps its number, so that the processes are refused for it. */
	seen = sid ? c->s->seen(c->s->arg, F_OWNER_PID, sid) : 0;
	if (seen)
		sid = seen;
	if (group)
		group = c->s->seen(c->s->arg, F_OWNER_PGRP, group);
	if (known && (sid != p->session || (sid && memcmp(p->window.data, &window, sizeof(window)))))
		return err_set(e, -EAGAIN, "/dev/pts/%u: its session or its size changed during the migration; try again", p->number);
	p->locked = word != 0;
	p->session = sid;
	p->foreground = group;
	pty_set_bytes(&p->termios, &settings, sizeof(settings));
	pty_set_bytes(&p->termios_locked, &locked, sizeof(locked));
	pty_set_bytes(&p->window, &window, sizeof(window));
	return 0;
}

void pty_capture_queue(const struct tty_record_end *r, bool lines, Gw__FdPtyEnd *end)
{
	size_t len = MIN((size_t)(r->read_head - r->read_tail), (size_t)TTY_QUEUE_BYTES);
	cleanup_free uint8_t *bytes = fd_alloc(len);

	free(end->line_ends);
	end->line_ends = fd_alloc(len * sizeof(*end->line_ends));
	end->n_line_ends = 0;
	for (size_t i = 0; i < len; i++) {
		size_t at = (r->read_tail + i) % TTY_QUEUE_BYTES;

		bytes[i] = r->read_buffer[at];
		if (lines && r->line_ends[at / 64] >> at % 64 & 1)
			end->line_ends[end->n_line_ends++] = (uint32_t)i;
	}
	pty_set_bytes(&end->queue, bytes, len);
	end->exclusive = r->exclusive;
	end->stopped = r->stopped;
	end->stopped_by_call = r->stopped_by_call;
	end->column = r->column;
	end->line_next = r->line_next;
}

/* What the line discipline would still echo, as bytes. Returns how many; the buffer is three times as large as the echo's. */
size_t pty_decode_echo(const struct tty_record_end *r, uint8_t *to)
{
	size_t n = 0;

	for (uint64_t at = r->echo_tail; at < r->echo_head; at++) {
		uint8_t c = r->echo_buffer[at % TTY_QUEUE_BYTES];

		if (c != ECHO_START) {
			to[n++] = c;
			continue;
		}
		c = r->echo_buffer[++at % TTY_QUEUE_BYTES];
		if (c == ECHO_ERASE_TAB) {
			to[n++] = '\b';
			at += 2;
		} else if (c == ECHO_START) {
			to[n++] = c;
		} else if (c != ECHO_MOVE_BACK && c != ECHO_SET_COLUMN) {
			to[n++] = '^';
			to[n++] = c ^ 0100;
		}
	}
	return n;
}

static int capture_contents(const struct scan *c, uint32_t index, struct err *e)
{
	const struct termios2 *settings = (const void *)c->s->msg->ptys[index]->termios.data;
	Gw__FdPty *p = c->s->msg->ptys[index];
	const struct tty_record_pair *pair;
	uint8_t *waiting;
	int r = tty_peek_pair(c->found[index].master, &pair, e);

	if (r < 0)
		return r;
	if (pair->master.discipline || pair->slave.discipline)
		return err_set(e, -EBUSY, "/dev/pts/%u: a line discipline other than that of terminals", p->number);
	if (pair->master.flip_len > TTY_FLIP_BYTES || pair->slave.flip_len > TTY_FLIP_BYTES)
		return err_set(e, -EAGAIN, "/dev/pts/%u: more than %u bytes wait in it; try again", p->number, TTY_FLIP_BYTES);
	pty_capture_queue(&pair->master, false, p->master);
	pty_capture_queue(&pair->slave, (settings->c_lflag & (ICANON | EXTPROC)) == ICANON, p->slave);
	pty_set_bytes(&p->slave->waiting, pair->slave.flip, pair->slave.flip_len);
	waiting = fd_alloc(pair->master.flip_len + 3 * TTY_QUEUE_BYTES);
	memcpy(waiting, pair->master.flip, pair->master.flip_len);
	pty_set_bytes(&p->master->waiting, waiting, pair->master.flip_len + pty_decode_echo(&pair->slave, waiting + pair->master.flip_len));
	free(waiting);
	p->slave_opened = c->found[index].ours || pair->master.other_closed;
	p->packet = pair->master.packet;
	p->packet_status = pair->master.packet ? pair->slave.packet_status : 0;
	if ((p->packet_status & TIOCPKT_FLUSHREAD) && p->slave->queue.len)
		return err_set(e, -EAGAIN, "/dev/pts/%u: the master has not read yet that it was flushed; try again", p->number);
	return 0;
}

static int capture_pair(const struct scan *c, uint32_t index, struct err *e)
{
	Gw__FdPty *p = c->s->msg->ptys[index];
	int r;

	if (c->found[index].broken)
		return 0;
	if (c->found[index].relayed)
		return pty_capture_relayed(c->s, index, c->found[index].slave, index < c->n_before, e);
	if (c->found[index].master < 0) {
		if (c->s->frozen && index < c->n_before && p->master_path[0])
			return err_set(e, -EAGAIN, "/dev/pts/%u: its master was closed during the migration; try again", p->number);
		p->slave_opened = true;
		return 0;
	}
	r = capture_owner(c, index, e);
	if (r == 0)
		r = capture_settings(c, index, e);
	if (r == 0)
		p->slave_opened = c->found[index].ours;
	return r == 0 && c->s->frozen ? capture_contents(c, index, e) : r;
}

/* One that nobody has any more keeps its place. */
static int forget(const struct scan *c, uint32_t index, struct err *e)
{
	Gw__FdPty *p = c->s->msg->ptys[index];

	if (c->s->frozen && (p->session || p->relay))
		return err_set(e, -EAGAIN, "/dev/pts/%u: it was closed during the migration; try again", p->number);
	p->session = 0;
	p->relay = p->inherited = false;
	if (p->master_path[0])
		p->master_path[0] = 0;
	return 0;
}

/* N of the root's controlling terminal; -1. */
static int root_terminal(const struct pty_source *s)
{
	struct process_stat stat;

	return process_stat_read(s->process(s->arg, 0), &stat, NULL) == 0 ? pty_number_of_tty(stat.tty) : -1;
}

static bool has_end(const struct scan *c, uint32_t number)
{
	for (uint32_t i = 0; i < c->s->msg->n_descs; i++) {
		const Gw__FdDesc *d = c->s->msg->descs[i];

		if ((d->kind == GW__FD_KIND__FD_PTY_MASTER || (d->kind == GW__FD_KIND__FD_PTY_SLAVE && !d->hung_up)) && d->device_minor == number)
			return true;
	}
	return false;
}

/* The root's controlling terminal, when the unit has no descriptor of it, or only what was opened as /dev/tty. */
static int look_at_terminal(struct scan *c, int number, struct err *e)
{
	int fd = number < 0 || has_end(c, (uint32_t)number) ? -1 : c->s->terminal(c->s->arg, (uint32_t)number), r = 0;
	const struct tty_record_file *file;
	struct found *f;
	uint32_t index;

	if (fd < 0)
		return 0;
	file = find_file(c, fd);
	if (!file) { /* opened just now */
		free(c->files);
		c->files = NULL;
		r = tty_peek_list(&c->files, &c->n_files, e);
		file = r < 0 ? NULL : find_file(c, fd);
	}
	if (!file || !file->is_pty)
		return r;
	index = find_pty(c, file->id, (uint32_t)number); /* moves c->found */
	f = &c->found[index];
	f->slave = f->slave < 0 ? fd : f->slave;
	f->live = true;
	return 0;
}

int pty_capture(const struct pty_source *s, struct err *e)
{
	struct scan c = { .s = s, .n_before = s->msg->n_ptys };
	int r = 0, terminal = root_terminal(s);
	bool any = false;

	for (uint32_t i = 0; i < s->msg->n_descs && !any; i++)
		any = pty_is_kind(s->msg->descs[i]->kind);
	if (!any && terminal < 0)
		return 0;
	r = tty_peek_list(&c.files, &c.n_files, e);
	c.found = fd_alloc(c.n_before * sizeof(*c.found));
	for (size_t i = 0; i < c.n_before; i++)
		c.found[i] = (struct found){ .master = -1, .slave = -1 };
	for (uint32_t i = 0; i < s->msg->n_descs && r == 0; i++)
		if (pty_is_kind(s->msg->descs[i]->kind))
			r = look_at(&c, i, e);
	if (r == 0)
		r = look_at_terminal(&c, terminal, e);
	for (uint32_t i = 0; i < s->msg->n_ptys && r == 0; i++) {
		if (c.found[i].master < 0 && c.found[i].slave < 0) {
			r = forget(&c, i, e);
			continue;
		}
		check_outside(&c, i);
		r = capture_pair(&c, i, e);
	}
	if (r == 0)
		r = check_namesakes(&c, e);
	free(c.files);
	free(c.found);
	return r;
}
