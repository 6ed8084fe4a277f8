/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* cpu_uses.c - see cpu_uses.h */
#include "image/cpu_uses.h"

#include <ctype.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/util.h"
#include "image/file_look.h"
#include "image/sha256.h"

#define RANDOM_BYTES 16
#define ENVIRON_MAX (4u << 20)

/* Components of XCR0 and the features without which nobody uses them. Others are for everybody. */
static const struct {
	uint64_t state;
	const char *feature;
} users[] = { { 0x4, "avx" }, { 0xe0, "avx512f" }, { 0x200, "ospke" }, { 0x60000, "amx_tile" } };

static uint64_t find_random(pid_t pid)
{
	char path[64];
	uint64_t entry[2], ret = 0;
	cleanup_close int fd = -1;

	snprintf(path, sizeof(path), "/proc/%d/auxv", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	while (fd >= 0 && !ret && read(fd, entry, sizeof(entry)) == sizeof(entry) && entry[0] != AT_NULL)
		ret = entry[0] == AT_RANDOM ? entry[1] : 0;
	return ret;
}

static uint64_t program_of(pid_t pid)
{
	uint8_t bytes[RANDOM_BYTES], digest[32];
	uint64_t at = find_random(pid), id;
	struct sha256 sha;
	struct iovec here = { bytes, sizeof(bytes) }, there = { (void *)(uintptr_t)at, sizeof(bytes) };

	if (!at || process_vm_readv(pid, &here, 1, &there, 1, 0) != (ssize_t)sizeof(bytes))
		return 0;
	sha256_start(&sha);
	sha256_add(&sha, bytes, sizeof(bytes));
	sha256_end(&sha, digest); /* C libraries make their secrets of them: they are nobody else's */
	memcpy(&id, digest, sizeof(id));
	return id;
}

/* What it was started with; a program that has written over that is not confined. */
static bool find_baseline(pid_t pid, char ret[CPU_NAME_MAX])
{
	static const char name[] = CPU_BASELINE_VARIABLE "=";
	cleanup_free char *line = NULL;
	cleanup_fclose FILE *f = NULL;
	size_t room = 0, all = 0;
	char path[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/environ", (int)pid);
	f = fopen(path, "re");
	while (f && (n = getdelim(&line, &room, 0, f)) > 0 && (all += (size_t)n) < ENVIRON_MAX)
		if (!strncmp(line, name, sizeof(name) - 1)) {
			snprintf(ret, CPU_NAME_MAX, "%s", line + sizeof(name) - 1);
			return true;
		}
	return false;
}

static struct cpu_set64 uses_of(pid_t pid, uint64_t program, const struct cpu_programs *known)
{
	struct cpu_set64 ret = cpu_here(), allowed;
	char level[CPU_NAME_MAX];

	for (size_t i = 0; i < known->n; i++)
		if (program && known->v[i].id == program)
			return known->v[i].uses;
	if (find_baseline(pid, level) && cpu_baseline(level, &allowed))
		for (unsigned int w = 0; w < CPU_WORDS; w++)
			ret.word[w] &= allowed.word[w];
	return ret;
}

void cpu_uses_describe(pid_t pid, const struct cpu_programs *known, Gw__Process *msg)
{
	struct cpu_set64 uses;

	msg->program = program_of(pid);
	uses = uses_of(pid, msg->program, known);
	for (size_t i = 0; i < msg->n_cpu_uses; i++)
		free(msg->cpu_uses[i]);
	free(msg->cpu_uses);
	msg->n_cpu_uses = 0;
	msg->cpu_uses = fd_alloc((cpu_features() + 1) * sizeof(*msg->cpu_uses));
	for (unsigned int i = 0; i < cpu_features(); i++)
		if (cpu_has(&uses, i))
			msg->cpu_uses[msg->n_cpu_uses++] = fd_strdup(cpu_feature_name(i));
}

void cpu_uses_remember(const Gw__Process *msg, struct cpu_programs *programs)
{
	struct cpu_program p = { .id = msg->program };

	for (size_t i = 0; i < programs->n; i++)
		if (programs->v[i].id == p.id)
			return;
	/* A source of an older version says nothing of it. */
	if (!p.id || !msg->n_cpu_uses || programs->n == CPU_PROGRAMS_MAX)
		return;
	for (size_t i = 0; i < msg->n_cpu_uses; i++) {
		int feature = cpu_feature_find(msg->cpu_uses[i]);

		if (feature >= 0)
			cpu_add(&p.uses, (unsigned int)feature);
	}
	programs->v[programs->n++] = p;
}

static bool is_name(const char *text)
{
	size_t len = strnlen(text, CPU_NAME_MAX);

	for (size_t i = 0; i < len; i++)
		if (!islower((unsigned char)text[i]) && !isdigit((unsigned char)text[i]) && text[i] != '_')
			return false;
	return len > 0 && len < CPU_NAME_MAX;
}

int cpu_uses_validate(const Gw__Process *msg, struct err *e)
{
	if (msg->n_cpu_uses > CPU_USES_MAX)
		return err_set(e, -EBADMSG, "process %d: %zu features of its processor", msg->pid, msg->n_cpu_uses);
	for (size_t i = 0; i < msg->n_cpu_uses; i++)
		if (!is_name(msg->cpu_uses[i]))
			return err_set(e, -EBADMSG, "process %d: the name of a feature of its processor", msg->pid);
	return 0;
}

void cpu_uses_check(const Gw__Process *msg, struct refusals *r)
{
	struct cpu_set64 here = cpu_here();
	char lacking[512] = "";
	size_t len = 0;

	for (size_t i = 0; i < msg->n_cpu_uses; i++) {
		int feature = cpu_feature_find(msg->cpu_uses[i]);

		if ((feature < 0 || !cpu_has(&here, (unsigned int)feature)) && len < sizeof(lacking) - CPU_NAME_MAX - 2)
			len += (size_t)snprintf(lacking + len, sizeof(lacking) - len, "%s%s", len ? ", " : "", msg->cpu_uses[i]);
	}
	if (len)
		refusals_add(r, "host.cpu", "the destination's processor lacks instructions that the program may have chosen when it began",
			     "choose a destination that has them, or start it with godwit run --cpu-baseline LEVEL", "process %d: %s", msg->pid, lacking);
}

uint64_t cpu_uses_state(const Gw__Process *msg)
{
	uint64_t ret = msg->xfeatures;

	if (!msg->n_cpu_uses)
		return ret;
	for (size_t i = 0; i < sizeof(users) / sizeof(*users); i++) {
		bool uses = false;

		for (size_t k = 0; k < msg->n_cpu_uses && !uses; k++)
			uses = !strcmp(msg->cpu_uses[k], users[i].feature);
		if (!uses)
			ret &= ~users[i].state;
	}
	return ret;
}
