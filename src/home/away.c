/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * away.c - the life of godwit-away, the surrogate parent; see parent.h and docs/home.md
 *
 * Theory of operation: one loop, nothing blocks. godwit-home connects (ROLE_HOME, handed over by godwitd through the door that is named by the migration) and
 * sends signals; waitid(2) says what becomes of the root. The root's end is kept until home has it.
 *
 * When the unit moves on, the source's worker says HOLD through the door and where to: from then on nothing is taken from home, so that nothing is given to
 * a copy that has been read already. MOVED makes home turn to the new host; the end of that connection without it means that the unit has
 * stayed, or that the worker died: then the root's life tells which.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/log.h"
#include "base/util.h"
#include "home/channel.h"
#include "home/door.h"
#include "home/keep.h"
#include "home/listener.h"
#include "home/parent.h"
#include "home/session.h"
#include "home/terminal.h"
#include "kern/fdpass.h"

#define GUESTS_MAX 4
#define LINGER_MS 600000   /* how long an end, or where the unit has gone, is kept for a home that is not connected */
#define UNKNOWN_MS 60000   /* ... when it is not known that the unit was ever taken over */
#define MODES_MS 50
#define SI_TKILL_CODE (-6)

struct away {
	const struct parent *parent;
	char door_name[DOOR_NAME_MAX];
	pid_t root;
	int pidfd, control, door, signals;
	int guests[GUESTS_MAX]; /* connections to the door that have said nothing yet */
	int mover;              /* the worker that moves the unit on; -1: none */
	struct door_target target;
	struct session session;
	struct channels channels;
	struct away_terminal terminal;
	uint32_t stop;          /* the root has been stopped by this signal, which home does not know yet */
	bool committed, aborted, ended, reported, moved;
	int status;
	uint64_t deadline_ns;   /* 0: none */
};

static void set_deadline(struct away *a, unsigned ms)
{
	a->deadline_ns = clock_ns(CLOCK_MONOTONIC) + ms * 1000000ull;
}

static void tell(struct away *a, Gw__HomeKind kind, uint32_t signal, uint32_t status)
{
	Gw__HomeMessage m = GW__HOME_MESSAGE__INIT;

	m.kind = kind;
	m.signal = signal;
	m.status = status;
	session_send(&a->session, &m);
}

/* --- the root --- */

/* What the unit has written before its end comes before its end. The end of a copy that was left behind is nobody's affair. */
static void report_end(struct away *a)
{
	if (a->reported || a->moved || a->mover >= 0)
		return;
	away_terminal_tell_modes(&a->terminal, &a->session);
	if (!channels_drain(&a->channels, &a->session))
		return;
	a->reported = true;
	away_terminal_return(&a->terminal, &a->session);
	tell(a, GW__HOME_KIND__HOME_ENDED, 0, (uint32_t)a->status & 0xffff);
	a->session.deaf = true; /* what comes from now on nobody reads: its keys are the terminal's again */
	set_deadline(a, a->committed ? LINGER_MS : UNKNOWN_MS);
}

/* As its end; unless it goes on before that. A terminal is not the unit's any more while it is stopped. */
static void report_stop(struct away *a)
{
	if (!a->stop || a->moved || a->mover >= 0)
		return;
	away_terminal_tell_modes(&a->terminal, &a->session);
	if (a->terminal.master >= 0 && !channels_drain(&a->channels, &a->session))
		return;
	away_terminal_return(&a->terminal, &a->session);
	tell(a, GW__HOME_KIND__HOME_STOPPED, a->stop, 0);
	a->stop = 0;
}

static void reap(struct away *a)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG | WUNTRACED | WCONTINUED | __WALL)) > 0) {
		if (pid != a->root)
			continue; /* the agent, or an orphan of the unit */
		if (WIFSTOPPED(status)) {
			a->stop = (uint32_t)WSTOPSIG(status);
			report_stop(a);
		} else if (WIFCONTINUED(status)) {
			if (!a->stop)
				tell(a, GW__HOME_KIND__HOME_CONTINUED, 0, 0);
			a->stop = 0;
		} else {
			a->ended = true;
			a->status = status;
			report_end(a);
		}
	}
}

