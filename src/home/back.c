/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* back.c - the unit comes home; see back.h */
#include "home/back.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/log.h"
#include "base/util.h"
#include "home/door.h"
#include "home/home_internal.h"
#include "kern/fdpass.h"
#include "kern/remote.h"
#include "kern/trace.h"

#define MOVED_MS 10000
#define RECORD_MS 1000
#define SEIZE_TRIES 3000 /* of a millisecond: the worker's tracing ends a moment after its descriptors */
#define MAIN_SLOT 1u     /* of the root's main thread (migrate/skeleton.c) */
#define FDS_MAX 4

/* --- ASK --- */

static const char *why_not(struct keeper *k)
{
	struct stub_stat stat;

	if (k->back.state != BACK_NONE)
		return "another migration is bringing it home";
	if (k->ended || k->over)
		return "it has ended";
	if (back_terminal_why_not(k))
		return back_terminal_why_not(k);
	if (!k->h->pid)
		return NULL;
	if (k->stub_gone || k->h->stub < 0)
		return "its stub is gone";
	if (k->h->traced)
		return "its stub has system call filters, which would be its own twice";
	keeper_read_stat(k, &stat);
	if (stat.state == 'T' || k->unit_stopped)
		return "it is stopped";
	return owner_can_be_root(k->h->pid) ? NULL : "its stub has not the rights of root, and cannot get them (no_new_privs, capabilities)";
}

static void answer(struct keeper *k, int32_t pid, const char *why)
{
	struct door_answer a = { .pid = pid };

	snprintf(a.why, sizeof(a.why), "%s", why ? why : "");
	if (k->back.worker >= 0)
		door_send(k->back.worker, &a, sizeof(a), NULL, 0, NULL);
}

static void pause_reading(struct keeper *k, bool pause)
{
	for (size_t i = 0; i < k->h->channels.n; i++)
		if (!(k->h->channels.v[i].kind & CHANNEL_TERMINAL))
			k->h->channels.v[i].paused = pause;
}

static void hear_ask(struct keeper *k)
{
	const struct channels *c = &k->h->channels;
	struct door_answer a = { .pid = k->h->pid };
	const char *no = why_not(k);
	struct stub_stat stat = { 0 };

	if (no) {
		answer(k, -EPERM, no);
		return;
	}
	if (k->h->pid && k->h->controls)
		keeper_read_stat(k, &stat);
	k->back.foreground = stat.foreground;
	k->back.state = BACK_ASKED;
	pause_reading(k, true);
	for (size_t i = 0; i < c->n; i++)
		a.relays += c->v[i].original >= 0;
	door_send(k->back.worker, &a, sizeof(a), NULL, 0, NULL);
	for (size_t i = 0; i < c->n; i++) {
		const struct door_relay r = { .id = c->v[i].id, .kind = c->v[i].kind };

		if (c->v[i].original >= 0)
			door_send(k->back.worker, &r, sizeof(r), &c->v[i].original, 1, NULL);
	}
}

/* --- STUB --- */

