/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * home.c - the process godwit-home: between a stub and where its unit runs
 *
 * Theory of operation: signals that the stub has taken go to godwit-away, in order and each once (session.h); the unit's end, stops and continuations come
 * back and are done to the stub. A stop of the stub by SIGSTOP has no event for anybody but its parent: its state is looked at 20 times a second. Its SIGKILL is seen by its socket's
 * end. The other host being unreachable changes nothing: this process tries to connect until it answers. Only when that host says that
 * it knows nothing of the unit (it was booted anew, or lost the surrogate parent) the stub is ended by SIGKILL.
 */
#include "home/home.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/log.h"
#include "base/util.h"
#include "home/back.h"
#include "home/keep.h"
#include "home/listener.h"
#include "home/home_internal.h"
#include "kern/fdpass.h"
#include "wire/conn.h"

#define TICK_MS 50       /* while there is something of which no descriptor tells: who reads the terminal, what is still to be passed on */
#define QUIET_TICK_MS 250 /* otherwise; only that the stub has been stopped has to be looked for */
#define CONNECT_MS 2000
#define RETRY_MS 500
#define UNKNOWN_TRIES 10 /* answers "no such unit" before it is believed: godwitd there may just be starting */

enum { CODE_KERNEL = 0x80 };

/* --- the stub --- */

static int open_stat(pid_t pid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	return open(path, O_RDONLY | O_CLOEXEC);
}

static void read_stat(int fd, struct stub_stat *ret)
{
	char text[512];
	const char *p;
	ssize_t n = fd >= 0 ? pread(fd, text, sizeof(text) - 1, 0) : -1;

	*ret = (struct stub_stat){ .state = 'X' };
	if (n <= 0)
		return;
	text[n] = 0;
	p = strrchr(text, ')');
	if (!p || sscanf(p + 1, " %c %*d %d %*d %d %d", &ret->state, &ret->group, &ret->terminal, &ret->foreground) != 4)
		ret->state = 'X';
}

static void read_stat_of(pid_t pid, struct stub_stat *ret)
{
	cleanup_close int fd = open_stat(pid);

	read_stat(fd, ret);
}

/* The next process in /proc; false: there are no more. */
static bool next_process(DIR *proc, struct stub_stat *ret, pid_t *ret_pid)
{
	struct dirent *entry;

	while ((entry = readdir(proc))) {
		*ret_pid = atoi(entry->d_name);
		if (*ret_pid <= 0)
			continue;
		read_stat_of(*ret_pid, ret);
		if (ret->state != 'X')
			return true;
	}
	return false;
}

static void signal_group(pid_t group, pid_t but, int number)
{
	cleanup_closedir DIR *proc = opendir("/proc");
	struct stub_stat stat;
	pid_t pid;

	while (proc && next_process(proc, &stat, &pid))
		if (stat.group == group && pid != but)
			kill(pid, number);
}

/* Whether some session has this terminal. */
static bool is_controlling(int fd)
{
	cleanup_closedir DIR *proc = opendir("/proc");
	unsigned int device = 0;
	struct stub_stat stat;
	pid_t pid;

	if (ioctl(fd, TIOCGDEV, &device) < 0)
		return true;
	while (proc && next_process(proc, &stat, &pid))
		if (stat.terminal && (unsigned int)stat.terminal == device)
			return true;
	return false;
}

void keeper_read_stat(const struct keeper *k, struct stub_stat *ret)
{
	read_stat(k->stat, ret);
	if (k->tracer.pid && ret->state == 't')
		ret->state = k->tracer.stopped ? 'T' : 'S';
}

static char stub_state(const struct keeper *k)
{
	struct stub_stat stat;

	keeper_read_stat(k, &stat);
	return stat.state;
}

void keeper_command(struct keeper *k, enum stub_kind kind, uint32_t value)
{
	struct stub_message m = { .kind = kind, .value = value };

	if (k->h->stub >= 0)
		(void)!send(k->h->stub, &m, sizeof(m), MSG_NOSIGNAL);
}

void keeper_show_host(struct keeper *k)
{
	struct stub_message m = { .kind = STUB_HOST };

	snprintf(m.text, sizeof(m.text), "%s", k->h->host);
	(void)!send(k->h->stub, &m, sizeof(m), MSG_NOSIGNAL);
}