/* A siginfo whose code says that a program made it can be sent on as it is; kill(2)'s cannot. */
static void deliver(struct away *a, const Gw__HomeMessage *m)
{
	siginfo_t info;
	int number = (int)m->signal;
	pid_t group;

	if (a->ended)
		return;
	if (m->group) {
		group = getpgid(a->root);
		if (group > 0) /* 0: of a namespace above; -1: the process has just gone */
			kill(-group, number);
		return;
	}
	if (m->info.len == sizeof(info)) {
		memcpy(&info, m->info.data, sizeof(info));
		if (info.si_code < 0 && info.si_code != SI_TKILL_CODE && info.si_signo == number &&
		    syscall(SYS_pidfd_send_signal, a->pidfd, number, &info, 0) == 0)
			return;
	}
	syscall(SYS_pidfd_send_signal, a->pidfd, number, NULL, 0);
}

static bool is_terminals(const struct away *a, const Gw__HomeMessage *m)
{
	const struct channel *ch = channels_find(&a->channels, m->channel);

	return m->kind != GW__HOME_KIND__HOME_DATA || (ch && (ch->kind & CHANNEL_TERMINAL));
}

/* Its channel is closed when it has been hung up. */
static void look_at_terminal(struct away *a)
{
	for (size_t i = 0; i < a->channels.n; i++)
		if (a->channels.v[i].kind & CHANNEL_TERMINAL)
			a->terminal.master = a->channels.v[i].fd;
}

static void handle(void *arg, const Gw__HomeMessage *m)
{
	struct away *a = arg;

	switch (m->kind) {
	case GW__HOME_KIND__HOME_SIGNAL:
		deliver(a, m);
		break;
	case GW__HOME_KIND__HOME_STOP:
		pidfd_signal(a->pidfd, SIGSTOP);
		break;
	case GW__HOME_KIND__HOME_KILL:
		pidfd_signal(a->pidfd, SIGKILL);
		break;
	case GW__HOME_KIND__HOME_FOREGROUND:
		if (m->count)
			away_terminal_take(&a->terminal, a->root);
		else
			away_terminal_return(&a->terminal, &a->session);
		break;
	case GW__HOME_KIND__HOME_OPEN:
		listener_open(&a->channels, m, a->root, &a->session);
		break;
	default:
		if (!is_terminals(a, m) || !away_terminal_handle(&a->terminal, m, &a->session))
			channels_handle(&a->channels, m, &a->session);
		look_at_terminal(a);
		break;
	}
}

/* --- the door --- */