static int map_scratch(struct scratch *s, int memfd)
{
	struct stat st;

	if (fstat(memfd, &st) < 0 || st.st_size < (off_t)SCRATCH_SLOTS)
		return -EPROTO;
	*s = (struct scratch){ .memfd = memfd, .size = (size_t)st.st_size };
	s->map = mmap(NULL, s->size, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
	if (s->map == MAP_FAILED) {
		*s = (struct scratch){ .memfd = -1 };
		return -ENOMEM;
	}
	return 0;
}

static int send_become(struct keeper *k, const int fds[3], struct err *e)
{
	struct stub_message m = { .kind = STUB_BECOME };
	int list[STUB_BECOME_FDS] = { fds[0], fds[1], fds[2], home_program_of_root(e) };
	int ret = list[3] < 0 ? list[3] : door_send(k->h->stub, &m, sizeof(m), list, STUB_BECOME_FDS, e);

	close_fdp(&list[3]);
	return ret;
}

static void hear_skeleton(struct keeper *k, int fds[FDS_MAX], size_t n)
{
	struct err e = ERR_INIT;
	int ret = n == STUB_BECOME_FDS - 1 && k->back.state == BACK_ASKED && k->h->pid ? 0 : err_set(&e, -EPROTO, "not now");

	owner_forget(&k->back.owner);
	if (ret == 0)
		ret = owner_read(k->h->pid, &k->back.owner, &e);
	if (ret == 0)
		ret = send_become(k, fds, &e);
	if (ret == 0)
		ret = map_scratch(&k->back.scratch, fds[0]);
	if (ret < 0) {
		answer(k, ret, e.message);
		return;
	}
	fds[0] = -1;
	k->back.state = BACK_TAKING;
}

/* --- SETTLE --- */

struct collecting {
	const struct channel *channel;
	struct refill *refill;
};

static void add_kept(void *arg, const Gw__HomeMessage *m)
{
	struct collecting *c = arg;

	if (m->kind == GW__HOME_KIND__HOME_DATA && m->channel == c->channel->id)
		refill_add(c->refill, m->data.len ? (const void *)m->data.data : "", MAX(m->data.len, (size_t)1)); /* also an empty datagram counts */
}

/* What lay in the pipe at the unit's host. */
void keeper_read_rest(const struct keeper *k, uint32_t id, struct refill *r)
{
	struct door_rest head;
	int file = k->back.rest;

	for (off_t at = 0; pread(file, &head, sizeof(head), at) == (ssize_t)sizeof(head); at += (off_t)(sizeof(head) + head.len)) {
		cleanup_free uint8_t *data = NULL;

		if (head.id != id || !head.len)
			continue;
		data = malloc(head.len);
		if (!data || pread(file, data, head.len, at + (off_t)sizeof(head)) != (ssize_t)head.len)
			abort();
		refill_add(r, data, head.len);
	}
}

/* What is on its way in a relay, in its order. */
static int settle_channel(struct keeper *k, const struct channel *ch, struct refill *r, struct err *e)
{
	struct collecting c = { ch, r };

	*r = REFILL_INIT;
	if (ch->original < 0)
		return 0;
	if (ch->kind & CHANNEL_TERMINAL) /* back_terminal.c */
		return ch->done < ch->have ? err_set(e, -EAGAIN, "the terminal: not all that was written has been shown") : 0;
	r->fd = ch->original;
	if (ch->kind & CHANNEL_SOCKET) { /* nothing can be put back into one */
		session_each_kept(&k->session, add_kept, &c);
		return r->len || ch->done < ch->have ? err_set(e, -EAGAIN, "a relayed unix socket: not all that is on its way has been read") : 0;
	}
	if (ch->kind & CHANNEL_READS) { /* the unit reads */
		keeper_read_rest(k, ch->id, r);
		session_each_kept(&k->session, add_kept, &c);
	} else {
		if (ch->done < ch->have)
			refill_add(r, ch->buffer + ch->done, ch->have - ch->done);
		keeper_read_rest(k, ch->id, r);
	}
	return refill_check_room(r, e);
}

static void drop_refills(struct keeper *k)
{
	for (size_t i = 0; k->back.refills && i < k->h->channels.n; i++)
		refill_free(&k->back.refills[i]);
	free(k->back.refills);
	k->back.refills = NULL;
}

static void settle(struct keeper *k)
{
	const struct channels *c = &k->h->channels;
	struct err e = ERR_INIT;
	int ret = 0;

	if (k->session.handled < k->back.sent)
		return;
	session_confirm(&k->session, k->back.handled);
	k->back.refills = calloc(c->n + 1, sizeof(*k->back.refills));
	if (!k->back.refills)
		abort();
	for (size_t i = 0; i < c->n; i++)
		k->back.refills[i] = REFILL_INIT;
	for (size_t i = 0; i < c->n && ret == 0; i++)
		ret = settle_channel(k, &c->v[i], &k->back.refills[i], &e);
	if (ret == 0)
		k->back.state = BACK_SETTLED;
	answer(k, ret < 0 ? ret : k->h->pid, e.message);
}

static void hear_settle(struct keeper *k, const struct door_settle *s, int *file)
{
	bool ready = k->back.state == BACK_TAKEN || (k->back.state == BACK_ASKED && !k->h->pid);

	if (!ready || *file < 0) {
		answer(k, -EPROTO, "not now");
		return;
	}
	k->back.handled = s->handled;
	k->back.sent = s->sent;
	close_fdp(&k->back.rest);
	k->back.rest = take_fd(file);
	k->back.state = BACK_SETTLING;
	settle(k);
}

/* --- BACK --- */

/* What went to the copy that was left, and did not reach it. */
static void deliver_kept(void *arg, const Gw__HomeMessage *m)
{
	const struct keeper *k = arg;
	siginfo_t info;

	if (m->kind == GW__HOME_KIND__HOME_KILL || m->kind == GW__HOME_KIND__HOME_STOP)
		pidfd_signal(k->pidfd, m->kind == GW__HOME_KIND__HOME_KILL ? SIGKILL : SIGSTOP);
	if (m->kind != GW__HOME_KIND__HOME_SIGNAL)
		return;
	if (m->info.len == sizeof(info)) {
		memcpy(&info, m->info.data, sizeof(info));
		if (info.si_code < 0 && syscall(SYS_pidfd_send_signal, k->pidfd, (int)m->signal, &info, 0) == 0)
			return;
	}
	pidfd_signal(k->pidfd, (int)m->signal);
}

static void hear_back(struct keeper *k)
{
	struct channels *c = &k->h->channels;

	if (k->back.state != BACK_SETTLED) {
		answer(k, -EPROTO, "not now");
		return;
	}
	back_give_terminal(k);
	for (size_t i = 0; i < c->n; i++) {
		struct err e = ERR_INIT;
		int ret = c->v[i].kind & (CHANNEL_SOCKET | CHANNEL_TERMINAL) ? 0 : c->v[i].kind & CHANNEL_READS ? refill_before(&k->back.refills[i], &e) : refill_behind(&k->back.refills[i], &e);

		if (ret < 0)
			log_error("event=relay-lost unit=%s text=\"%s\"", k->h->unit, e.message);
		channel_allow_rights(&c->v[i]);
	}
	drop_refills(k);
	if (k->h->pid)
		session_each_kept(&k->session, deliver_kept, k);
	channels_close(c);
	close_fdp(&k->h->stub);
	k->stub_gone = true;
	k->back.state = BACK_DONE;
	k->back.deadline_ns = clock_ns(CLOCK_MONOTONIC) + MOVED_MS * 1000000ull;
	answer(k, k->h->pid, NULL);
}

/* --- it stays away --- */

static void start_again(struct keeper *k)
{
	struct stub_message m = { .kind = STUB_START };

	m.start.owned = 1;
	memcpy(m.start.uid, k->back.owner.uid, sizeof(m.start.uid));
	(void)!send(k->h->stub, &m, sizeof(m), MSG_NOSIGNAL);
	keeper_show_host(k);
	if (k->unit_stopped)
		keeper_command(k, STUB_STOP, SIGSTOP);
}

static int seize(pid_t pid, struct err *e)
{
	int ret = -EPERM;

	for (int tries = 0; ret < 0 && tries < SEIZE_TRIES; tries++) {
		if (tries)
			usleep(1000);
		ret = trace_seize(pid, 0, e);
		if (ret == -ESRCH)
			break;
	}
	return ret;
}

/* The main thread, wherever it is, waits for lists of calls. */
static int enter_stub(struct keeper *k, struct err *e)
{
	struct scratch *s = &k->back.scratch;
	struct user_regs_struct regs;
	int ret = seize(k->h->pid, e);

	if (ret == 0)
		ret = trace_interrupt(k->h->pid, e);
	if (ret == 0)
		ret = trace_wait_stop(k->h->pid, e);
	if (ret == 0)
		ret = trace_get_regs(k->h->pid, &regs, e);
	if (ret == 0)
		ret = trace_set_mask(k->h->pid, UINT64_MAX, e);
	if (ret < 0)
		return ret;
	s->base = scratch_header(s)->base;
	s->arena_start = scratch_header(s)->arena;
	s->arena_end = s->size - s->arena_start;
	s->exec_delta = scratch_header(s)->exec_delta;
	*scratch_slot(s, MAIN_SLOT) = (struct slot){ 0 };
	ret = trace_enter_stub(k->h->pid, s, MAIN_SLOT, &regs, e);
	return ret < 0 ? ret : trace_detach(k->h->pid, e);
}

static int plant_again(struct keeper *k, struct err *e)
{
	struct task task = { .scratch = &k->back.scratch, .slot = MAIN_SLOT, .tid = k->h->pid, .wake = TASK_FUTEX, .bell_fd = -1 };
	const struct owner *o = &k->back.owner;
	struct batch *b;
	int ret = enter_stub(k, e);

	if (ret < 0)
		return ret;
	b = batch_new(&task);
	close_fdp(&k->h->stub);
	back_restore_foreground(k, b);
	batch_try(b, "setgroups", SYS_setgroups, o->n_groups, o->n_groups ? batch_data(b, o->groups, o->n_groups * sizeof(*o->groups)) : 0);
	batch_try(b, "setresgid", SYS_setresgid, o->gid[0], o->gid[1], o->gid[2]);
	ret = batch_run(b, e);
	if (ret == 0)
		ret = home_plant(k->h, b, k->pidfd, e);
	batch_free(b);
	return ret;
}

static bool is_committed(const struct keeper *k)
{
	return k->back.scratch.map && __atomic_load_n(&scratch_unit(&k->back.scratch)->state, __ATOMIC_ACQUIRE) == STATE_COMMITTED;
}

static void forget(struct keeper *k)
{
	close_fdp(&k->back.worker);
	close_fdp(&k->back.rest);
	if (k->back.scratch.map)
		scratch_free(&k->back.scratch);
	k->back.scratch = (struct scratch){ .memfd = -1 };
}

/* Whether the unit is here after all. Its worker is dead: where it had decided, its agent is about to write that down (agent/stub.c). */
static bool settle_back(struct keeper *k)
{
	const struct scratch *s = &k->back.scratch;

	if (scratch_unit_step(s, HANDOVER_DEST_ORPHANED))
		return false;
	for (unsigned waited_ms = 0; __atomic_load_n(&scratch_unit(s)->state, __ATOMIC_ACQUIRE) == STATE_DECIDED && waited_ms < RECORD_MS; waited_ms++)
		poll(NULL, 0, 1);
	if (scratch_unit_step(s, HANDOVER_RECORD_FAILED))
		log_error("event=undecided unit=%s text=\"whoever was to record that it is back has ended\"", k->h->unit);
	return is_committed(k);
}

/* The stub is one again. */
static void stay_away(struct keeper *k)
{
	struct scratch *s = &k->back.scratch;
	struct err e = ERR_INIT;
	int ret = 0;

	drop_refills(k);
	if (back_has_stub(k) && s->map) {
		if (settle_back(k)) {
			k->back.state = BACK_SETTLED;
			hear_back(k);
			return;
		}
		if (scratch_header(s)->base)
			ret = plant_again(k, &e);
		if (ret == 0)
			start_again(k);
	}
	if (ret < 0) {
		log_error("event=stub-lost unit=%s text=\"%s\"", k->h->unit, e.message);
		pidfd_signal(k->pidfd, SIGKILL);
		keeper_stub_killed(k);
	}
	pause_reading(k, false);
	k->back.state = BACK_NONE;
	forget(k);
}

/* --- the loop --- */

void back_open(struct keeper *k)
{
	struct err e = ERR_INIT;

	k->back.door = door_open(k->h->unit, &e);
	if (k->back.door < 0)
		log_warning("event=no-door unit=%s text=\"%s\"", k->h->unit, e.message);
}

void back_close(struct keeper *k)
{
	if (k->back.door >= 0)
		door_remove(k->h->unit);
	close_fdp(&k->back.door);
	close_fdp(&k->back.guest);
	forget(k);
	owner_forget(&k->back.owner);
}

bool back_is_under_way(const struct keeper *k)
{
	return k->back.state != BACK_NONE;
}

bool back_has_stub(const struct keeper *k)
{
	return k->h->pid && k->back.state >= BACK_TAKEN;
}

bool back_holds_relays(const struct keeper *k)
{
	return k->back.state >= BACK_SETTLED;
}

bool back_hear_stub(struct keeper *k, const struct stub_message *m)
{
	bool root = m->kind == STUB_READY && m->value == 0;

	if (m->kind != STUB_READY && m->kind != STUB_FAILED)
		return false;
	if (k->back.state != BACK_TAKING) { /* its worker has gone meanwhile */
		if (m->kind == STUB_READY)
			start_again(k);
		return true;
	}
	if (!root && m->kind == STUB_READY)
		start_again(k);
	k->back.state = root ? BACK_TAKEN : BACK_ASKED;
	answer(k, root ? k->h->pid : -EPERM, root ? NULL : "its stub could not become root");
	return true;
}

bool back_handle(struct keeper *k, const Gw__HomeMessage *m)
{
	switch (m->kind) {
	case GW__HOME_KIND__HOME_MOVED:
		if (k->back.state < BACK_TAKEN)
			return false;
		k->back.moved = true;
		return true;
	case GW__HOME_KIND__HOME_STOPPED:
	case GW__HOME_KIND__HOME_CONTINUED:
		if (!back_has_stub(k))
			return false;
		k->unit_stopped = m->kind == GW__HOME_KIND__HOME_STOPPED;
		return true;
	default:
		return k->back.state == BACK_DONE;
	}
}

void back_poll(const struct keeper *k, struct pollfd *p)
{
	bool watch = back_has_stub(k) && k->back.state < BACK_DONE && !k->stub_gone;

	p[0] = (struct pollfd){ k->back.door, POLLIN, 0 };
	p[1] = (struct pollfd){ k->back.worker, POLLIN, 0 };
	p[2] = (struct pollfd){ watch ? k->pidfd : -1, POLLIN, 0 };
	p[3] = (struct pollfd){ k->back.guest, POLLIN, 0 };
}

static void hear_worker(struct keeper *k)
{
	struct door_settle s = { 0 };
	int fds[FDS_MAX] = { -1, -1, -1, -1 };
	size_t n = 0;
	ssize_t got = door_receive(k->back.worker, &s, sizeof(s), fds, FDS_MAX, &n, NULL);

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0 && k->back.state == BACK_DONE)
		close_fdp(&k->back.worker);
	else if (got <= 0)
		stay_away(k);
	else if (s.word == DOOR_STUB)
		hear_skeleton(k, fds, n);
	else if (s.word == DOOR_SETTLE && got == (ssize_t)sizeof(s))
		hear_settle(k, &s, &fds[0]);
	else if (s.word == DOOR_BACK)
		hear_back(k);
	for (size_t i = 0; i < FDS_MAX; i++)
		close_fdp(&fds[i]);
}

