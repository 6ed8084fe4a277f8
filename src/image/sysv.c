/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sysv.c - System V semaphores and message queues: capture and validation; see sysv.h. Restoring is in sysv_restore.c */
#include "image/sysv.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "image/bytes.h"
#include "image/sysv_abi.h"
#include "kern/sem_undo.h"

#define UNDO_RECORDS_MAX 4096
#define BLOCKED_MAX 256

struct sysv_watch {
	pid_t *pids;
	size_t npids;
	struct sem_undo_reader *reader;
	struct sem_undo_record *undo; /* NULL: BPF is not to be had, or nothing read yet */
	size_t *owner;                /* the process (index in pids) of each */
	size_t nundo;
	struct {
		int id;
		bool queue;
	} blocked[BLOCKED_MAX]; /* objects in which threads of the unit waited at the offer */
	size_t nblocked;
	uint8_t *buffer; /* for one message */
	size_t buffer_len;
};

/* The process of the unit that a number stands for, or 0. A receiver that was waiting when its message came shows with its thread's number. */
static pid_t member(const struct sysv_watch *w, pid_t pid)
{
	char path[64];

	for (size_t i = 0; pid > 0 && i < w->npids; i++)
		if (w->pids[i] == pid)
			return pid;
	for (size_t i = 0; pid > 0 && i < w->npids; i++) {
		snprintf(path, sizeof(path), "/proc/%d/task/%d", w->pids[i], pid);
		if (access(path, F_OK) == 0)
			return w->pids[i];
	}
	return 0;
}

/* Returns the process of the unit that `pid` stands for, or 0; an outsider that lives goes to *other. */
static pid_t note_user(const struct sysv_watch *w, pid_t pid, bool *ours, pid_t *other)
{
	pid_t process = member(w, pid);

	if (process)
		*ours = true;
	else if (pid > 0 && (kill(pid, 0) == 0 || errno == EPERM))
		*other = pid;
	return process;
}

/* Threads that wait in semop, msgrcv or msgsnd: the first argument is the object. */
static void find_blocked(struct sysv_watch *w, pid_t pid)
{
	cleanup_closedir DIR *dir = NULL;
	char path[300], text[64];

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	for (struct dirent *d; dir && (d = readdir(dir)) && w->nblocked < BLOCKED_MAX;) {
		cleanup_fclose FILE *f = NULL;
		unsigned long id;
		long nr;

		snprintf(path, sizeof(path), "/proc/%d/task/%s/syscall", pid, d->d_name);
		f = fopen(path, "re");
		if (!f || !fgets(text, sizeof(text), f) || sscanf(text, "%ld 0x%lx", &nr, &id) != 2)
			continue;
		if (nr == SYS_semop || nr == SYS_semtimedop || nr == SYS_msgrcv || nr == SYS_msgsnd) {
			w->blocked[w->nblocked].id = (int)id;
			w->blocked[w->nblocked++].queue = nr == SYS_msgrcv || nr == SYS_msgsnd;
		}
	}
}

static bool is_blocked_in(const struct sysv_watch *w, int id, bool queue)
{
	for (size_t i = 0; i < w->nblocked; i++)
		if (w->blocked[i].id == id && w->blocked[i].queue == queue)
			return true;
	return false;
}

static int read_undo(struct sysv_watch *w, struct err *e)
{
	w->nundo = 0;
	if (!w->reader) {
		int rc = sem_undo_load(&w->reader, e);

		if (rc < 0)
			return rc;
		w->undo = must_alloc(UNDO_RECORDS_MAX * sizeof(*w->undo));
		w->owner = must_alloc(UNDO_RECORDS_MAX * sizeof(*w->owner));
	}
	for (size_t i = 0; i < w->npids; i++) {
		int n = sem_undo_read(w->reader, w->pids[i], w->undo + w->nundo, UNDO_RECORDS_MAX - w->nundo, e);

		if (n < 0)
			return n;
		while (n--)
			w->owner[w->nundo++] = i;
	}
	return w->nundo == UNDO_RECORDS_MAX ? err_set(e, -E2BIG, "too many semaphore adjustments (SEM_UNDO)") : 0;
}

static Gw__IpcPermissions *permissions_of(int id, const struct ipc_perm *p)
{
	Gw__IpcPermissions *msg = must_alloc(sizeof(*msg));

	gw__ipc_permissions__init(msg);
	msg->id = id;
	msg->key = p->__key;
	msg->mode = p->mode & 0777;
	msg->uid = p->uid;
	msg->gid = p->gid;
	msg->cuid = p->cuid;
	msg->cgid = p->cgid;
	return msg;
}

/* --- semaphores --- */

