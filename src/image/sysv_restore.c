/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * sysv_restore.c - System V semaphores and message queues at the destination; see sysv.h
 *
 * Numbers: the kernel gives the next object the number that was written to /proc/sys/kernel/{sem,msg}_next_id, when it is free. The object's creator is
 * who makes it, so that the worker takes the creator's effective ids for that call.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "image/bytes.h"
#include "image/sysv.h"
#include "image/sysv_abi.h"

static bool is_taken(bool queue, const Gw__IpcPermissions *p)
{
	struct semid_ds set;
	struct msqid_ds q;

	if (queue)
		return (p->key && msgget(p->key, 0) >= 0) || msgctl(p->id, IPC_STAT, &q) == 0;
	return (p->key && semget(p->key, 0, 0) >= 0) || semctl(p->id, 0, IPC_STAT, (union semun){ .buf = &set }) == 0;
}

static void check_object(bool queue, const Gw__IpcPermissions *p, struct refusals *r)
{
	const char *path = queue ? "/proc/sys/kernel/msg_next_id" : "/proc/sys/kernel/sem_next_id";

	if (access(path, W_OK) < 0)
		refusals_add(r, "ipc.next-id", "the destination's kernel cannot give it the same number (CONFIG_CHECKPOINT_RESTORE)",
			     "choose a destination with another kernel", "System V %s %d", queue ? "message queue" : "semaphore set", p->id);
	else if (is_taken(queue, p))
		refusals_add(r, "ipc.taken", "its number or its key is in use on the destination", "remove that object there (ipcrm), or choose another destination",
			     "System V %s %d (key %#x)", queue ? "message queue" : "semaphore set", p->id, (unsigned)p->key);
}

void sysv_validate_here(const Gw__Process *msg, struct refusals *r)
{
	for (size_t i = 0; i < msg->n_semaphores; i++)
		check_object(false, msg->semaphores[i]->permissions, r);
	for (size_t i = 0; i < msg->n_message_queues; i++)
		check_object(true, msg->message_queues[i]->permissions, r);
}

static int next_number(const char *path, int id, struct err *e)
{
	cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);
	char text[16];
	int len = snprintf(text, sizeof(text), "%d", id);

	if (fd < 0 || write(fd, text, (size_t)len) != len)
		return err_sys(e, -errno, "%s", path);
	return 0;
}

/* Of this thread alone. */
static void become(uint32_t uid, uint32_t gid)
{
	if (gid || uid) {
		syscall(SYS_setresgid, -1, gid, -1);
		syscall(SYS_setresuid, -1, uid, -1);
	}
}

static void come_back(uint32_t uid, uint32_t gid)
{
	if (gid || uid) {
		syscall(SYS_setresuid, -1, 0, -1);
		syscall(SYS_setresgid, -1, 0, -1);
	}
}

static int create_set(const Gw__SemaphoreSet *s, struct err *e)
{
	const Gw__IpcPermissions *p = s->permissions;
	struct semid_ds ds = { 0 };
	int id, rc = next_number("/proc/sys/kernel/sem_next_id", p->id, e);

	if (rc < 0)
		return rc;
	become(p->cuid, p->cgid);
	id = semget(p->key, (int)s->n_values, IPC_CREAT | IPC_EXCL | (int)p->mode);
	rc = id < 0 ? -errno : 0;
	come_back(p->cuid, p->cgid);
	if (rc < 0)
		return err_sys(e, rc, "making System V semaphore set %d", p->id);
	if (id != p->id) {
		semctl(id, 0, IPC_RMID);
		return err_set(e, -EEXIST, "the number of System V semaphore set %d is in use on the destination", p->id);
	}
	ds.sem_perm.uid = p->uid;
	ds.sem_perm.gid = p->gid;
	ds.sem_perm.mode = (uint16_t)p->mode;
	if (semctl(id, 0, IPC_SET, (union semun){ .buf = &ds }) < 0)
		rc = err_sys(e, -errno, "owner of System V semaphore set %d", id);
	for (size_t i = 0; i < s->n_values && rc == 0; i++)
		if (s->values[i] && semctl(id, (int)i, SETVAL, (union semun){ .val = (int)s->values[i] }) < 0)
			rc = err_sys(e, -errno, "System V semaphore set %d", id);
	if (rc == 0)
		return 0;
	semctl(id, 0, IPC_RMID);
	return rc;
}