/* A stopped stub hears nothing; this SIGCONT is not forwarded. */
static void wake_stub(struct keeper *k)
{
	siginfo_t info = { .si_signo = SIGCONT, .si_code = SI_QUEUE };

	info.si_pid = getpid();
	info.si_value.sival_ptr = (void *)(uintptr_t)STUB_CONTINUE_VALUE;
	syscall(SYS_pidfd_send_signal, k->pidfd, SIGCONT, &info, 0);
}

static void end_stub(struct keeper *k, uint32_t status)
{
	if (k->stub_gone)
		return;
	k->stub_ending = true;
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
		pidfd_signal(k->pidfd, SIGKILL);
	else if (WIFSIGNALED(status))
		keeper_command(k, STUB_DIE, (uint32_t)WTERMSIG(status));
	else
		keeper_command(k, STUB_EXIT, (uint32_t)WEXITSTATUS(status));
	if (stub_state(k) == 'T')
		wake_stub(k);
}

void keeper_tell(struct keeper *k, Gw__HomeKind kind)
{
	Gw__HomeMessage m = GW__HOME_MESSAGE__INIT;

	m.kind = kind;
	session_send(&k->session, &m);
}

static void forward(struct keeper *k, struct stub_message *s)
{
	Gw__HomeMessage m = GW__HOME_MESSAGE__INIT;
	siginfo_t info;

	memcpy(&info, s->info, sizeof(info));
	m.kind = GW__HOME_KIND__HOME_SIGNAL;
	m.signal = s->value;
	m.info = (ProtobufCBinaryData){ STUB_INFO_BYTES, s->info };
	/* What a terminal's key makes is for all of the foreground group, of which only this one has a stub. */
	m.group = info.si_code == CODE_KERNEL && (s->value == SIGINT || s->value == SIGQUIT || s->value == SIGTSTP || s->value == SIGHUP);
	session_send(&k->session, &m);
	if (s->value == SIGCONT) {
		k->continued = k->session.seq;
		k->stub_stopped = false; /* if it is, it has been stopped once more, of which the unit is to hear behind this */
	}
}

static void look_at_stub(struct keeper *k);

/* The terminal is the unit's again before it goes on, or it would be stopped when it reads there. A leader's own terminal tells the unit by itself that it is hung up. */
static bool is_for_unit(struct keeper *k, const struct stub_message *m)
{
	siginfo_t info;

	memcpy(&info, m->info, sizeof(info));
	if (m->value == SIGCONT) {
		k->unit_stopped = false;
		k->stop_due = 0;
		look_at_stub(k);
	}
	if (m->value == SIGWINCH)
		return !k->h->terminal.there;
	return !(k->h->leads && k->h->controls && info.si_code == CODE_KERNEL && (m->value == SIGHUP || m->value == SIGCONT));
}

void keeper_stub_killed(struct keeper *k)
{
	close_fdp(&k->h->stub);
	k->stub_gone = true;
	terminal_leave(&k->h->terminal);
	if (!k->stub_ending)
		keeper_tell(k, GW__HOME_KIND__HOME_KILL);
}

static void hear_stub(struct keeper *k)
{
	struct stub_message m;

	for (;;) {
		ssize_t n = recv(k->h->stub, &m, sizeof(m), MSG_DONTWAIT);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n != (ssize_t)sizeof(m)) {
			keeper_stub_killed(k);
			return;
		}
		if (back_hear_stub(k, &m))
			return; /* the socket may be at its end by now, which would mean nothing */
		if (m.kind != STUB_SIGNAL || m.value < 1 || m.value > STUB_SIGNALS)
			continue;
		if (is_for_unit(k, &m))
			forward(k, &m);
	}
}

/* A leader's terminal is its own: whatever group is in the foreground is of the unit. So is one that is no session's. */
static bool has_foreground(const struct keeper *k, const struct stub_stat *stat)
{
	if (stat->state == 'T' || stat->state == 'X' || k->unit_stopped)
		return false;
	return !k->h->controls ? k->free_terminal : k->h->leads || stat->foreground == stat->group;
}

static void update_terminal(struct keeper *k, const struct stub_stat *stat)
{
	struct terminal *t = &k->h->terminal;
	struct channel *ch = t->there ? channels_find(&k->h->channels, t->channel) : NULL;

	if (!ch || back_holds_relays(k))
		return;
	k->group = stat->group;
	if (!k->ended && !k->stop_due)
		terminal_update(t, has_foreground(k, stat), &k->session);
	ch->paused = !t->raw || k->ended || k->stop_due;
	if (terminal_release(t))
		channel_put(ch, '\r', &k->session);
}

