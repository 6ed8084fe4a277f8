/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* source_home.c - the stub, or the surrogate parent, of a unit that leaves; see source_home.h */
#include "migrate/source_home.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>

#include "base/log.h"
#include "base/util.h"
#include "home/hide.h"
#include "image/signal.h"
#include "kern/fdpass.h"
#include "migrate/pace.h"
#include "migrate/registry.h"
#include "migrate/source.h"
#include "wire/bridge.h"

#define HOLD_MS 2000
#define DIE_MS 2000

/* Parent, user and group. */
static int read_status(pid_t pid, pid_t *ret_ppid, uint32_t ret_ids[2], struct err *e)
{
	cleanup_fclose FILE *f = NULL;
	cleanup_free char *line = NULL;
	char path[64];
	size_t size = 0;
	int number;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	f = fopen(path, "re");
	if (!f)
		return err_sys(e, -errno, "%s", path);
	*ret_ppid = 0;
	while (getline(&line, &size, f) > 0) {
		if (sscanf(line, "PPid: %d", &number) == 1)
			*ret_ppid = number;
		sscanf(line, "Uid: %u", &ret_ids[0]);
		sscanf(line, "Gid: %u", &ret_ids[1]);
	}
	return 0;
}

static bool has_relays(const struct source *s)
{
	return fdtable_has_relays(s->unit.fds.msg);
}

static int ask_relays(struct source_home *sh, struct err *e)
{
	static struct door_relay list[DOOR_RELAYS_MAX];
	cleanup_close int door = door_connect(sh->door, e);
	const uint8_t word = DOOR_RELAYS;
	struct pollfd p = { door, POLLIN, 0 };
	ssize_t got;

	if (door < 0)
		return err_wrap(e, "the surrogate parent of the process");
	if (door_send(door, &word, 1, NULL, 0, e) < 0)
		return e->code;
	got = poll(&p, 1, HOLD_MS) > 0 ? door_receive(door, list, sizeof(list), NULL, 0, NULL, e) : 0;
	if (got <= 0)
		return err_set(e, -ETIMEDOUT, "the surrogate parent of the process does not answer");
	sh->known.v = calloc(DOOR_RELAYS_MAX, sizeof(*sh->known.v));
	if (!sh->known.v)
		return err_sys(e, ENOMEM, "relays");
	for (size_t i = 0; i < (size_t)got / sizeof(list[0]); i++)
		sh->known.v[sh->known.n++] = (struct fd_relay){ .id = list[i].id, .kind = list[i].kind & CHANNEL_TERMINAL ? RELAY_TERMINAL : RELAY_NONE, .ino = list[i].ino, .given = !(list[i].kind & (CHANNEL_TERMINAL | CHANNEL_SILENT)) };
	return 0;
}

/* A unit that is away from home keeps its relays; it cannot have one whose other end is here. */
static int name_relays(struct source *s, struct err *e)
{
	if (!fdtable_name_relays(&s->unit.fds, &s->home.known))
		return 0;
	refusals_add(s->refusals, "fd.outside", "a process of this host, which is not the unit's home, has its other end, and would stay behind",
		     "let the other process end first, or move the unit home before", "a pipe, socket or terminal of process %d", s->request->pid);
	return err_set(e, -EPERM, "process %d cannot move", s->request->pid);
}

/* Nobody waits for what is in an image, nor has the other end of anything in it. Who waits for the process here sees it killed, if it ends. */
static int refuse_relays(struct source *s, struct err *e)
{
	if (!has_relays(s))
		return 0;
	refusals_add(s->refusals, "image.relay", "a process outside has its other end, and will not be there when the image is restored",
		     "start the program with files or /dev/null instead: setsid PROGRAM < /dev/null > FILE 2>&1", "a pipe, socket or terminal of process %d", s->request->pid);
	return err_set(e, -EPERM, "process %d cannot be put into an image", s->request->pid);
}

/* Home has to reach the unit, and the unit home. */
static int refuse_beyond(struct source *s, const char *unit, struct err *e)
{
	char cause[400], home[HELLO_NAME_MAX + 1];
	bool to = bridge_is_address(&s->request->dest);

	snprintf(home, sizeof(home), "%.*s", (int)MIN(strcspn(unit, ":"), (size_t)HELLO_NAME_MAX), unit);
	if (!strcmp(home, s->request->dest_name) || !(to || s->request->home_is_bridged))
		return 0;
	snprintf(cause, sizeof(cause), "its home, %s, must be able to reach it, and only the bridge between %s and %s leads %s", home, to ? s->request->dest_name : home, s->request->self_name,
		 to ? "to where it would be" : "there from here");
	refusals_add(s->refusals, "bridge.beyond", cause, "move it home first, and from there to that host", "unit %s", unit);
	return err_set(e, -EPERM, "unit %s cannot move", unit);
}

