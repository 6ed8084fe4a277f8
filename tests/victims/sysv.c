// SPDX-License-Identifier: GPL-2.0-or-later
/* sysv.c - victims with System V semaphores and message queues: ids, keys, values, what the end of the process would undo, messages in their order */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/wait.h>
#include <unistd.h>

#include "victim.h"

union semun {
	int val;
	struct semid_ds *buf;
	unsigned short *array;
};

static int set = -1, private_set = -1, queue = -1;
static key_t key;

static int operate(int id, int number, int amount, int flags)
{
	struct sembuf op = { (unsigned short)number, (short)amount, (short)flags };

	return semop(id, &op, 1);
}

static void remove_all(void)
{
	if (set >= 0)
		semctl(set, 0, IPC_RMID);
	if (private_set >= 0)
		semctl(private_set, 0, IPC_RMID);
	if (queue >= 0)
		msgctl(queue, 0, IPC_RMID);
}

static void expect_values(const char *what, const int *values, int n)
{
	unsigned short got[32];

	expect(!semctl(set, 0, GETALL, (union semun){ .array = got }));
	for (int i = 0; i < n; i++)
		expect_u64(what, (uint64_t)values[i], got[i]);
}

/* ---- semaphores, with adjustments of both signs ---- */

static const int values_now[] = { 7, 0, 3, 32767, 0, 12 }, values_then[] = { 9, 0, 1, 32757, 4, 12 }; /* before and after what is undone */
static time_t changed;

static void sem_setup(void)
{
	struct semid_ds ds;

	key = 0x47000000 | getpid();
	set = semget(key, 6, IPC_CREAT | IPC_EXCL | 0640);
	private_set = semget(IPC_PRIVATE, 1, 0600);
	must(set >= 0 && private_set >= 0);
	must(!semctl(set, 0, SETVAL, (union semun){ .val = 9 }) && !operate(set, 0, -2, SEM_UNDO));  /* adjusts by +2 */
	must(!operate(set, 2, 2, SEM_UNDO) && !operate(set, 2, 1, 0));                               /* -2 */
	must(!semctl(set, 3, SETVAL, (union semun){ .val = 32757 }) && !operate(set, 3, 10, SEM_UNDO)); /* -10 */
	must(!semctl(set, 4, SETVAL, (union semun){ .val = 4 }) && !operate(set, 4, -4, SEM_UNDO));  /* +4 */
	must(!semctl(set, 5, SETVAL, (union semun){ .val = 12 }));
	must(!operate(private_set, 0, 1, SEM_UNDO) && !operate(private_set, 0, -1, 0)); /* an adjustment that cannot be made: the value would be below zero */
	must(!semctl(set, 0, IPC_STAT, (union semun){ .buf = &ds }));
	ds.sem_perm.mode = 0604;
	ds.sem_perm.gid = 7;
	must(!semctl(set, 0, IPC_SET, (union semun){ .buf = &ds }));
	changed = ds.sem_ctime;
}

static void sem_check(void)
{
	struct semid_ds ds;

	expect_u64("id by the key", (uint64_t)set, (uint64_t)semget(key, 6, 0));
	expect(!semctl(set, 0, IPC_STAT, (union semun){ .buf = &ds }));
	expect_u64("number of semaphores", 6, ds.sem_nsems);
	expect_u64("mode", 0604, ds.sem_perm.mode & 0777u);
	expect_u64("group", 7, ds.sem_perm.gid);
	expect_u64("creator", getuid(), ds.sem_perm.cuid);
	expect_values("value", values_now, 6);
	expect_u64("who worked on it last", (uint64_t)getpid(), (uint64_t)semctl(set, 0, GETPID));
	expect_u64("nobody worked on this one", 0, (uint64_t)semctl(set, 1, GETPID));
	expect(!unshare(CLONE_SYSVSEM)); /* as at the end of the process */
	expect_values("value after what is undone", values_then, 6);
	expect_u64("value that would be below zero", 0, (uint64_t)semctl(private_set, 0, GETVAL));
	remove_all();
}

VICTIM(sysv_sem, V_MOVE, sem_setup, NULL, sem_check);

/* ---- a message queue ---- */

#define MESSAGES 60

struct message {
	long type;
	char data[2000];
};

static size_t length_of(int i)
{
	return i % 7 == 0 ? 0 : (size_t)(i * 37) % 250 + (i == 30 ? 1500 : 0);
}

static void queue_setup(void)
{
	struct message m, got;

	key = 0x48000000 | getpid();
	queue = msgget(key, IPC_CREAT | IPC_EXCL | 0600);
	must(queue >= 0);
	m.type = 1;
	must(!msgsnd(queue, &m, 5, 0) && msgrcv(queue, &got, sizeof(got.data), 0, 0) == 5);
	for (int i = 0; i < MESSAGES; i++) {
		m.type = i % 5 + 1;
		fill(m.data, sizeof(m.data), (uint64_t)i);
		must(!msgsnd(queue, &m, length_of(i), 0));
	}
}

