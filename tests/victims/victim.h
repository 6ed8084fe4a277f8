/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * victim.h - what every self-checking victim shares
 *
 * A kind of victim sets one kind of kernel state up, works (or sleeps) while it is moved, and then checks that nothing
 * changed. main.c runs it: setup, "ready PID" in the status file, work until SIGTERM comes or STATUS.check appears, check,
 * and a last line "ok" or "FAIL: what differs, expected X, got Y". fail() may be called from any thread; the first call counts.
 */
#ifndef GODWIT_VICTIM_H
#define GODWIT_VICTIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

struct victim_kind {
	const char *name;
	void (*setup)(void);
	void (*work)(void); /* one bounded step, called again and again; NULL: main sleeps */
	void (*check)(void);
	unsigned flags; /* V_* */
	const char *text; /* V_REFUSED: what the refusal has to name (a regular expression) */
	void *pad[2];
} __attribute__((aligned(64)));

#define V_CHECK_FILE 1u /* SIGTERM must not be used: signals are the subject */
#define V_REFUSED 2u    /* a state that cannot move */
#define V_TIMED 4u      /* has to be moved soon after "ready" */
#define V_MOVE 8u       /* does its work after the move */
#define V_KEEP_OUT 16u  /* keeps the status file open: its path may not be reachable later */
#define V_HIDDEN 32u      /* not to be started by a driver */

#define V_NO_STOP 64u    /* an ordinary stop shows in it (calls that end with EINTR after SIGCONT); a move must not */
#define V_OPENS 128u     /* opens and closes descriptors all the time: there is no list of them to compare */

#define VICTIM_TEXT(id, name_, setup_, work_, check_, flags_, text_)                                        \
	static const struct victim_kind id __attribute__((used, section("victims"), aligned(64))) = { \
		name_, setup_, work_, check_, flags_, text_, { 0 } }
#define VICTIM(name, flags, setup, work, check) VICTIM_TEXT(victim_##name, #name, setup, work, check, flags, "")

extern int victim_argc;           /* arguments behind NAME STATUS */
extern char **victim_argv;
extern const char *victim_out;    /* status file */
extern volatile int victim_stopping; /* set when the check begins: worker threads end */

void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
bool failed(void);
const char *failure(void); /* what the first call of fail() said */
_Noreturn void broken_setup(const char *file, int line, const char *what);
/* For setup and for calls whose failure is itself a finding. */
#define must(x) do { if (!(x)) broken_setup(__FILE__, __LINE__, #x); } while (0)

/* A new file with this text, open. */
int make_text_file(const char *path, const char *text);
/* Writes into a file of /proc/PID. */
void write_proc(pid_t pid, const char *name, const char *text);
#define expect(x) do { if (!(x)) fail("%s:%d: %s does not hold (errno %d)", __FILE__, __LINE__, #x, errno); } while (0)

void expect_u64(const char *what, uint64_t expected, uint64_t got);
void expect_text(const char *what, const char *expected, const char *got); /* names the first line that differs */
/* Another line in the status file, for the driver. */
void report(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* True once the host name is not the one of the start. */
bool moved(void);
long victim_arg(int index, long otherwise);
/* A path in the directory of the status file; static buffer of the calling thread. */
const char *beside(const char *name);

uint64_t mix(uint64_t x); /* splitmix64: incompressible and computable */
void fill(void *p, size_t len_bytes, uint64_t seed);
void verify(const char *what, const void *p, size_t len_bytes, uint64_t seed);
void verify_zero(const char *what, const void *p, size_t len_bytes);
void *map_anon(size_t len_bytes, int prot, int flags);

uint64_t now_ns(clockid_t clock);
void sleep_ms(unsigned ms); /* for the main thread only: ends early for SIGTERM */

/* Text that grows; compare two of them with expect_text. */
struct text {
	char *s;
	size_t len, cap;
};
void text_add(struct text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_file(struct text *t, const char *path, const char *line_prefixes[]); /* NULL: every byte, as text */

/* Threads have every signal blocked, except those of the subject. */
void spawn(void *(*run)(void *), void *arg, unsigned long *ret_thread);
void join_all(void);

#endif