static int create_queue(const Gw__MessageQueue *q, struct err *e)
{
	const Gw__IpcPermissions *p = q->permissions;
	struct msqid_ds ds = { 0 };
	int id, rc = next_number("/proc/sys/kernel/msg_next_id", p->id, e);

	if (rc < 0)
		return rc;
	become(p->cuid, p->cgid);
	id = msgget(p->key, IPC_CREAT | IPC_EXCL | (int)p->mode);
	rc = id < 0 ? -errno : 0;
	come_back(p->cuid, p->cgid);
	if (rc < 0)
		return err_sys(e, rc, "making System V message queue %d", p->id);
	if (id != p->id) {
		msgctl(id, IPC_RMID, NULL);
		return err_set(e, -EEXIST, "the number of System V message queue %d is in use on the destination", p->id);
	}
	ds.msg_perm.uid = p->uid;
	ds.msg_perm.gid = p->gid;
	ds.msg_perm.mode = (uint16_t)p->mode;
	ds.msg_qbytes = q->max_bytes;
	if (msgctl(id, IPC_SET, &ds) == 0)
		return 0;
	rc = err_sys(e, -errno, "System V message queue %d: %llu bytes (kernel.msgmnb)", id, (unsigned long long)q->max_bytes);
	msgctl(id, IPC_RMID, NULL);
	return rc;
}

int sysv_create(const Gw__Process *unit, struct sysv_made *made, struct err *e)
{
	int rc = 0;

	for (size_t i = 0; i < unit->n_semaphores && rc == 0; i++) {
		rc = create_set(unit->semaphores[i], e);
		made->semaphores += rc == 0;
	}
	for (size_t i = 0; i < unit->n_message_queues && rc == 0; i++) {
		rc = create_queue(unit->message_queues[i], e);
		made->queues += rc == 0;
	}
	return rc;
}

/* Two operations that together change no value. */
static void plan_pair(struct batch *b, int id, size_t number, int first)
{
	struct sembuf there = { (unsigned short)number, (short)first, IPC_NOWAIT };
	struct sembuf back = { (unsigned short)number, (short)-first, IPC_NOWAIT };

	batch_call(b, "semop", SYS_semop, (uint32_t)id, batch_data(b, &there, sizeof(there)), 1);
	batch_call(b, "semop", SYS_semop, (uint32_t)id, batch_data(b, &back, sizeof(back)), 1);
}

/*
 * An operation with SEM_UNDO leaves its opposite as an adjustment; another without mends the value. Which comes first depends on what the value
 * allows.
 */
static void plan_adjust(struct batch *b, int id, size_t number, int value, int adjust)
{
	struct sembuf undone = { (unsigned short)number, (short)-adjust, SEM_UNDO | IPC_NOWAIT };
	struct sembuf mended = { (unsigned short)number, (short)adjust, IPC_NOWAIT };
	bool mend_first = value - adjust < 0 || value - adjust > (int)SYSV_VALUE_MAX;

	batch_call(b, "semop", SYS_semop, (uint32_t)id, batch_data(b, mend_first ? &mended : &undone, sizeof(undone)), 1);
	batch_call(b, "semop", SYS_semop, (uint32_t)id, batch_data(b, mend_first ? &undone : &mended, sizeof(undone)), 1);
}

static const Gw__SemaphoreSet *find_set(const Gw__Process *unit, int id)
{
	for (size_t i = 0; i < unit->n_semaphores; i++)
		if (unit->semaphores[i]->permissions->id == id)
			return unit->semaphores[i];
	return NULL;
}