static void queue_check(void)
{
	struct msqid_ds ds;
	struct message m;

	expect_u64("id by the key", (uint64_t)queue, (uint64_t)msgget(key, 0));
	expect(!msgctl(queue, IPC_STAT, &ds));
	expect_u64("messages", MESSAGES, ds.msg_qnum);
	expect_u64("last sender", (uint64_t)getpid(), (uint64_t)ds.msg_lspid);
	expect_u64("last receiver", (uint64_t)getpid(), (uint64_t)ds.msg_lrpid);
	for (int i = 2; i < MESSAGES; i += 5) { /* one type first, then the others in order */
		expect(msgrcv(queue, &m, sizeof(m.data), 3, IPC_NOWAIT) == (ssize_t)length_of(i));
		verify("message of a type", m.data, length_of(i), (uint64_t)i);
	}
	for (int i = 0; i < MESSAGES; i++) {
		if (i % 5 == 2)
			continue;
		expect(msgrcv(queue, &m, sizeof(m.data), 0, IPC_NOWAIT) == (ssize_t)length_of(i));
		expect_u64("type", (uint64_t)(i % 5 + 1), (uint64_t)m.type);
		verify("message", m.data, length_of(i), (uint64_t)i);
	}
	expect(msgrcv(queue, &m, sizeof(m.data), 0, IPC_NOWAIT) < 0 && errno == ENOMSG);
	remove_all();
}

VICTIM(sysv_msg, V_MOVE, queue_setup, NULL, queue_check);

/* ---- threads that wait in all of these calls, and a stream between two ---- */

static pthread_barrier_t ready;
static uint64_t stream_sent, stream_got;

static void *sem_waiter(void *arg)
{
	pthread_barrier_wait(&ready);
	expect(!operate(set, 0, -1, 0));
	return NULL;
}

static void *timed_waiter(void *arg)
{
	struct sembuf op = { 1, -1, 0 };
	struct timespec limit = { 3, 0 };

	pthread_barrier_wait(&ready);
	while (!victim_stopping) {
		uint64_t begin = now_ns(CLOCK_MONOTONIC);

		expect(semtimedop(set, &op, 1, &limit) < 0 && errno == EAGAIN);
		expect(now_ns(CLOCK_MONOTONIC) - begin >= 3000000000ull);
	}
	return NULL;
}

static void *receiver(void *arg)
{
	struct message m;

	pthread_barrier_wait(&ready);
	while (msgrcv(queue, &m, sizeof(m.data), 1, 0) == 8 && *(uint64_t *)m.data) {
		expect_u64("stream of messages", ++stream_got, *(uint64_t *)m.data);
	}
	return NULL;
}

static void wait_setup(void)
{
	set = semget(IPC_PRIVATE, 3, 0600);
	queue = msgget(IPC_PRIVATE, 0600);
	must(set >= 0 && queue >= 0);
	report("info set=%d", set);
	pthread_barrier_init(&ready, NULL, 4);
	spawn(sem_waiter, NULL, NULL);
	spawn(timed_waiter, NULL, NULL);
	spawn(receiver, NULL, NULL);
	pthread_barrier_wait(&ready);
}

static void send_number(uint64_t n)
{
	struct message m = { .type = 1 };

	memcpy(m.data, &n, sizeof(n));
	expect(!msgsnd(queue, &m, sizeof(n), 0));
}

static void wait_work(void)
{
	send_number(++stream_sent);
	usleep(300);
}

static void wait_check(void)
{
	expect(!operate(set, 0, 1, 0));
	send_number(0);
	join_all();
	expect_u64("messages received", stream_sent, stream_got);
	remove_all();
}

VICTIM(sysv_wait, V_NO_STOP, wait_setup, wait_work, wait_check);

/* ---- a family: each process has adjustments of its own, a child has sent the last message ---- */

static pid_t child;
static int asks[2], answers[2];

static void family_child(void)
{
	char word;
	struct { long type; char data[4]; } m = { 3, "end" };

	must(!operate(set, 0, 4, SEM_UNDO) && !operate(set, 1, -1, SEM_UNDO));
	must(!msgsnd(queue, &m, 4, 0));
	must(write(answers[1], "r", 1) == 1);
	must(read(asks[0], &word, 1) == 1);
	_exit(0);
}

static void family_setup(void)
{
	char word;

	set = semget(IPC_PRIVATE, 2, 0600);
	queue = msgget(IPC_PRIVATE, 0600);
	must(set >= 0 && queue >= 0 && !pipe(asks) && !pipe(answers));
	must(!operate(set, 1, 5, 0) && !operate(set, 0, 2, SEM_UNDO));
	child = fork();
	must(child >= 0);
	if (!child)
		family_child();
	must(read(answers[0], &word, 1) == 1);
}

static void family_check(void)
{
	const int now[] = { 6, 4 }, without_child[] = { 2, 5 }, without_both[] = { 0, 5 };
	struct msqid_ds ds;
	int status;

	expect_values("value", now, 2);
	expect_u64("who worked on it last", (uint64_t)child, (uint64_t)semctl(set, 0, GETPID));
	expect(!msgctl(queue, IPC_STAT, &ds));
	expect_u64("last sender", (uint64_t)child, (uint64_t)ds.msg_lspid);
	expect(write(asks[1], "e", 1) == 1 && waitpid(child, &status, 0) == child && status == 0);
	expect_values("value when the child has ended", without_child, 2);
	expect(!unshare(CLONE_SYSVSEM));
	expect_values("value when both have", without_both, 2);
	remove_all();
}

VICTIM(sysv_family, V_MOVE, family_setup, NULL, family_check);
