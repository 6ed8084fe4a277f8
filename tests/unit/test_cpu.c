/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* test_cpu.c - features of processors by name, levels, and what a process may use */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cpu.h"
#include "image/cpu_uses.h"

static bool has(const struct cpu_set64 *set, const char *name)
{
	int i = cpu_feature_find(name);

	assert_true(i >= 0);
	return cpu_has(set, (unsigned int)i);
}

/* The kernel's list has what this host has, but for what is only called otherwise there. */
static void test_here(void **state)
{
	struct cpu_set64 here = cpu_here();
	char line[8192] = "";
	FILE *f = fopen("/proc/cpuinfo", "re");

	(void)state;
	assert_non_null(f);
	while (fgets(line, sizeof(line) - 2, f) && strncmp(line, "flags", 5) != 0)
		;
	fclose(f);
	strcpy(strchr(line, '\n'), " ");
	for (unsigned int i = 0; i < cpu_features(); i++) {
		char word[CPU_NAME_MAX + 2];

		snprintf(word, sizeof(word), " %s ", cpu_feature_name(i));
		if (strstr(line, word) && !cpu_has(&here, i))
			fail_msg("%s is in /proc/cpuinfo, and not seen", cpu_feature_name(i));
	}
	assert_true(has(&here, "cx16"));
}

static void test_levels(void **state)
{
	struct cpu_set64 set;

	(void)state;
	assert_true(cpu_baseline("x86-64-v2", &set));
	assert_true(has(&set, "popcnt") && has(&set, "xsave"));
	assert_false(has(&set, "avx2") || has(&set, "aes"));
	assert_true(cpu_baseline("x86-64-v3", &set));
	assert_true(has(&set, "avx2") && has(&set, "abm"));
	assert_false(has(&set, "avx512f") || has(&set, "sha_ni"));
	assert_false(cpu_baseline("x86-64-v5", &set));
	assert_false(cpu_baseline("", &set));
}

static const char *before(const char *name)
{
	return !strcmp(name, "GODEBUG") ? "gctrace=0" : !strcmp(name, "GLIBC_TUNABLES") ? "glibc.malloc.check=1" : NULL;
}

static const char *nothing(const char *name)
{
	(void)name;
	return NULL;
}

static void test_variables(void **state)
{
	char v[CPU_VARIABLES][CPU_VARIABLE_MAX];
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(cpu_baseline_variables("x86-64-v3", before, v, &e), 0);
	assert_non_null(strstr(v[0], "GLIBC_TUNABLES=glibc.malloc.check=1:glibc.cpu.hwcaps=-"));
	assert_non_null(strstr(v[0], "-AVX512F"));
	assert_null(strstr(v[0], "-AVX2"));
	assert_non_null(strstr(v[1], "GODEBUG=gctrace=0,cpu."));
	assert_string_equal(v[3], CPU_BASELINE_VARIABLE "=x86-64-v3");
	assert_int_equal(cpu_baseline_variables("x86-64-v2", nothing, v, &e), 0);
	assert_non_null(strstr(v[0], "GLIBC_TUNABLES=glibc.cpu.hwcaps=-"));
	assert_non_null(strstr(v[0], "-AVX2"));
	assert_non_null(strstr(v[1], "cpu.avx2=off"));
	assert_int_equal(cpu_baseline_variables("v2", nothing, v, &e), -EINVAL);
	assert_non_null(strstr(e.message, "x86-64-v2"));
}

static void describe(pid_t pid, const struct cpu_programs *known, struct cpu_program *ret)
{
	Gw__Process *msg = calloc(1, sizeof(*msg));
	struct cpu_programs one = { .n = 0 };
	struct err e = ERR_INIT;

	gw__process__init(msg);
	cpu_uses_describe(pid, known, msg);
	assert_int_equal(cpu_uses_validate(msg, &e), 0);
	cpu_uses_remember(msg, &one);
	assert_int_equal(one.n, 1);
	*ret = one.v[0];
	gw__process__free_unpacked(msg, NULL);
}

/* What has come is asked for what it began with; a child is the same program, until it calls exec. */
static void test_programs(void **state)
{
	struct cpu_programs known = { .n = 0 };
	struct cpu_program self, child, other;
	struct cpu_set64 here = cpu_here();
	int pipe_fds[2], other_fds[2];
	pid_t pid, exec;

	(void)state;
	assert_int_equal(pipe(pipe_fds) | pipe(other_fds), 0);
	describe(getpid(), &known, &self);
	assert_memory_equal(&self.uses, &here, sizeof(here));
	known.n = 1;
	known.v[0] = (struct cpu_program){ .id = self.id };
	cpu_add(&known.v[0].uses, (unsigned int)cpu_feature_find("cx16"));
	pid = fork();
	if (!pid) {
		pause();
		_exit(0);
	}
	exec = fork();
	if (!exec) {
		dup2(other_fds[1], 1);
		dup2(pipe_fds[0], 0);
		setenv(CPU_BASELINE_VARIABLE, "x86-64-v2", 1);
		execl("/bin/sh", "sh", "-c", "echo; read x", (char *)NULL);
		_exit(1);
	}
	assert_int_equal(read(other_fds[0], &(char){ 0 }, 1), 1);
	describe(pid, &known, &child);
	assert_true(child.id == self.id);
	assert_memory_equal(&child.uses, &known.v[0].uses, sizeof(child.uses));
	describe(exec, &known, &other);
	assert_true(other.id != self.id);
	assert_true(has(&other.uses, "cx16"));
	assert_false(has(&other.uses, "avx2") || has(&other.uses, "xsavec"));
	kill(pid, SIGKILL);
	kill(exec, SIGKILL);
	assert_true(waitpid(pid, NULL, 0) == pid && waitpid(exec, NULL, 0) == exec);
}

static void test_check(void **state)
{
	char *names[] = { "cx16", "a_later_one" }, *bad[] = { "cx16\n" };
	struct refusals r = { 0 };
	struct err e = ERR_INIT;
	Gw__Process msg;

	(void)state;
	gw__process__init(&msg);
	msg.cpu_uses = names;
	msg.n_cpu_uses = 1;
	msg.xfeatures = 0xe7;
	cpu_uses_check(&msg, &r);
	assert_int_equal(r.n, 0);
	assert_int_equal(cpu_uses_state(&msg), 0x3); /* of the others it uses none */
	assert_int_equal(cpu_hide("cx16, avx2", &e), 0);
	msg.n_cpu_uses = 2;
	cpu_uses_check(&msg, &r);
	assert_int_equal(r.n, 1);
	assert_string_equal(r.v[0].code, "host.cpu");
	assert_non_null(strstr(r.v[0].thing, "cx16, a_later_one"));
	assert_int_equal(cpu_hide("", &e), 0);
	assert_int_equal(cpu_hide("avx3", &e), -EINVAL);
	refusals_free(&r);
	msg.cpu_uses = bad;
	msg.n_cpu_uses = 1;
	assert_int_equal(cpu_uses_validate(&msg, &e), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_here), cmocka_unit_test(test_levels), cmocka_unit_test(test_variables), cmocka_unit_test(test_programs),
					    cmocka_unit_test(test_check) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