int source_home_look(struct source *s, struct err *e)
{
	struct source_home *sh = &s->home;
	pid_t pid = s->request->pid;
	struct registry_entry entry;
	bool awaited;
	int ret = read_status(pid, &sh->parent, sh->ids, e);

	if (ret < 0)
		return ret;
	sh->leads = s->unit.procs[0].process->sid == s->unit.procs[0].process->pid;
	if (s->request->image)
		return refuse_relays(s, e);
	if (registry_lookup_foreign(pid, &entry, NULL) == 0) {
		if ((entry.home[0] || s->unit.view) && refuse_beyond(s, entry.unit, e) < 0)
			return e ? e->code : -EPERM;
		if (!entry.home[0])
			return name_relays(s, e);
		sh->kind = HOME_FOLLOW;
		sh->parent = entry.parent;
		s->unit.fds.relays_travel = true;
		snprintf(sh->door, sizeof(sh->door), "%s", entry.home);
		ret = ask_relays(sh, e);
		return ret < 0 ? ret : name_relays(s, e);
	}
	/* A session's leader is needed at home as long as its terminal is: its end would hang it up. */
	awaited = home_is_awaited(sh->parent, getppid()) || (sh->leads && fdtable_relayed_terminal(s->unit.fds.msg) >= 0);
	if (awaited)
		sh->kind = HOME_STUB;
	else if (has_relays(s) || (!s->unit.ns && fdtable_has_unix_listeners(s->unit.fds.msg)))
		sh->kind = HOME_RELAYS;
	return 0;
}

/* What the unit has written into one that it has closed since the surrogate parent was asked is not home yet. */
static int check_closed(struct source *s, struct err *e)
{
	struct fd_relays now = { 0 };
	int ret = fdtable_list_relays(&s->unit.fds, &now, e);

	for (size_t i = 0; i < s->home.known.n && ret == 0; i++) {
		bool found = !s->home.known.v[i].given;

		for (size_t k = 0; k < now.n && !found; k++)
			found = now.v[k].id == s->home.known.v[i].id;
		if (!found)
			ret = err_set(e, -EAGAIN, "the unit has closed a relayed pipe, socket or terminal a moment ago; try again");
	}
	fd_relays_free(&now);
	return ret;
}

int source_home_check(struct source *s, struct err *e)
{
	if (s->home.kind == HOME_NONE && has_relays(s))
		return err_set(e, -EAGAIN, "process %d has got a pipe since the offer whose other end is outside", s->request->pid);
	if (s->home.kind == HOME_FOLLOW && name_relays(s, e) < 0)
		return e ? e->code : -EPERM;
	if (s->home.kind == HOME_FOLLOW && check_closed(s, e) < 0)
		return e ? e->code : -EAGAIN;
	return fdtable_check_relays(&s->unit.fds, e);
}

void source_home_offer(const struct source *s, Gw__Offer *offer)
{
	offer->home = s->home.kind != HOME_NONE;
	offer->home_parent = offer->home ? s->home.parent : 0;
	offer->home_leads = s->home.leads;
}

int source_home_hold(struct source *s, struct err *e)
{
	struct source_home *sh = &s->home;
	struct door_target target = { .word = DOOR_HOLD };
	struct pollfd p = { .events = POLLIN };
	struct door_held held = { 0 };

	if (sh->kind != HOME_FOLLOW)
		return 0;
	memcpy(target.mig_id, s->mig_id, sizeof(target.mig_id));
	memcpy(target.address, &s->request->dest, sizeof(target.address));
	snprintf(target.host, sizeof(target.host), "%s", hello_name_valid(s->peer->node_name) ? s->peer->node_name : "");
	sh->mover = p.fd = door_connect(sh->door, e);
	if (sh->mover < 0)
		return err_wrap(e, "the surrogate parent of process %d", s->request->pid);
	if (door_send(sh->mover, &target, sizeof(target), NULL, 0, e) < 0)
		return e->code;
	if (poll(&p, 1, HOLD_MS) <= 0 || door_receive(sh->mover, &held, sizeof(held), NULL, 0, NULL, NULL) != (ssize_t)sizeof(held) || held.word != DOOR_HELD)
		return err_set(e, -EAGAIN, "the surrogate parent of process %d does not answer", s->request->pid);
	sh->handled = held.handled;
	sh->sent = held.sent;
	fd_relays_free(&sh->known);
	return ask_relays(sh, e); /* clients at home may have come, or gone, since the offer */
}

