// SPDX-License-Identifier: GPL-2.0-or-later
/* ns_tree_mounts.c - victims whose processes are in several mount namespaces: what each has mounted, what goes from one to the other, files by the same path */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tree.h"

static char place[4096];
static pid_t members[4];
static int outer;

static const char *in(const char *name)
{
	static char path[4][4200];
	static unsigned next;
	char *p = path[next++ % 4];

	snprintf(p, sizeof(path[0]), "%s/%s", place, name);
	return p;
}

static void expect_at(int dir, const char *name, const char *text)
{
	char got[256] = "";
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || read(fd, got, sizeof(got) - 1) < 0)
		fail("%s: errno %d", name, errno);
	expect_text(name, text, got);
	close(fd);
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* What is mounted where, without numbers. */
static void own_mounts(struct text *t)
{
	char *lines[512], line[8192], root[4096], where[4096], flags[1024];
	size_t n = 0;
	FILE *f = fopen("/proc/self/mountinfo", "re");

	must(f);
	while (fgets(line, sizeof(line), f)) {
		const char *dash = strstr(line, " - "), *shared = strstr(line, " shared:"), *master = strstr(line, " master:");

		if (!dash || sscanf(line, "%*d %*d %*s %4095s %4095s %1023s", root, where, flags) != 3)
			continue;
		must(n < 512 && asprintf(&lines[n++], "%s %s%s%s%s", where, flags, !strncmp(where, place, strlen(place)) && shared && shared < dash ? " shared" : "",
					 !strncmp(where, place, strlen(place)) && master && master < dash ? " slave" : "", dash) > 0);
	}
	fclose(f);
	qsort(lines, n, sizeof(*lines), by_text);
	for (size_t i = 0; i < n; i++) {
		text_add(t, "%s", lines[i]);
		free(lines[i]);
	}
}

static void own_links(struct text *t)
{
	static const char *const links[] = { "cwd", "root", "exe" };
	char path[64], to[4096];

	for (size_t i = 0; i < sizeof(links) / sizeof(*links); i++) {
		ssize_t n;

		snprintf(path, sizeof(path), "/proc/self/%s", links[i]);
		n = readlink(path, to, sizeof(to) - 1);
		must(n > 0);
		to[n] = 0;
		text_add(t, "%s %s\n", links[i], to);
	}
}

static void snapshot(struct text *t)
{
	own_mounts(t);
	own_links(t);
}

/* The peer of `inner`'s: what the one mounts, the other sees. */
static void inner(int told)
{
	struct text was = { 0 }, is = { 0 };
	int fd, dir;

	must(!unshare(CLONE_NEWNS) && !mount("inner", in("inner"), "tmpfs", 0, "size=1m"));
	must(!mount(NULL, in("slave"), NULL, MS_SLAVE, NULL));
	fd = make_text_file(in("inner/file"), "that the innermost has open");
	dir = open(in("common"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	must(dir >= 0 && lseek(fd, 5, SEEK_SET) == 5 && !chdir(in("inner")));
	snapshot(&was);
	member_ready(told);
	member_wait();
	snapshot(&is);
	expect_text("mounts of the innermost", was.s, is.s);
	expect(lseek(fd, 0, SEEK_CUR) == 5);
	expect_at(AT_FDCWD, "file", "that the innermost has open");
	expect_at(AT_FDCWD, in("common/text"), "of both");
	expect_at(dir, "text", "of both");
	expect(!mount("later", in("common/later"), "tmpfs", 0, "size=1m")); /* which the other sees */
	expect(!mount("own", in("slave/later"), "tmpfs", 0, "size=1m"));    /* which it does not */
	close(make_text_file(in("common/later/sign"), "from the innermost"));
	member_fail("the innermost");
	_exit(0);
}

static void middle(int told)
{
	struct text was = { 0 }, is = { 0 };
	pid_t child;
	char *map;
	int fd;

	must(!unshare(CLONE_NEWNS) && !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) && !mount("middle", place, "tmpfs", MS_NOSUID, "size=4m,mode=711"));
	must(!mkdir(in("inner"), 0700) && !mkdir(in("common"), 0755) && !mkdir(in("slave"), 0755) && !mkdir(in("bound"), 0755));
	must(!mount("common", in("common"), "tmpfs", 0, "size=1m") && !mount(NULL, in("common"), NULL, MS_SHARED, NULL));
	must(!mount("slave", in("slave"), "tmpfs", 0, "size=1m") && !mount(NULL, in("slave"), NULL, MS_SHARED, NULL));
	must(!mkdir(in("common/later"), 0755) && !mkdir(in("slave/later"), 0755) && !mount(in("common"), in("bound"), NULL, MS_BIND, NULL));
	close(make_text_file(in("common/text"), "of both"));
	fd = make_text_file(in("outside"), "that only the middle one sees");
	must(ftruncate(fd, 8192) == 0);
	map = mmap(NULL, 8192, PROT_RW, MAP_SHARED, fd, 0);
	must(map != MAP_FAILED);
	strcpy(map + 4096, "written to a mapping");
	child = member_fork(inner, true);
	snapshot(&was);
	member_ready(told);
	member_wait();
	snapshot(&is);
	expect_text("mounts of the middle one", was.s, is.s);
	expect_text("a mapping", "written to a mapping", map + 4096);
	expect_at(AT_FDCWD, in("outside"), "that only the middle one sees");
	member_ask("the innermost", child);
	expect_at(AT_FDCWD, in("common/later/sign"), "from the innermost");
	expect_at(AT_FDCWD, in("bound/later/sign"), "from the innermost");
	expect(access(in("slave/later/sign"), F_OK) < 0);
	member_fail("the middle one");
	_exit(0);
}

/* A service's /tmp. */
static void private_place(int told)
{
	char cwd[64];
	int fd;

	must(!unshare(CLONE_NEWNS) && !mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) && !mount("private", place, "tmpfs", 0, "size=1m"));
	fd = make_text_file(in("outside"), "of the same name");
	must(!mkdir(in("dir"), 0755) && !chroot(place) && !chdir("/dir"));
	member_ready(told);
	member_wait();
	expect(getcwd(cwd, sizeof(cwd)));
	expect_text("the private one's directory", "/dir", cwd);
	expect_at(AT_FDCWD, "/outside", "of the same name");
	expect(lseek(fd, 0, SEEK_CUR) == 16);
	member_fail("the private one");
	_exit(0);
}

static void spaces_setup(void)
{
	snprintf(place, sizeof(place), "%s", beside("place"));
	must(!mkdir(place, 0755));
	outer = make_text_file(in("outside"), "of the first");
	members[0] = member_fork(middle, true);
	members[1] = member_fork(private_place, true);
}

static void spaces_check(void)
{
	expect_at(AT_FDCWD, in("outside"), "of the first");
	expect(write(outer, ", still", 7) == 7);
	expect_at(AT_FDCWD, in("outside"), "of the first, still");
	member_ask("the middle one", members[0]);
	member_ask("the private one", members[1]);
	expect(access(in("common"), F_OK) < 0);
}

VICTIM(ns_spaces, V_KEEP_OUT, spaces_setup, NULL, spaces_check);

static void spaces_below_setup(void)
{
	must(!unshare(CLONE_NEWNS) && !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
	spaces_setup();
}

/* The first process has its own, too. */
VICTIM(ns_spaces_below, V_KEEP_OUT, spaces_below_setup, NULL, spaces_check);