static void take_guest(struct away *a)
{
	int fd = accept4(a->door, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	for (int i = 0; i < GUESTS_MAX; i++)
		if (a->guests[i] < 0) {
			a->guests[i] = fd;
			return;
		}
	close_fdp(&a->guests[0]);
	a->guests[0] = fd;
}

static void list_relays(const struct away *a, int guest)
{
	struct door_relay list[DOOR_RELAYS_MAX] = { 0 };
	size_t n = 0;

	for (size_t i = 0; i < a->channels.n && n < DOOR_RELAYS_MAX; i++) {
		struct stat st;

		if (a->channels.v[i].fd >= 0 && fstat(a->channels.v[i].fd, &st) == 0)
			list[n++] = (struct door_relay){ a->channels.v[i].id, a->channels.v[i].kind | (a->channels.v[i].type == SOCK_DGRAM ? CHANNEL_SILENT : 0), st.st_ino };
		if (n && a->channels.v[i].fd >= 0 && (a->channels.v[i].kind & CHANNEL_TERMINAL)) {
			unsigned int number = 0;

			ioctl(a->channels.v[i].fd, TIOCGPTN, &number);
			list[n - 1].ino = number;
		}
	}
	door_send(guest, list, n ? n * sizeof(*list) : 1, NULL, 0, NULL);
}

/* What has been typed and does not fit into the terminal could not be given to the one at the next host. */
static bool terminal_is_settled(const struct away *a)
{
	for (size_t i = 0; i < a->channels.n; i++)
		if ((a->channels.v[i].kind & CHANNEL_TERMINAL) && a->channels.v[i].done < a->channels.v[i].have)
			return false;
	return true;
}

static void hear_guest(struct away *a, int *guest)
{
	struct door_target target = { 0 };
	int fd = -1;
	size_t n = 0;
	ssize_t got = door_receive(*guest, &target, sizeof(target), &fd, 1, &n, NULL);

	if (got >= 1 && target.word == DOOR_LINK && n == 1) {
		session_attach(&a->session, take_fd(&fd));
	} else if (got >= 1 && target.word == DOOR_RELAYS) {
		list_relays(a, *guest);
	} else if (got == (ssize_t)sizeof(target) && target.word == DOOR_HOLD && a->mover < 0 && !a->ended) {
		struct door_held held = { .word = DOOR_HELD };

		target.host[sizeof(target.host) - 1] = 0;
		if (!terminal_is_settled(a) || !channels_finish(&a->channels, &a->session)) { /* tried again in a moment */
			close_fdp(guest);
			return;
		}
		a->target = target;
		a->mover = take_fd(guest);
		channels_empty(&a->channels, &a->session);
		held.handled = a->session.handled;
		held.sent = a->session.seq;
		door_send(a->mover, &held, sizeof(held), NULL, 0, NULL);
	}
	close_fdp(&fd);
	close_fdp(guest);
}

static void tell_moved(struct away *a)
{
	Gw__HomeMessage m = GW__HOME_MESSAGE__INIT;

	m.kind = GW__HOME_KIND__HOME_MOVED;
	m.host = a->target.host;
	m.address = (ProtobufCBinaryData){ sizeof(a->target.address), a->target.address };
	m.mig_id = (ProtobufCBinaryData){ sizeof(a->target.mig_id), a->target.mig_id };
	session_send(&a->session, &m);
	a->session.deaf = true; /* what comes from now on is for the next host */
	a->moved = true;
	set_deadline(a, LINGER_MS); /* home would take the unit for lost */
}

/* The unit has left, or has stayed after all. A worker that died after the commit could not say so: its agent kills what is left here. */
static void hear_mover(struct away *a)
{
	uint8_t word = 0;
	ssize_t got = door_receive(a->mover, &word, 1, NULL, 0, NULL, NULL);

	if (got < 0 && errno == EAGAIN)
		return;
	close_fdp(&a->mover);
	if ((got == 1 && word == DOOR_MOVED) || (a->ended && WIFSIGNALED(a->status) && WTERMSIG(a->status) == SIGKILL))
		tell_moved(a);
	else if (a->ended)
		report_end(a);
}

static void hear_worker(struct away *a)
{
	struct parent_word w = { 0 };
	int fd = -1;
	size_t n = 0;
	ssize_t got = door_receive(a->control, &w, sizeof(w), &fd, 1, &n, NULL);

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got == (ssize_t)sizeof(w) && w.word == PARENT_CHANNEL && n == 1) {
		if (channels_add(&a->channels, w.id, w.kind, fd, NULL) == 0 && (w.kind & CHANNEL_TERMINAL))
			away_terminal_open(&a->terminal, fd);
		return;
	}
	close_fdp(&fd);
	close_fdp(&a->control);
	if (got == (ssize_t)sizeof(w) && w.word == PARENT_COMMIT)
		a->committed = true;
	else if (got == (ssize_t)sizeof(w) && w.word == PARENT_ABORT)
		a->aborted = true;
}

/* --- the loop --- */

static bool is_over(struct away *a)
{
	if (a->aborted)
		return true;
	if ((a->reported || a->moved) && session_settled(&a->session))
		return true;
	return a->deadline_ns && clock_ns(CLOCK_MONOTONIC) > a->deadline_ns;
}

static int wait_ms(const struct away *a)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC);

	/* Nothing tells that a program has set its terminal's modes. */
	if (a->terminal.master >= 0 && a->terminal.foreground && a->session.resumed && a->mover < 0 && !a->moved)
		return MODES_MS;
	if (!a->deadline_ns)
		return -1;
	return a->deadline_ns > now ? (int)((a->deadline_ns - now) / 1000000 + 1) : 0;
}

/* Not before the worker has said all, relays above all; and not while the unit is about to leave. */
static bool may_hear(const struct away *a)
{
	return a->control < 0 && a->mover < 0;
}