void source_home_stay(struct source *s)
{
	if (s->home.kind == HOME_FOLLOW)
		close_fdp(&s->home.mover);
}

static unsigned channel_kind(enum relay_kind kind)
{
	if (kind == RELAY_TERMINAL)
		return CHANNEL_READS | CHANNEL_WRITES | CHANNEL_TERMINAL;
	if (kind == RELAY_SOCKET)
		return CHANNEL_READS | CHANNEL_WRITES | CHANNEL_SOCKET;
	return kind == RELAY_UNIT_READS ? CHANNEL_READS : CHANNEL_WRITES;
}

/* What has been typed and not read has gone with the unit. */
static void note_terminal(struct source *s)
{
	const Gw__FdTable *t = s->unit.fds.msg;
	int index = fdtable_relayed_terminal(t);
	const Gw__FdPty *p;
	struct channel *ch = channels_find(&s->home.home.channels, RELAY_TERMINAL_ID);

	if (index < 0 || !ch)
		return;
	p = t->ptys[index];
	s->home.home.typed = p->slave->queue.len;
	s->home.home.leads = s->home.leads;
	s->home.home.controls = p->inherited || p->session > 0;
	s->home.home.foreground = p->inherited && p->foreground > 0;
	terminal_begin(&s->home.home.terminal, ch->fd, (const void *)p->termios.data, p->inherited ? p->foreground > 0 : p->session > 0);
}

/* The ends at home become godwit-home's; the frozen process has them still. */
static void take_relays(struct source *s)
{
	struct fd_relays r = { 0 };
	struct err e = ERR_INIT;

	s->home.home = HOME_INIT;
	s->home.home.uid = s->home.ids[0];
	s->home.home.gid = s->home.ids[1];
	if (fdtable_list_relays(&s->unit.fds, &r, &e) < 0)
		log_error("event=relays-lost text=\"%s\"", e.message);
	for (size_t i = 0; i < r.n; i++) {
		int fd = r.v[i].process == RELAY_OWN ? fcntl(r.v[i].fd, F_DUPFD_CLOEXEC, 0) : pidfd_get(s->unit.procs[r.v[i].process].pidfd, r.v[i].fd, &e);

		if (fd < 0 || channels_add(&s->home.home.channels, r.v[i].id, channel_kind(r.v[i].kind) | CHANNEL_HOME, fd, &e) < 0)
			log_error("event=relay-lost fd=%d text=\"%s\"", r.v[i].fd, e.message);
	}
	note_terminal(s);
	fd_relays_free(&r);
}

void source_home_left(struct source *s)
{
	const uint8_t word = DOOR_MOVED;

	if (s->home.kind == HOME_FOLLOW && s->home.mover >= 0)
		door_send(s->home.mover, &word, 1, NULL, 0, NULL);
	if (s->home.kind == HOME_FOLLOW)
		close_fdp(&s->home.mover);
	if (s->home.kind == HOME_STUB || s->home.kind == HOME_RELAYS)
		take_relays(s);
	if (s->home.kind == HOME_STUB)
		__atomic_store_n(&scratch_header(&s->procs[0].agent.scratch)->home, HOME_PENDING, __ATOMIC_RELEASE);
}

static void count_pending(struct home *h, const ProtobufCBinaryData *queue)
{
	for (size_t at = 0; at + SIGNAL_INFO_LEN <= queue->len; at += SIGNAL_INFO_LEN) {
		int number;

		memcpy(&number, queue->data + at, sizeof(number));
		if (number >= 1 && number <= STUB_SIGNALS && h->skip[number] < UINT8_MAX)
			h->skip[number]++;
	}
}

/* Their deaths, by the main thread's execve, must write nothing into memory that is still to be sent. */
static int quiet_threads(struct source_process *p, struct err *e)
{
	int ret = 0;

	for (size_t i = 1; i < p->nparked; i++) {
		task_command(&p->parked[i].task, COMMAND_DIE);
		task_wake(&p->parked[i].task, NULL);
	}
	for (size_t i = 1; i < p->nparked && ret == 0; i++)
		ret = task_wait(&p->parked[i].task, DIE_MS, e);
	return ret;
}