/* Whether the adjustments in a set can be carried: each process has one list of its own, which its threads share. */
static int check_undo(const struct sysv_watch *w, int id, size_t nsems, struct err *e)
{
	for (size_t i = 0; i < w->nundo; i++) {
		const struct sem_undo_record *u = &w->undo[i];

		if (u->truncated)
			return err_set(e, -EOPNOTSUPP, "a list of semaphore adjustments (SEM_UNDO) that is too long");
		if (u->semid != id)
			continue;
		if (nsems > SEM_UNDO_ADJUSTMENTS)
			return err_set(e, -EOPNOTSUPP, "adjustments (SEM_UNDO) in System V semaphore set %d, of more than %d semaphores", id, SEM_UNDO_ADJUSTMENTS);
		for (size_t k = 0; k < i; k++)
			if (w->undo[k].semid == id && (w->owner[k] == w->owner[i]) != (w->undo[k].list == u->list))
				return err_set(e, -EOPNOTSUPP, "adjustments (SEM_UNDO) in System V semaphore set %d that processes share, or threads do not", id);
	}
	return 0;
}

static bool has_adjustments(const struct sem_undo_record *u, size_t nsems)
{
	for (size_t i = 0; i < nsems; i++)
		if (u->adjust[i])
			return true;
	return false;
}

static void add_adjust(Gw__Process *msg, const struct sem_undo_record *u, size_t nsems)
{
	Gw__SemaphoreAdjust *a, **grown;

	if (!has_adjustments(u, nsems) || (msg->n_semaphore_adjust && msg->semaphore_adjust[msg->n_semaphore_adjust - 1]->id == u->semid))
		return; /* nothing, or the same list of another thread */
	a = must_alloc(sizeof(*a));
	gw__semaphore_adjust__init(a);
	a->id = u->semid;
	a->n_adjust = nsems;
	a->adjust = must_alloc(nsems * sizeof(*a->adjust));
	for (size_t i = 0; i < nsems; i++)
		a->adjust[i] = u->adjust[i];
	grown = realloc(msg->semaphore_adjust, (msg->n_semaphore_adjust + 1) * sizeof(*grown));
	if (!grown)
		abort();
	msg->semaphore_adjust = grown;
	grown[msg->n_semaphore_adjust++] = a;
}

/* msgs: NULL at the offer. */
static int fill_set(struct sysv_watch *w, Gw__SemaphoreSet *set, size_t nsems, Gw__Process **msgs, struct err *e)
{
	cleanup_free uint16_t *values = must_alloc(nsems * sizeof(*values));
	int id = set->permissions->id, rc = check_undo(w, id, nsems, e);

	if (rc < 0)
		return rc;
	if (semctl(id, 0, GETALL, (union semun){ .array = values }) < 0)
		return err_sys(e, -errno, "System V semaphore set %d", id);
	set->values = must_alloc(nsems * sizeof(*set->values));
	set->n_values = nsems;
	for (size_t i = 0; i < nsems; i++)
		set->values[i] = values[i];
	for (size_t i = 0; msgs && i < w->nundo; i++)
		if (w->undo[i].semid == id)
			add_adjust(msgs[w->owner[i]], &w->undo[i], nsems);
	return 0;
}

/* Whether a set is the unit's; *ret_other is a process outside that uses it as well. */
static bool set_is_ours(const struct sysv_watch *w, int id, size_t nsems, Gw__SemaphoreSet *set, pid_t *ret_other)
{
	bool ours = is_blocked_in(w, id, false);

	*ret_other = 0;
	for (size_t i = 0; i < w->nundo; i++)
		ours |= w->undo[i].semid == id;
	set->pids = must_alloc(nsems * sizeof(*set->pids));
	set->n_pids = nsems;
	for (size_t i = 0; i < nsems; i++) {
		set->pids[i] = note_user(w, semctl(id, (int)i, GETPID), &ours, ret_other);
	}
	return ours;
}

static void refuse_shared(struct refusals *r, const char *what, int id, pid_t other)
{
	if (!other)
		return;
	refusals_add(r, "ipc.shared", "a process that is not part of the unit uses it as well", "end that process first, or move it in the same unit",
		     "%s %d (used by process %d)", what, id, other);
	refusals_blame(r, r->n - 1, other);
}