/* Keys that make a signal make it in the whole foreground group at home: of those that are not the unit's, too. */
static void see_keys(void *arg, const uint8_t *data, size_t len)
{
	struct keeper *k = arg;

	if (!k->h->controls || k->h->leads)
		return;
	for (size_t i = 0; i < len; i++) {
		int number = terminal_signal_of(&k->h->terminal, data[i]);

		if (number)
			signal_group(k->group, k->h->pid, number);
	}
}

static void take_data(struct keeper *k, const Gw__HomeMessage *m)
{
	static uint8_t data[CHANNEL_DATA_MAX + 1];
	Gw__HomeMessage changed = *m, taken = GW__HOME_MESSAGE__INIT;

	if (!k->h->terminal.there || m->channel != k->h->terminal.channel) {
		channels_handle(&k->h->channels, m, &k->session);
		return;
	}
	memcpy(data, m->data.data, m->data.len);
	changed.data = (ProtobufCBinaryData){ terminal_undo_output(&k->h->terminal, data, m->data.len), data };
	channels_handle(&k->h->channels, &changed, &k->session);
	if (changed.data.len >= m->data.len)
		return;
	taken.kind = GW__HOME_KIND__HOME_TAKEN;
	taken.channel = m->channel;
	taken.count = (uint32_t)(m->data.len - changed.data.len);
	session_send(&k->session, &taken);
}

static void look_at_stub(struct keeper *k)
{
	struct stub_stat stat = { .state = 'X' };
	bool stopped;

	if (back_has_stub(k))
		return;
	if (!k->stub_gone)
		keeper_read_stat(k, &stat);
	stopped = stat.state == 'T';

	if (stopped && !k->stub_stopped && !k->unit_stopped) {
		keeper_tell(k, GW__HOME_KIND__HOME_STOP);
		k->stopped = k->session.seq;
	}
	k->stub_stopped = stopped;
	update_terminal(k, &stat);
}

/* --- the unit --- */

static void follow(struct keeper *k, const Gw__HomeMessage *m)
{
	session_output(&k->session, NULL); /* that this has been read */
	session_renew(&k->session, m->ack);
	k->continued = k->stopped = 0;
	snprintf(k->h->host, sizeof(k->h->host), "%s", m->host);
	memcpy(&k->h->address, m->address.data, sizeof(k->h->address));
	memcpy(k->h->mig_id, m->mig_id.data, sizeof(k->h->mig_id));
	k->next_try_ns = 0;
	k->unknown = 0;
	keeper_show_host(k);
}

void keeper_keep_typed(void *arg, const Gw__HomeMessage *m)
{
	struct keeper *k = arg;

	if (m->kind == GW__HOME_KIND__HOME_DATA && k->h->terminal.there && m->channel == k->h->terminal.channel)
		terminal_take_back(&k->h->terminal, m);
}

/* What was on its way to the unit has been handled before this, or never is. */
static void take_end(struct keeper *k, uint32_t status)
{
	k->ended = true;
	k->status = status;
	session_each_kept(&k->session, keeper_keep_typed, k);
	session_confirm(&k->session, UINT64_MAX);
}

static void handle(void *arg, const Gw__HomeMessage *m)
{
	struct keeper *k = arg;

	if (back_handle(k, m))
		return;
	switch (m->kind) {
	case GW__HOME_KIND__HOME_ENDED:
		take_end(k, m->status);
		break;
	case GW__HOME_KIND__HOME_STOPPED:
		if (m->ack < k->continued) /* it will go on: what it has heard of since makes it */
			break;
		k->unit_stopped = true;
		k->stop_due = m->signal;
		break;
	case GW__HOME_KIND__HOME_TERMIOS:
		terminal_take_modes(&k->h->terminal, m);
		break;
	case GW__HOME_KIND__HOME_UNREAD:
		terminal_take_back(&k->h->terminal, m);
		break;
	case GW__HOME_KIND__HOME_DATA:
		take_data(k, m);
		break;
	case GW__HOME_KIND__HOME_CONTINUED:
		if (m->ack < k->stopped) /* it will be stopped */
			break;
		k->stopped = 0;
		k->unit_stopped = false;
		k->stop_due = 0;
		if (!k->stub_gone && stub_state(k) == 'T')
			wake_stub(k);
		break;
	case GW__HOME_KIND__HOME_MOVED:
		follow(k, m);
		break;
	default:
		channels_handle(&k->h->channels, m, &k->session);
		break;
	}
}

