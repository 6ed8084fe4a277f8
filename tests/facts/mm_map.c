// SPDX-License-Identifier: GPL-2.0-or-later
/* mm_map.c - PR_SET_MM_MAP restores brk, arguments, environment, auxiliary vector and the executable link */
#include <linux/prctl.h>
#include <sys/prctl.h>

#include "fact.h"

static void read_link(char *text, size_t len)
{
	ssize_t n = readlink("/proc/self/exe", text, len - 1);

	text[n < 0 ? 0 : n] = 0;
}

static void current(struct prctl_mm_map *m)
{
	char line[2048], *p;
	FILE *f = fopen("/proc/self/stat", "re");
	unsigned long v[52] = { 0 };

	MUST(fgets(line, sizeof(line), f));
	fclose(f);
	p = strrchr(line, ')') + 4;
	for (int i = 4; i <= 51 && p; i++) {
		v[i] = strtoul(p, &p, 10);
		if (*p == ' ')
			p++;
	}
	*m = (struct prctl_mm_map){ .start_code = v[26], .end_code = v[27], .start_stack = v[28], .start_data = v[45], .end_data = v[46],
				    .start_brk = v[47], .brk = (uintptr_t)sbrk(0), .arg_start = v[48], .arg_end = v[49], .env_start = v[50],
				    .env_end = v[51], .exe_fd = -1u };
}

static int set(struct prctl_mm_map *m)
{
	return prctl(PR_SET_MM, PR_SET_MM_MAP, m, sizeof(*m), 0) < 0 ? -errno : 0;
}

/* exe_fd: in a child whose own executable is unmapped by injected calls (it waits in the vdso meanwhile). */
static void executable_link(const struct prctl_mm_map *m)
{
	struct prctl_mm_map *shared = map_shared(PAGE);
	char path[] = "/tmp/fact-exe-XXXXXX", maps[64], line[512], text[4096], exe[64];
	int f = open("/bin/true", O_RDONLY | O_CLOEXEC), status;
	int deleted, w = mkstemp(path);
	unsigned long start, end;
	ssize_t n;

	MUST(fchmod(w, 0755) == 0);
	deleted = open(path, O_RDONLY | O_CLOEXEC);
	*shared = *m;
	shared->exe_fd = (unsigned)f;
	FACT(set(shared) == -EBUSY, "exe_fd while the old executable is still mapped: EBUSY");
	pid_t pid = fork();
	if (pid == 0)
		for (;;)
			pause();
	usleep(2000);
	seize_stop(pid, PTRACE_O_EXITKILL);
	uintptr_t at = vdso_syscall(pid);
	read_link(text, sizeof(text));
	snprintf(maps, sizeof(maps), "/proc/%d/maps", pid);
	FILE *list = fopen(maps, "re");
	MUST(list);
	while (fgets(line, sizeof(line), list))
		if (strstr(line, text) && sscanf(line, "%lx-%lx", &start, &end) == 2)
			MUST(inject(pid, at, SYS_munmap, (long)start, (long)(end - start), 0, 0, 0, 0) == 0);
	fclose(list);
	long r = inject(pid, at, SYS_prctl, PR_SET_MM, PR_SET_MM_MAP, (long)shared, sizeof(*shared), 0, 0);
	snprintf(exe, sizeof(exe), "/proc/%d/exe", pid);
	n = readlink(exe, text, sizeof(text) - 1);
	text[n < 0 ? 0 : n] = 0;
	FACT(r == 0 && strstr(text, "true"), "with the old executable unmapped: %s; exe -> %s", r ? strerror((int)-r) : "ok", text);
	shared->exe_fd = (unsigned)w;
	r = inject(pid, at, SYS_prctl, PR_SET_MM, PR_SET_MM_MAP, (long)shared, sizeof(*shared), 0, 0);
	SAW("a second time, a file that is open for writing: %s", r ? strerror((int)-r) : "ok");
	close(w);
	inject(pid, at, SYS_close, w, 0, 0, 0, 0, 0);
	unlink(path);
	shared->exe_fd = (unsigned)deleted;
	r = inject(pid, at, SYS_prctl, PR_SET_MM, PR_SET_MM_MAP, (long)shared, sizeof(*shared), 0, 0);
	n = readlink(exe, text, sizeof(text) - 1);
	text[n < 0 ? 0 : n] = 0;
	FACT(r == 0 && strstr(text, "(deleted)"), "an unlinked file: %s; exe -> %s", r ? strerror((int)-r) : "ok", text);
	kill(pid, SIGKILL);
	waitpid(pid, &status, __WALL);
}