static int capture_sets(struct sysv_watch *w, Gw__Process *msg, Gw__Process **msgs, struct refusals *r, struct err *e)
{
	struct err unknown = ERR_INIT;
	struct seminfo info = { 0 };
	int max = semctl(0, 0, SEM_INFO, (union semun){ .info = &info }), rc = 0, undo;

	if (max < 0 || !info.semusz) /* none, or not built into the kernel */
		return 0;
	undo = read_undo(w, &unknown);
	for (int i = 0; i <= max && rc == 0; i++) {
		struct semid_ds ds;
		int id = semctl(i, 0, SEM_STAT_ANY, (union semun){ .buf = &ds });
		Gw__SemaphoreSet *set, **grown;
		pid_t other;

		if (id < 0)
			continue;
		set = must_alloc(sizeof(*set));
		gw__semaphore_set__init(set);
		if (!set_is_ours(w, id, ds.sem_nsems, set, &other)) {
			gw__semaphore_set__free_unpacked(set, NULL);
			continue;
		}
		set->permissions = permissions_of(id, &ds.sem_perm);
		grown = realloc(msg->semaphores, (msg->n_semaphores + 1) * sizeof(*grown));
		if (!grown)
			abort();
		msg->semaphores = grown;
		grown[msg->n_semaphores++] = set;
		if (r)
			refuse_shared(r, "System V semaphore set", id, other);
		rc = undo < 0 ? err_set(e, undo, "%s", unknown.message) : fill_set(w, set, ds.sem_nsems, msgs, e);
	}
	return rc;
}

/* --- message queues --- */

static int read_messages(struct sysv_watch *w, Gw__MessageQueue *q, struct err *e)
{
	int id = q->permissions->id;

	if (!w->buffer) {
		struct msginfo info;

		w->buffer_len = msgctl(0, IPC_INFO, (struct msqid_ds *)&info) < 0 ? 65536 : (size_t)MAX(info.msgmax, 65536);
		w->buffer = must_alloc(sizeof(long) + w->buffer_len);
	}
	for (long i = 0; i < SYSV_MESSAGES_MAX; i++) {
		ssize_t n = msgrcv(id, w->buffer, w->buffer_len, i, MSG_COPY | IPC_NOWAIT);
		Gw__QueuedMessage *m, **grown;
		long type;

		if (n < 0 && errno == ENOMSG)
			return 0;
		if (n < 0)
			return err_sys(e, -errno, "message queue %d", id);
		m = must_alloc(sizeof(*m));
		gw__queued_message__init(m);
		memcpy(&type, w->buffer, sizeof(type));
		m->type = type;
		bytes_set(&m->data, w->buffer + sizeof(type), (size_t)n);
		grown = realloc(q->messages, (q->n_messages + 1) * sizeof(*grown));
		if (!grown)
			abort();
		q->messages = grown;
		grown[q->n_messages++] = m;
	}
	return err_set(e, -E2BIG, "message queue %d has more than %d messages", id, SYSV_MESSAGES_MAX);
}

static int capture_queues(struct sysv_watch *w, Gw__Process *msg, bool contents, struct refusals *r, struct err *e)
{
	struct msginfo info;
	int max = msgctl(0, MSG_INFO, (struct msqid_ds *)&info), rc = 0;

	if (max < 0 || !info.msgpool)
		return 0;
	for (int i = 0; i <= max && rc == 0; i++) {
		struct msqid_ds ds;
		int id = msgctl(i, MSG_STAT_ANY, &ds);
		Gw__MessageQueue *q, **grown;
		pid_t other = 0, sender, receiver;
		bool ours;

		if (id < 0)
			continue;
		ours = is_blocked_in(w, id, true);
		sender = note_user(w, ds.msg_lspid, &ours, &other);
		receiver = note_user(w, ds.msg_lrpid, &ours, &other);
		if (!ours)
			continue;
		q = must_alloc(sizeof(*q));
		gw__message_queue__init(q);
		q->permissions = permissions_of(id, &ds.msg_perm);
		q->max_bytes = ds.msg_qbytes;
		q->last_sender = sender;
		q->last_receiver = receiver;
		grown = realloc(msg->message_queues, (msg->n_message_queues + 1) * sizeof(*grown));
		if (!grown)
			abort();
		msg->message_queues = grown;
		grown[msg->n_message_queues++] = q;
		if (r)
			refuse_shared(r, "System V message queue", id, other);
		rc = contents ? read_messages(w, q, e) : 0;
	}
	return rc;
}

int sysv_capture(const pid_t *pids, size_t n, Gw__Process *msg, struct sysv_watch **ret_watch, struct refusals *r, struct err *e)
{
	struct sysv_watch *w = must_alloc(sizeof(*w));
	int rc;

	w->pids = must_alloc(n * sizeof(*pids));
	memcpy(w->pids, pids, n * sizeof(*pids));
	w->npids = n;
	for (size_t i = 0; i < n; i++)
		find_blocked(w, pids[i]);
	rc = capture_sets(w, msg, NULL, r, e);
	if (rc == 0)
		rc = capture_queues(w, msg, false, r, e);
	if (rc < 0) {
		/* The adjustments cannot be known: nothing with semaphores may move. */
		refusals_add(r, "ipc.unknown", e->message, "end what uses System V semaphores on this host, or give godwitd CAP_BPF and CAP_PERFMON",
			     "process %d (System V objects)", n ? pids[0] : 0);
		*e = ERR_INIT;
	}
	*ret_watch = w;
	return 0;
}