/* --- the connection --- */

static void connect_there(struct keeper *k)
{
	cleanup_close int fd = conn_connect(&k->h->address, CONNECT_MS, NULL);
	Gw__Hello hello;

	k->next_try_ns = clock_ns(CLOCK_MONOTONIC) + RETRY_MS * 1000000ull;
	if (fd < 0)
		return;
	hello_fill(&hello);
	hello.role = ROLE_HOME;
	hello.node_name = k->h->self_name;
	hello.mig_id = (ProtobufCBinaryData){ sizeof(k->h->mig_id), k->h->mig_id };
	if (hello_send(fd, &hello, NULL) == 0)
		session_attach(&k->session, take_fd(&fd));
}

static void lose(struct keeper *k, int code, const struct err *e)
{
	bool heard = k->session.resumed;

	log_debug("event=home-link-broken unit=%s text=\"%s\"", k->h->unit, e->message);
	session_detach(&k->session);
	k->unknown = heard ? 0 : code == -ENOENT ? k->unknown + 1 : k->unknown;
	if (k->unknown < UNKNOWN_TRIES)
		return;
	log_error("event=unit-lost unit=%s host=%s text=\"%s\"", k->h->unit, k->h->host, e->message);
	take_end(k, k->ended ? k->status : SIGKILL);
}

static void session_step(struct keeper *k, short revents)
{
	struct err e = ERR_INIT;
	int ret = 0;

	if (revents & (POLLIN | POLLHUP | POLLERR))
		ret = session_input(&k->session, handle, k, &e);
	if (ret >= 0)
		ret = session_output(&k->session, &e);
	if (ret < 0)
		lose(k, ret, &e);
}

/* All that the unit has written has been passed on, and what was typed and has not reached it is here again. */
static bool is_settled(const struct keeper *k)
{
	return channels_flushed(&k->h->channels) && (!k->h->terminal.there || k->ended || session_settled(&k->session));
}

/* Then its stop, or its end, shows here. */
static void finish(struct keeper *k)
{
	if ((!k->ended && !k->stop_due) || k->over || back_has_stub(k) || !is_settled(k))
		return;
	if (k->stop_due && !k->ended) {
		terminal_leave(&k->h->terminal);
		/* A stub that was stopped first and is not any more has been continued, and is about to say so. */
		if (!k->stub_gone && stub_state(k) != 'T' && k->stopped <= k->continued) {
			if (k->h->init)
				pidfd_signal(k->pidfd, SIGSTOP);
			else
				keeper_command(k, STUB_STOP, k->stop_due);
		}
		k->stop_due = 0;
		return;
	}
	terminal_leave(&k->h->terminal);
	end_stub(k, k->status);
	k->over = true;
}

/* How long a look at the stub may be put off: every unit of this host that is elsewhere has a process that does this. */
static int tick_ms(const struct keeper *k)
{
	bool quiet = k->session.fd >= 0 && !k->h->terminal.there && !k->ended && !k->stop_due && !back_is_under_way(k);

	return quiet ? QUIET_TICK_MS : TICK_MS;
}

#define POLL_FIXED (3 + BACK_POLL)

static void loop_once(struct keeper *k)
{
	static struct pollfd p[POLL_FIXED + CHANNELS_MAX];
	struct channels *c = &k->h->channels;
	size_t n = back_holds_relays(k) ? 0 : c->n;

	if (k->session.fd < 0 && clock_ns(CLOCK_MONOTONIC) >= k->next_try_ns)
		connect_there(k);
	p[0] = (struct pollfd){ back_has_stub(k) ? -1 : k->h->stub, POLLIN, 0 };
	p[1] = (struct pollfd){ k->session.fd, POLLIN | (session_wants_out(&k->session) ? POLLOUT : 0), 0 };
	p[2] = (struct pollfd){ k->tracer.signals, POLLIN, 0 };
	back_poll(k, p + 3);
	if (n)
		channels_poll(c, p + POLL_FIXED);
	poll(p, POLL_FIXED + n, tick_ms(k));
	tracer_step(&k->tracer);
	if (k->h->terminal.there)
		look_at_stub(k); /* who reads it */
	if (n)
		channels_step(c, p + POLL_FIXED, &k->session);
	if (p[0].revents)
		hear_stub(k);
	back_step(k, p + 3);
	look_at_stub(k);
	finish(k);
	if (p[1].fd >= 0 && p[1].fd == k->session.fd)
		session_step(k, p[1].revents);
}