static void session_step(struct away *a, short revents)
{
	struct err e = ERR_INIT;
	int ret = 0;

	/* Held since the poll: what has come is for the copy at the next host. */
	if ((revents & (POLLIN | POLLHUP | POLLERR)) && may_hear(a))
		ret = session_input(&a->session, handle, a, &e);
	if (ret >= 0)
		ret = session_output(&a->session, &e);
	if (ret < 0) {
		log_debug("event=home-link-broken unit=%s text=\"%s\"", a->parent->unit, e.message);
		session_detach(&a->session);
	}
}

#define POLL_FIXED (5 + GUESTS_MAX)

static void loop_once(struct away *a)
{
	static struct pollfd p[POLL_FIXED + CHANNELS_MAX];
	const struct pollfd first[5] = {
		{ a->control, POLLIN, 0 }, { a->door, POLLIN, 0 }, { a->signals, POLLIN, 0 }, { a->mover, POLLIN, 0 },
		{ a->session.fd, (may_hear(a) ? POLLIN : 0) | (session_wants_out(&a->session) ? POLLOUT : 0), 0 },
	};
	/* Home connects when the unit runs here; while it is about to leave nothing is moved. */
	size_t n = a->session.resumed && a->mover < 0 && !a->moved ? a->channels.n : 0;
	struct signalfd_siginfo info;

	memcpy(p, first, sizeof(first));
	for (int i = 0; i < GUESTS_MAX; i++)
		p[5 + i] = (struct pollfd){ a->guests[i], POLLIN, 0 };
	if (n)
		channels_poll(&a->channels, p + POLL_FIXED);
	poll(p, POLL_FIXED + n, wait_ms(a));
	if (n) { /* the modes before what has been written in them */
		away_terminal_tell_modes(&a->terminal, &a->session);
		channels_step(&a->channels, p + POLL_FIXED, &a->session);
		look_at_terminal(a);
	}
	if (p[2].revents)
		while (read(a->signals, &info, sizeof(info)) == sizeof(info))
			;
	reap(a);
	if (p[0].revents)
		hear_worker(a);
	for (int i = 0; i < GUESTS_MAX; i++)
		if (p[5 + i].revents)
			hear_guest(a, &a->guests[i]);
	if (p[1].revents)
		take_guest(a);
	if (p[3].revents)
		hear_mover(a);
	if (a->ended)
		report_end(a);
	else
		report_stop(a);
	if (p[4].fd >= 0 && p[4].fd == a->session.fd)
		session_step(a, p[4].revents);
}

/* Nothing of the worker's stays open here: the end of its connections means something. */
static bool is_wanted(const void *arg, int fd)
{
	const struct away *a = arg;

	return fd == a->control || fd == a->parent->slave;
}

static int prepare(struct away *a, struct err *e)
{
	sigset_t all;

	for (int s = 1; s < NSIG; s++)
		signal(s, SIG_DFL);
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	a->signals = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
	if (a->signals < 0)
		return err_sys(e, -errno, "signalfd");
	setpriority(PRIO_PROCESS, 0, 0);
	a->pidfd = pidfd_open_process(a->root, e);
	if (a->pidfd < 0)
		return a->pidfd;
	door_name_of_migration(a->parent->mig_id, a->door_name);
	a->door = door_open(a->door_name, e);
	return a->door;
}

void away_run(const struct parent *parent, int control, pid_t root)
{
	static struct away a;
	struct err e = ERR_INIT;

	a = (struct away){ .parent = parent, .root = root, .pidfd = -1, .door = -1, .signals = -1, .mover = -1, .session = SESSION_INIT };
	a.terminal = (struct away_terminal){ .master = -1, .slave = parent->slave, .controls = parent->controls, .returns = !parent->leads };
	for (int i = 0; i < GUESTS_MAX; i++)
		a.guests[i] = -1;
	a.control = control;
	keep_only(is_wanted, &a);
	if (prepare(&a, &e) < 0)
		log_error("event=away-failed unit=%s text=\"%s\"", parent->unit, e.message);
	while (!is_over(&a))
		loop_once(&a);
	door_remove(a.door_name);
	_exit(0);
}