static bool same_objects(const Gw__Process *a, const Gw__Process *b)
{
	if (a->n_semaphores != b->n_semaphores || a->n_message_queues != b->n_message_queues)
		return false;
	for (size_t i = 0; i < a->n_semaphores; i++)
		if (a->semaphores[i]->permissions->id != b->semaphores[i]->permissions->id || a->semaphores[i]->n_values != b->semaphores[i]->n_values)
			return false;
	for (size_t i = 0; i < a->n_message_queues; i++)
		if (a->message_queues[i]->permissions->id != b->message_queues[i]->permissions->id)
			return false;
	return true;
}

int sysv_recapture(struct sysv_watch *w, const Gw__Process *offered, Gw__Process **msgs, struct err *e)
{
	int rc = w ? capture_sets(w, msgs[0], msgs, NULL, e) : 0;

	if (w && rc == 0)
		rc = capture_queues(w, msgs[0], true, NULL, e);
	if (rc == 0 && !same_objects(offered, msgs[0]))
		rc = err_set(e, -EAGAIN, "the process uses other System V objects than at the offer");
	return rc;
}

void sysv_watch_free(struct sysv_watch *w)
{
	if (!w)
		return;
	sem_undo_free(w->reader);
	free(w->undo);
	free(w->owner);
	free(w->pids);
	free(w->buffer);
	free(w);
}

/* --- validation --- */

static int validate_permissions(const Gw__IpcPermissions *p, struct err *e)
{
	if (!p || p->id < 0 || p->mode > 0777 || p->uid == UINT32_MAX || p->gid == UINT32_MAX || p->cuid == UINT32_MAX || p->cgid == UINT32_MAX)
		return err_set(e, -EBADMSG, "a System V object without sense");
	return 0;
}

static int validate_set(const Gw__SemaphoreSet *s, struct err *e)
{
	int rc = validate_permissions(s->permissions, e);

	if (rc == 0 && (!s->n_values || s->n_values > SYSV_SEMAPHORES_MAX || s->n_pids != s->n_values))
		rc = err_set(e, -EBADMSG, "a set of %zu semaphores", s->n_values);
	for (size_t i = 0; i < s->n_values && rc == 0; i++)
		if (s->values[i] > SYSV_VALUE_MAX)
			rc = err_set(e, -EBADMSG, "semaphore %zu of set %d: %u", i, s->permissions->id, s->values[i]);
	return rc;
}

static int validate_adjust(const Gw__SemaphoreAdjust *a, struct err *e)
{
	if (a->id < 0 || !a->n_adjust || a->n_adjust > SEM_UNDO_ADJUSTMENTS)
		return err_set(e, -EBADMSG, "adjustments of %zu semaphores", a->n_adjust);
	for (size_t i = 0; i < a->n_adjust; i++)
		if (a->adjust[i] > (int)SYSV_VALUE_MAX || a->adjust[i] < -(int)SYSV_VALUE_MAX)
			return err_set(e, -EBADMSG, "an adjustment of %d", a->adjust[i]);
	return 0;
}

int sysv_validate(const Gw__Process *msg, bool offer, struct err *e)
{
	int rc = 0;

	if (msg->n_semaphores > SYSV_OBJECTS_MAX || msg->n_message_queues > SYSV_OBJECTS_MAX || msg->n_semaphore_adjust > SYSV_OBJECTS_MAX)
		return err_set(e, -EBADMSG, "%zu System V objects", msg->n_semaphores + msg->n_message_queues);
	for (size_t i = 0; i < msg->n_semaphores && rc == 0; i++)
		rc = validate_set(msg->semaphores[i], e);
	for (size_t i = 0; i < msg->n_semaphore_adjust && rc == 0; i++)
		rc = validate_adjust(msg->semaphore_adjust[i], e);
	for (size_t i = 0; i < msg->n_message_queues && rc == 0; i++) {
		const Gw__MessageQueue *q = msg->message_queues[i];

		rc = validate_permissions(q->permissions, e);
		if (rc == 0 && (q->n_messages > SYSV_MESSAGES_MAX || (offer && q->n_messages)))
			rc = err_set(e, -EBADMSG, "a queue of %zu messages", q->n_messages);
		for (size_t k = 0; k < q->n_messages && rc == 0; k++)
			if (q->messages[k]->type <= 0)
				rc = err_set(e, -EBADMSG, "a message of type %lld", (long long)q->messages[k]->type);
	}
	return rc;
}