/* Until the other side has read that its news has come; a second is enough. */
static void say_goodbye(struct keeper *k)
{
	for (int i = 0; i < 20 && session_wants_out(&k->session); i++) {
		if (session_output(&k->session, NULL) < 0)
			break;
		usleep(1000);
	}
	if (k->session.fd >= 0)
		shutdown(k->session.fd, SHUT_WR);
}

static void open_terminal(struct keeper *k)
{
	for (size_t i = 0; i < k->h->channels.n; i++) {
		struct channel *ch = &k->h->channels.v[i];

		if (!(ch->kind & CHANNEL_TERMINAL))
			continue;
		terminal_open(&k->h->terminal, ch->id, ch->fd);
		k->free_terminal = !k->h->controls && !is_controlling(ch->fd);
		ch->paused = true;
		ch->skip = k->h->typed;
		ch->seen = see_keys;
		ch->arg = k;
	}
}

/* Nothing can be done with one that is not traced. */
static void trace_stub(struct keeper *k)
{
	struct err e = ERR_INIT;

	if (tracer_begin(&k->tracer, k->h->pid, &e) == 0)
		return;
	log_error("event=stub-lost unit=%s text=\"%s\"", k->h->unit, e.message);
	pidfd_signal(k->pidfd, SIGKILL);
}

/* Who asks for credentials (SO_PASSCRED) sees the program's. */
static void set_sender(const struct home *h, int32_t sender[3])
{
	sender[0] = h->pid ? h->pid : getpid();
	sender[1] = (int32_t)h->uid;
	sender[2] = (int32_t)h->gid;
}

void keeper_take_client(struct keeper *k, const struct door_connect *client, int fd)
{
	int32_t sender[3];

	set_sender(k->h, sender);
	listener_take(&k->h->channels, client, fd, sender, &k->session);
}

static void __attribute__((noreturn)) keep(struct home *h)
{
	static struct keeper k;
	struct stub_message start = { .kind = STUB_START };

	k = (struct keeper){ .h = h, .tracer = TRACER_NONE, .session = SESSION_INIT, .back = BACK_INIT };
	k.stub_gone = h->stub < 0;
	k.pidfd = k.stub_gone ? -1 : pidfd_open_process(h->pid, NULL);
	k.stat = k.stub_gone ? -1 : open_stat(h->pid);
	if (h->traced && !k.stub_gone)
		trace_stub(&k);
	back_open(&k);
	open_terminal(&k);
	for (size_t i = 0; i < h->channels.n; i++)
		if (h->channels.v[i].kind & CHANNEL_SOCKET)
			set_sender(h, h->channels.v[i].sender);
	if (h->killed)
		keeper_tell(&k, GW__HOME_KIND__HOME_KILL);
	memcpy(start.start.skip, h->skip, sizeof(start.start.skip));
	(void)!send(h->stub, &start, sizeof(start), MSG_NOSIGNAL);
	while (!k.over)
		loop_once(&k);
	tracer_end(&k.tracer);
	back_close(&k);
	say_goodbye(&k);
	_exit(0);
}

/* --- starting --- */

static bool is_wanted(const void *arg, int fd)
{
	const struct home *h = arg;

	for (size_t i = 0; i < h->channels.n; i++)
		if (h->channels.v[i].fd == fd || h->channels.v[i].original == fd)
			return true;
	return fd == h->stub;
}

static void become_keeper(struct home *h)
{
	keep_begin("godwit-home", is_wanted, h);
	log_set_context("side=home unit=%s", h->unit);
}

int home_start(struct home *h, struct err *e)
{
	pid_t daemon = getppid();
	int ret = keep_fork();

	if (ret < 0)
		return err_sys(e, ret, "fork");
	if (ret == 0) {
		keep_host_namespaces(daemon);
		become_keeper(h);
		keep(h);
	}
	close_fdp(&h->stub);
	channels_close(&h->channels);
	return 0;
}

bool home_is_awaited(pid_t ppid, pid_t daemon)
{
	return ppid != 1 && ppid != daemon;
}
