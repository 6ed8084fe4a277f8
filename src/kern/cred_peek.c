/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* cred_peek.c - loads and reads the task iterator; see cred_peek.h and bpf/cred_peek.bpf.c */
#include "kern/cred_peek.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/util.h"
#include "kern/bpf_iter.h"
#include "kern/cred_peek.skel.h"

#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_restrict_self 446
#endif
#define LANDLOCK_VERSION_QUESTION 1u
#define LANDLOCK_MAKE_SYMLINK (1ull << 12)
#define NO_WORD (-1)
#define NOT_ASKED (-2)

static struct cred_peek_bpf *loaded;
static int landlock_word = NOT_ASKED;

/* The descriptor of the program. */
static int load(struct err *e)
{
	if (!loaded)
		loaded = BPF_ITER_LOAD(cred_peek_bpf__open_and_load);
	return loaded ? bpf_program__fd(loaded->progs.read_creds) : err_sys(e, -errno, "loading the BPF iterator that reads credentials");
}

int cred_peek(pid_t pid, struct cred_record **ret, struct err *e)
{
	int program = load(e);
	cleanup_close int fd = -1;
	void *buffer = NULL;
	size_t room = 0;
	ssize_t n;

	if (program < 0)
		return program;
	fd = bpf_iter_of(program, pid, e);
	n = fd < 0 ? fd : bpf_iter_read_all(fd, &buffer, &room, e);
	if (n < 0) {
		free(buffer);
		return (int)n;
	}
	*ret = buffer;
	return (int)((size_t)n / sizeof(**ret));
}

/* A child in a domain that forbids nothing but symbolic links; it says so by closing its end. */
static pid_t fork_restricted(int said)
{
	const uint64_t attributes = LANDLOCK_MAKE_SYMLINK;
	pid_t parent = getpid(), pid = fork();
	int rules;

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	rules = (int)syscall(SYS_landlock_create_ruleset, &attributes, sizeof(attributes), 0);
	if (getppid() != parent || rules < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || syscall(SYS_landlock_restrict_self, rules, 0) < 0)
		_exit(1);
	close(said);
	for (;;)
		pause();
}

/* The word that the child has and we have not. */
static int find_word(pid_t child)
{
	cleanup_free struct cred_record *theirs = NULL, *ours = NULL;
	int word = NO_WORD;

	if (cred_peek(child, &theirs, NULL) < 1 || cred_peek(getpid(), &ours, NULL) < 1)
		return NO_WORD;
	for (int i = CRED_BLOB_WORDS; i-- > 0;)
		if (theirs->blob[i] && !ours->blob[i] && theirs->blob[i] >> 47 == 0x1ffff)
			word = i;
	return word;
}

static int learn_word(void)
{
	int said[2], word;
	char nothing;
	pid_t child;

	if (syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_VERSION_QUESTION) < 0 || pipe(said) < 0)
		return NO_WORD;
	child = fork_restricted(said[1]);
	close(said[1]);
	word = child > 0 && read(said[0], &nothing, 1) == 0 ? find_word(child) : NO_WORD;
	close(said[0]);
	if (child > 0) {
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
	}
	return word;
}

int cred_peek_prepare(struct err *e)
{
	int program = load(e);

	if (program >= 0 && landlock_word == NOT_ASKED)
		landlock_word = learn_word();
	return program;
}

bool cred_has_landlock(const struct cred_record *r)
{
	if (landlock_word == NOT_ASKED)
		landlock_word = learn_word();
	return landlock_word >= 0 && r->blob[landlock_word];
}
