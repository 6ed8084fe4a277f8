/* SPDX-License-Identifier: GPL-2.0-or-later */
/* test_vma_programs.c - the layouts of real programs, built anew and compared line by line */
#include "layout_move.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "base/util.h"
#include "image/vma_restore.h"

/* Starts a real program that prints a line or listens when it is ready; its layout is taken once it stands still. */
static pid_t start_program(char *const argv[])
{
	struct vma_list before = { 0 }, after = { 0 };
	struct fsfile_table files = { 0 };
	struct refusals refusals = { 0 };
	struct err e = ERR_INIT;
	int quiet = 0;
	pid_t pid = fork();

	if (pid == 0) {
		int null = open("/dev/null", O_RDWR);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(null, 0);
		dup2(null, 1);
		dup2(null, 2);
		execvp(argv[0], argv);
		_exit(127);
	}
	/* Ready: the layout did not change for a while */
	for (int i = 0; i < 200 && quiet < 15; i++) {
		bool changed = true;
		int status;

		MUST(usleep(20000) == 0);
		if (waitpid(pid, &status, WNOHANG) == pid)
			return -1;
		if (before.n && vma_list_reread(pid, &before, false, &files, &refusals, &after, &changed, &e) == 0 && !changed) {
			quiet++;
			continue;
		}
		quiet = 0;
		vma_list_free(&before);
		vma_list_free(&after);
		if (vma_list_read(pid, &files, &refusals, &before, &e) < 0)
			before = (struct vma_list){ 0 };
	}
	vma_list_free(&before);
	fsfile_table_free(&files);
	refusals_free(&refusals);
	kill(pid, SIGSTOP);
	return pid;
}

static void move_program(char *const argv[])
{
	pid_t pid = start_program(argv);
	struct err e = ERR_INIT;
	struct moved m;

	if (pid < 0)
		skip(); /* not installed */
	read_source(pid, &m);
	build(pid, &m);
	vma_plan_finish(m.b, &m.list);
	MUST_OK(batch_run(m.b, &e));
	compare_layouts(pid, m.b->pid);
	check_proc_link(pid, m.b->pid);
	compare_mm(pid, &m);
	end_moved(&m);
	end_child(pid);
}

static void test_python(void **state)
{
	move_program((char *[]){ "/usr/bin/python3", "-c", "import time, sqlite3, json; time.sleep(1000)", NULL });
}

static void test_node(void **state)
{
	move_program((char *[]){ "node", "-e", "setTimeout(() => 0, 1e6)", NULL });
}

static void test_redis(void **state)
{
	move_program((char *[]){ "redis-server", "--port", "0", "--unixsocket", "/tmp/godwit-test-redis.sock", "--save", "", NULL });
	unlink("/tmp/godwit-test-redis.sock");
}

static void test_java(void **state)
{
	FILE *f = fopen("/tmp/GodwitTestSleep.java", "we");

	MUST(f);
	fputs("class GodwitTestSleep { public static void main(String[] a) throws Exception { Thread.sleep(1000000); } }", f);
	fclose(f);
	move_program((char *[]){ "java", "-XX:-UsePerfData", "/tmp/GodwitTestSleep.java", NULL });
	unlink("/tmp/GodwitTestSleep.java");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_python),
		cmocka_unit_test(test_node),
		cmocka_unit_test(test_redis),
		cmocka_unit_test(test_java),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