static void say_where(struct keeper *k, int guest)
{
	struct door_where w = { .pid = k->h->pid, .stopped = k->unit_stopped };
	const char *line = strstr(k->h->line, ": "), *command = line ? strstr(line + 2, ": ") : NULL;

	memcpy(w.address, &k->h->address, sizeof(w.address));
	snprintf(w.host, sizeof(w.host), "%s", k->h->host);
	snprintf(w.command, sizeof(w.command), "%s", command ? command + 2 : "");
	door_send(guest, &w, sizeof(w), NULL, 0, NULL);
}

/* A worker that brings the unit home stays. */
static void hear_guest(struct keeper *k)
{
	struct door_connect client = { 0 };
	uint8_t word = 0;
	size_t n = 0;
	int fd = -1;
	ssize_t got = door_receive(k->back.guest, &client, sizeof(client), &fd, 1, &n, NULL);

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	word = client.word;
	if (got == (ssize_t)sizeof(client) && word == DOOR_CONNECT && fd >= 0 && k->back.state == BACK_NONE && !k->ended)
		keeper_take_client(k, &client, take_fd(&fd));
	close_fdp(&fd);
	if (got == 1 && word == DOOR_ASK && k->back.worker < 0) {
		k->back.worker = take_fd(&k->back.guest);
		hear_ask(k);
	} else if (got == 1 && word == DOOR_WHERE) {
		say_where(k, k->back.guest);
	}
	close_fdp(&k->back.guest);
}

/* Killed before it ran: who did that means the unit. */
static void see_death(struct keeper *k)
{
	if (is_committed(k)) {
		k->back.state = BACK_SETTLED;
		hear_back(k);
		return;
	}
	keeper_stub_killed(k);
	k->h->pid = 0;
}

void back_step(struct keeper *k, const struct pollfd *p)
{
	if (p[2].revents && back_has_stub(k) && k->back.state < BACK_DONE)
		see_death(k);
	if (p[1].revents && k->back.worker == p[1].fd)
		hear_worker(k);
	if (p[3].revents && k->back.guest == p[3].fd)
		hear_guest(k);
	if (p[0].revents) {
		close_fdp(&k->back.guest);
		k->back.guest = accept4(k->back.door, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	}
	if (k->back.state == BACK_SETTLING)
		settle(k);
	if (k->back.state == BACK_DONE && (k->back.moved || clock_ns(CLOCK_MONOTONIC) > k->back.deadline_ns))
		k->over = true;
}