static uint64_t put_message(struct batch *b, int64_t type, const ProtobufCBinaryData *data)
{
	uint64_t address;
	uint8_t *p = batch_space(b, sizeof(type) + data->len, &address);

	memcpy(p, &type, sizeof(type));
	if (data->len)
		memcpy(p + sizeof(type), data->data, data->len);
	return address;
}

void sysv_plan_first(struct batch *b, const Gw__Process *unit, const Gw__Process *process, pid_t pid)
{
	const ProtobufCBinaryData nothing = { 0 };

	for (size_t i = 0; i < process->n_semaphore_adjust; i++) {
		const Gw__SemaphoreAdjust *a = process->semaphore_adjust[i];
		const Gw__SemaphoreSet *set = find_set(unit, a->id);

		for (size_t k = 0; set && k < a->n_adjust && k < set->n_values; k++)
			if (a->adjust[k])
				plan_adjust(b, a->id, k, (int)set->values[k], a->adjust[k]);
	}
	for (size_t i = 0; i < unit->n_message_queues; i++) {
		uint32_t id = (uint32_t)unit->message_queues[i]->permissions->id;
		uint64_t at;

		if (unit->message_queues[i]->last_receiver != pid)
			continue;
		at = put_message(b, 1, &nothing); /* it is empty still */
		batch_call(b, "msgsnd", SYS_msgsnd, id, at, 0, IPC_NOWAIT);
		batch_call(b, "msgrcv", SYS_msgrcv, id, at, 0, 0, IPC_NOWAIT);
	}
}

/* The last message is sent by the process that sent it, as msgctl(2) tells. */
static size_t sent_by_worker(const Gw__MessageQueue *q)
{
	return q->last_sender && q->n_messages ? q->n_messages - 1 : q->n_messages;
}

int sysv_fill(const Gw__Process *unit, struct err *e)
{
	for (size_t i = 0; i < unit->n_message_queues; i++) {
		const Gw__MessageQueue *q = unit->message_queues[i];

		for (size_t k = 0; k < sent_by_worker(q); k++) {
			size_t len = q->messages[k]->data.len;
			cleanup_free uint8_t *copy = must_alloc(sizeof(int64_t) + len);

			memcpy(copy, &q->messages[k]->type, sizeof(int64_t));
			if (len)
				memcpy(copy + sizeof(int64_t), q->messages[k]->data.data, len);
			if (msgsnd(q->permissions->id, copy, len, IPC_NOWAIT) < 0)
				return err_sys(e, -errno, "System V message queue %d: message of %zu bytes", q->permissions->id, len);
		}
	}
	return 0;
}

void sysv_plan_second(struct batch *b, const Gw__Process *unit, pid_t pid)
{
	for (size_t i = 0; i < unit->n_semaphores; i++) {
		const Gw__SemaphoreSet *s = unit->semaphores[i];

		for (size_t k = 0; k < s->n_values; k++)
			if (s->pids[k] == pid)
				plan_pair(b, s->permissions->id, k, s->values[k] < SYSV_VALUE_MAX ? 1 : -1);
	}
	for (size_t i = 0; i < unit->n_message_queues; i++) {
		const Gw__MessageQueue *q = unit->message_queues[i];
		const Gw__QueuedMessage *last = q->n_messages ? q->messages[q->n_messages - 1] : NULL;

		if (last && q->last_sender == pid)
			batch_call(b, "msgsnd", SYS_msgsnd, (uint32_t)q->permissions->id, put_message(b, last->type, &last->data), last->data.len, IPC_NOWAIT);
	}
}

void sysv_remove(const Gw__Process *unit, const struct sysv_made *made)
{
	for (size_t i = 0; i < (made ? made->semaphores : unit->n_semaphores); i++)
		semctl(unit->semaphores[i]->permissions->id, 0, IPC_RMID);
	for (size_t i = 0; i < (made ? made->queues : unit->n_message_queues); i++)
		msgctl(unit->message_queues[i]->permissions->id, IPC_RMID, NULL);
}