/* Among many that want a CPU the thread would wait for each of its steps as long as all of them, and so would this worker. */
static int plant_at_once(struct home *h, const struct source_process *root, struct err *e)
{
	id_t pid = (id_t)root->u->pid;
	int before, ret;
	bool known;

	errno = 0;
	before = getpriority(PRIO_PROCESS, pid);
	known = errno == 0;
	if (known)
		setpriority(PRIO_PROCESS, pid, PACE_HURRY_NICE);
	ret = home_plant(h, root->parked[0].batch, root->u->pidfd, e);
	if (known)
		setpriority(PRIO_PROCESS, pid, before);
	return ret;
}

static int make_stub(struct source *s, struct err *e)
{
	struct source_process *root = &s->procs[0];
	struct home *h = &s->home.home;
	int ret;

	if (!root->nparked || root->parked[0].tid != root->u->pid)
		return err_set(e, -ESRCH, "process %d has no main thread", root->u->pid);
	h->pid = root->u->pid;
	h->init = root->u->number == 1;
	count_pending(h, &root->process->pending);
	count_pending(h, &root->parked[0].msg->pending);
	ret = quiet_threads(root, e);
	return ret < 0 ? ret : plant_at_once(h, root, e);
}

/* The unit's processes are not gone yet, nor are their agents. */
static void hide(struct source *s)
{
	cleanup_free pid_t *unit = calloc(2 * s->nprocs, sizeof(*unit));
	struct err e = ERR_INIT;

	for (size_t i = 0; unit && i < s->nprocs; i++) {
		unit[2 * i] = s->procs[i].u->pid;
		unit[2 * i + 1] = s->procs[i].agent.pid;
	}
	if (unit && hide_mounts(s->home.home.pid, unit, 2 * s->nprocs, &e) < 0)
		log_warning("event=mounts-left pid=%d text=\"%s\"", s->home.home.pid, e.message);
}

static void describe(struct source *s)
{
	struct home *h = &s->home.home;

	snprintf(h->unit, sizeof(h->unit), "%s", s->report->unit);
	snprintf(h->self_name, sizeof(h->self_name), "%s", s->request->self_name);
	snprintf(h->host, sizeof(h->host), "%s", s->peer->node_name);
	h->address = s->request->dest;
	memcpy(h->mig_id, s->mig_id, sizeof(h->mig_id));
}

/* Somebody has killed what was about to become the stub, and means the unit. If not, the frozen copy ends here, for whoever waits. */
static bool was_killed(const struct source *s)
{
	struct pollfd end = { s->procs[0].u->pidfd, POLLIN, 0 };

	return poll(&end, 1, 0) > 0;
}

/* A unit that runs at the destination is not called back because its stub could not be made: whoever waits sees it killed. */
int source_home(void *context, struct err *e)
{
	struct source *s = context;
	struct source_home *sh = &s->home;
	uint32_t *word = &scratch_header(&s->procs[0].agent.scratch)->home;
	struct err why = ERR_INIT;
	int ret = 0;

	(void)e;
	if (sh->kind != HOME_STUB && sh->kind != HOME_RELAYS)
		return 0;
	describe(s);
	if (sh->kind == HOME_STUB)
		ret = make_stub(s, &why);
	if (ret < 0) {
		sh->home.killed = was_killed(s);
		log_error("event=no-stub pid=%d killed=%d text=\"%s\"", s->request->pid, sh->home.killed, why.message);
	}
	if (sh->kind == HOME_STUB)
		__atomic_store_n(word, ret < 0 ? HOME_OFF : HOME_DONE, __ATOMIC_RELEASE);
	if ((sh->home.stub >= 0 || sh->home.killed || sh->kind == HOME_RELAYS) && home_start(&sh->home, &why) < 0)
		log_error("event=no-home pid=%d text=\"%s\"", s->request->pid, why.message);
	if (source_home_has_stub(s))
		hide(s);
	return 0;
}

bool source_home_has_stub(const struct source *s)
{
	return __atomic_load_n(&scratch_header(&s->procs[0].agent.scratch)->home, __ATOMIC_ACQUIRE) == HOME_DONE;
}

void source_home_free(struct source *s)
{
	source_home_stay(s);
	channels_close(&s->home.home.channels);
	fd_relays_free(&s->home.known);
}
