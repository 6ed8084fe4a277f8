/* SPDX-License-Identifier: GPL-2.0-or-later */
/* layout_move.c - see layout_move.h */
#include "layout_move.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/util.h"
#include "image/vdso.h"
#include "image/vma_restore.h"

/* Child processes that end with the test, and say when they are ready by stopping. */
pid_t start_child(void (*setup)(void))
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		setup();
		raise(SIGSTOP);
		for (;;)
			pause();
	}
	waitpid(pid, &status, WUNTRACED);
	MUST(WIFSTOPPED(status));
	return pid;
}

void end_child(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

/* One mapping, as text that must be equal. */
struct entry {
	unsigned long start, end;
	char rest[4096], flags[256];
};

static void forget_hints(char *text)
{
	static const char *const hints[] = { " hg", " nh", " ac", " nr", " lo", " lf" };

	/* huge page advice cannot be undone, and accounting depends on history once the flags had to be guessed */
	for (size_t i = 0; i < ARRAY_SIZE(hints); i++)
		for (char *p; (p = strstr(text, hints[i]));)
			memmove(p, p + 3, strlen(p + 3) + 1);
}

/*
 * The next mapping of smaps with its flags. The device of shared memory is left out, and private /dev/zero is shown as
 * what it is. The scratch and vsyscall are skipped.
 */
static bool next_entry(FILE *in, struct entry *entry, bool hints)
{
	char line[4096];
	bool wanted = false;

	while (fgets(line, sizeof(line), in)) {
		if ((line[0] >= '0' && line[0] <= '9') || (line[0] >= 'a' && line[0] <= 'f')) {
			char *shm = strstr(line, " 00:01 "), *rest;

			shm = shm ? shm : strstr(line, "/anon_hugepage");
			shm = shm ? shm : strstr(line, "/memfd:");

			wanted = !strstr(line, "godwit-scratch") && line[0] != 'f';
			if (shm || (strstr(line, "/dev/zero") && strstr(line, "rw-p")))
				strcpy(strchr(line, ' ') + 5, shm ? " shm\n" : " 00000000 00:00 0 \n");
			entry->start = strtoul(line, &rest, 16);
			entry->end = strtoul(rest + 1, &rest, 16);
			strcpy(entry->rest, rest);
		} else if (!strncmp(line, "VmFlags:", 8) && wanted) {
			snprintf(entry->flags, sizeof(entry->flags), "%.200s", line);
			if (!hints)
				forget_hints(entry->flags);
			return true;
		}
	}
	return false;
}

/* Anonymous neighbours with the same attributes are shown as one: whether the kernel joins them depends on their history. */
char *layout_text(pid_t pid, bool hints)
{
	struct entry last = { 0 }, now;
	char path[64], *text = NULL;
	size_t len;
	FILE *in, *out = open_memstream(&text, &len);

	snprintf(path, sizeof(path), "/proc/%d/smaps", pid);
	in = fopen(path, "re");
	MUST(in && out);
	while (next_entry(in, &now, hints)) {
		if (now.start == last.end && strstr(now.rest, " 00:00 0") && !strstr(now.rest, "[v") && !strcmp(now.flags, last.flags) &&
		    !strncmp(now.rest, last.rest, 26)) {
			last.end = now.end;
			continue;
		}
		if (last.end)
			fprintf(out, "%lx-%lx%s%s", last.start, last.end, last.rest, last.flags);
		last = now;
	}
	fprintf(out, "%lx-%lx%s%s", last.start, last.end, last.rest, last.flags);
	fclose(in);
	fclose(out);
	return text;
}

void compare_layouts(pid_t a, pid_t b)
{
	cleanup_free char *x = layout_text(a, true);
	cleanup_free char *y = layout_text(b, true);
	char *p = x, *q = y;

	while (*p && *q) {
		size_t n = strcspn(p, "\n"), m = strcspn(q, "\n");

		if (n != m || memcmp(p, q, n))
			fail_msg("layouts differ:\nsource   %.*s\nskeleton %.*s", (int)n, p, (int)m, q);
		p += n + 1;
		q += m + 1;
	}
	if (*p || *q)
		fail_msg("layouts differ: left over at the source: %.200s; in the skeleton: %.200s", p, q);
}

/* The numbers that PR_SET_MM_MAP sets, but for brk, which /proc does not show. */
void compare_mm(pid_t pid, const struct moved *m)
{
	struct fsfile_table files = { 0 };
	struct err e = ERR_INIT;
	struct mm_fields there;
	int64_t brk;

	MUST_OK(mm_read(m->b->pid, &m->list, &files, &there, &e));
	there.exe_file = m->mm.exe_file;
	assert_memory_equal(&there, &m->mm, sizeof(there));
	brk = remote_do(m->b, &e, "brk", SYS_brk, 0);
	assert_int_equal(brk, m->mm.brk);
	fsfile_table_free(&files);
}

void read_source(pid_t pid, struct moved *m)
{
	struct err e = ERR_INIT;

	memset(m, 0, sizeof(*m));
	MUST_OK(vma_list_read(pid, &m->files, &m->refusals, &m->list, &e));
	if (m->refusals.n)
		fail_msg("refused: %s", refusals_text(&m->refusals));
	MUST_OK(vma_list_validate(&m->list, m->files.n, &e));
	MUST_OK(mm_read(pid, &m->list, &m->files, &m->mm, &e));
	MUST_OK(fsfile_prepare_offer(&m->files, true, &e));
}

static void open_files(struct moved *m)
{
	struct err e = ERR_INIT;

	m->fds = calloc(m->files.n + 1, sizeof(int));
	for (uint32_t i = 0; i < m->files.n; i++) {
		struct fsfile_answer a = FSFILE_ANSWER_INIT;

		MUST_OK(fsfile_match(&m->files.v[i], &a, &m->refusals, &e));
		MUST(a.verdict != FSFILE_REFUSE);
		MUST_OK(fsfile_open_lacking(&m->files.v[i], &a, &e));
		MUST_OK(fsfile_finish(&m->files.v[i], &a, &e));
		m->fds[i] = m->files.v[i].type == FSFILE_SYSV ? m->files.v[i].sysv.id : a.fd;
	}
}

/* Builds the layout of pid in a new skeleton. */
void build(pid_t pid, struct moved *m)
{
	struct fsfile_table own_files = { 0 };
	struct vma_list here = { 0 }, own = { 0 };
	struct refusals none = { 0 };
	struct err e = ERR_INIT;
	struct vdso theirs, ours;
	char program[4096] = "";
	bool same_program;
	uint64_t address;

	MUST_OK(vma_list_read(getpid(), &own_files, &none, &here, &e));
	address = vma_find_free(&m->list, &here, FAKE_SCRATCH_SIZE);
	MUST(address);
	open_files(m);
	m->b = calloc(1, sizeof(*m->b));
	fake_skeleton_start(m->b, address);
	MUST(remote_do(m->b, &e, "getpid", SYS_getpid) == m->b->pid);
	MUST_OK(vma_list_read(m->b->pid, &own_files, &none, &own, &e));
	MUST_OK(vdso_read(pid, &m->list, &theirs, &e));
	MUST_OK(vdso_read(m->b->pid, &own, &ours, &e));
	MUST(vdso_compatible(&theirs, &ours, &none));
	vma_plan_empty(m->b, &own, NULL);
	MUST_OK(vdso_plan_move(m->b, &m->list, &own, &e));
	MUST_OK(vma_plan_build(m->b, NULL, &m->list, m->fds, m->files.n, NULL, &e));
	MUST_OK(batch_run(m->b, &e));
	batch_reset(m->b);
	/* The kernel changes the link only while the old program is not mapped; a fork of this test maps it on purpose */
	same_program = readlink("/proc/self/exe", program, sizeof(program) - 1) > 0 && !strcmp(program, m->files.v[m->mm.exe_file].path);
	mm_plan_restore(m->b, &m->mm, same_program ? -1 : m->fds[m->mm.exe_file]);
	MUST_OK(batch_run(m->b, &e));
	batch_reset(m->b);
	fsfile_table_free(&own_files);
	vma_list_free(&own);
	vma_list_free(&here);
	refusals_free(&none);
}

void end_moved(struct moved *m)
{
	if (m->b)
		fake_skeleton_end(m->b);
	for (uint32_t i = 0; m->fds && i < m->files.n; i++)
		if (m->files.v[i].type != FSFILE_SYSV)
			close(m->fds[i]);
	free(m->b);
	free(m->fds);
	vma_list_free(&m->list);
	fsfile_table_free(&m->files);
	refusals_free(&m->refusals);
}

void check_proc_link(pid_t a, pid_t b)
{
	char path[64], x[4096] = "", y[4096] = "";

	snprintf(path, sizeof(path), "/proc/%d/exe", a);
	MUST(readlink(path, x, sizeof(x) - 1) > 0);
	snprintf(path, sizeof(path), "/proc/%d/exe", b);
	MUST(readlink(path, y, sizeof(y) - 1) > 0);
	assert_string_equal(x, y);
}