static void limits(char *args)
{
	struct prctl_mm_map m;
	int r;

	current(&m);
	m.start_data = 16;
	r = set(&m);
	SAW("start_data below mmap_min_addr: %s", r ? strerror(-r) : "ok");
	current(&m);
	m.start_stack = 0x700000000000;
	r = set(&m);
	SAW("start_stack where nothing is mapped: %s", r ? strerror(-r) : "ok");
	current(&m);
	m.arg_start = 0x10000, m.arg_end = 0x10010;
	r = set(&m);
	SAW("arguments where nothing is mapped: %s", r ? strerror(-r) : "ok");
	current(&m);
	m.start_brk = (uintptr_t)args, m.brk = m.start_brk;
	r = set(&m);
	SAW("brk in the middle of a mapping: %s", r ? strerror(-r) : "ok");
	if (fork() == 0) {
		MUST(setresuid(65534, 65534, 65534) == 0);
		current(&m);
		m.arg_start = m.arg_end = m.env_start = m.env_end = m.start_stack;
		r = set(&m);
		SAW("as another user without capabilities: %s", r ? strerror(-r) : "ok");
		_exit(0);
	}
	wait(NULL);
}

int main(void)
{
	struct prctl_mm_map m;
	char text[4096];
	unsigned size = 0;
	uint64_t auxv[64] = { 6, 4096, 0, 0 };
	int r, f;

	MUST(prctl(PR_SET_MM, PR_SET_MM_MAP_SIZE, &size, 0, 0) == 0);
	FACT(size == sizeof(m), "struct size %u", size);
	current(&m);
	r = set(&m);
	FACT(r == 0, "same values, as root: %s", r ? strerror(-r) : "ok");
	char *args = map_anon(PAGE);
	strcpy(args, "renamed");
	m.arg_start = (uintptr_t)args, m.arg_end = m.arg_start + 8;
	m.auxv = (void *)auxv, m.auxv_size = sizeof(auxv[0]) * 4;
	r = set(&m);
	f = open("/proc/self/cmdline", O_RDONLY);
	MUST(read(f, text, 8) == 8);
	FACT(r == 0 && !strcmp(text, "renamed"), "arguments elsewhere: cmdline reads \"%s\"", text);
	f = open("/proc/self/auxv", O_RDONLY);
	ssize_t n = read(f, text, sizeof(text));
	FACT(n >= 16 && !memcmp(text, auxv, 16), "auxiliary vector of %zd bytes", n);
	m.brk += 16 * PAGE;
	r = set(&m);
	FACT(r == 0 && syscall(SYS_brk, 0) == (long)m.brk, "brk is only a number: %s", r ? strerror(-r) : "moved");
	m.brk -= 16 * PAGE;
	MUST(set(&m) == 0);
	m.auxv = NULL, m.auxv_size = 0;

	executable_link(&m);
	m.exe_fd = (unsigned)open("/etc/passwd", O_RDONLY | O_CLOEXEC);
	r = set(&m);
	FACT(r == -EACCES, "a file that is not executable: %s", r ? strerror(-r) : "ok");
	m.exe_fd = (unsigned)open("/bin/true", O_PATH | O_CLOEXEC);
	r = set(&m);
	FACT(r == -EBADF, "an O_PATH descriptor: %s", r ? strerror(-r) : "ok");
	m.exe_fd = -1u;
	limits(args);
	return fact_result();
}
