// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * portable_arrive.c - the destination's side of a move by a program's own state; see portable.h
 *
 * The program is started as the user that it was, by its own path or that with ".ARCHITECTURE" behind it, with its arguments and environment; it reads its state and waits. Whether it
 * was meant to come is in the record (outcome.h), of which it has a descriptor to read: when this worker dies it looks there by itself.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/log.h"
#include "base/util.h"
#include "daemon/history.h"
#include "daemon/portable.h"
#include "image/admission.h"
#include "migrate/decode.h"
#include "migrate/outcome.h"
#include "migrate/refuse_send.h"
#include "migrate/registry.h"
#include "migrate/steps.h"
#include "portable/state.h"

#define READ_MS 600000 /* a program reads its state */
#define RELEASE_MS 15000
#define OFFER_BYTES_MAX 65536u
#define FIRST_FD 3

struct arriving {
	const struct daemon *d;
	int link, state, talk, record;
	uint64_t bytes, bytes_max; /* of the state: memory of this host's that is charged to nobody */
	Gw__PortableOffer *offer;
	char program[4200];
	char *start_bytes;
	struct portable_start start;
	pid_t pid;
};

static bool is_text(const char *text, size_t max)
{
	size_t len = strnlen(text, max + 1);

	for (size_t i = 0; i < len; i++)
		if (text[i] < ' ' || text[i] > '~')
			return false;
	return len <= max;
}

int portable_offer_decode(const void *data, size_t len, Gw__PortableOffer **ret, struct err *e)
{
	Gw__PortableOffer *o = gw__portable_offer__unpack(NULL, len, data);
	bool good = o && is_text(o->unit, 299) && strchr(o->unit, ':') && hello_name_valid(o->from) && is_text(o->reason, REGISTRY_REASON_MAX - 1) && is_text(o->program, 255) && o->program[0] &&
		    is_text(o->machine, 31) && o->path[0] == '/' && strlen(o->path) < 4096 && o->n_groups <= PORTABLE_GROUPS_MAX && o->n_limits == 2ul * PORTABLE_LIMITS &&
		    o->uid != UINT32_MAX && o->gid != UINT32_MAX && o->moves < UINT32_MAX;

	if (!good) {
		if (o)
			gw__portable_offer__free_unpacked(o, NULL);
		return err_set(e, -EPROTO, "an offer that cannot be read");
	}
	*ret = o;
	return 0;
}

/* --- whether it may come --- */

/* e_machine of this architecture; EM_NONE: one that is not known here, for which any will do. */
static uint16_t elf_machine(const char *arch)
{
	static const struct {
		const char *arch;
		uint16_t machine;
	} known[] = { { "x86_64", EM_X86_64 }, { "aarch64", EM_AARCH64 }, { "s390x", EM_S390 }, { "i686", EM_386 }, { "armv7l", EM_ARM }, { "ppc64le", EM_PPC64 }, { "riscv64", EM_RISCV } };

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (!strcmp(known[i].arch, arch))
			return known[i].machine;
	return EM_NONE;
}

static bool is_program(const char *path, const char *arch)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	uint16_t wanted = elf_machine(arch), machine;
	unsigned char head[EI_NIDENT + 4];
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || !(st.st_mode & 0111) || read(fd, head, sizeof(head)) != (ssize_t)sizeof(head) || memcmp(head, ELFMAG, SELFMAG) != 0)
		return false;
	machine = head[EI_DATA] == ELFDATA2MSB ? (uint16_t)(head[18] << 8 | head[19]) : (uint16_t)(head[19] << 8 | head[18]);
	return wanted == EM_NONE || machine == wanted;
}

/* The program's own binary for this architecture. A path that ends with the source's architecture is that without it. */
static bool find_program(struct arriving *a)
{
	const char *arch = hello_arch();
	char base[4200], suffix[64];
	size_t len, n;

	snprintf(base, sizeof(base), "%s", a->offer->path);
	n = (size_t)snprintf(suffix, sizeof(suffix), ".%s", a->offer->machine);
	len = strlen(base);
	if (len > n && !strcmp(base + len - n, suffix))
		base[len - n] = 0;
	snprintf(a->program, sizeof(a->program), "%.4100s.%s", base, arch);
	if (is_program(a->program, arch))
		return true;
	snprintf(a->program, sizeof(a->program), "%s", base);
	return is_program(a->program, arch);
}

static void judge_ids(const Gw__PortableOffer *o, struct refusals *r)
{
	Gw__Credentials who = GW__CREDENTIALS__INIT;
	uint32_t uids[4] = { o->uid, o->uid, o->uid, o->uid }, gids[4] = { o->gid, o->gid, o->gid, o->gid };

	who.uids = uids;
	who.n_uids = 4;
	who.gids = gids;
	who.n_gids = 4;
	who.groups = o->groups;
	who.n_groups = o->n_groups;
	who.cap_bounding = o->uid ? 0 : UINT64_MAX >> 23; /* 41 capabilities */
	who.cap_permitted = who.cap_bounding;
	admission_judge_credentials(&who, 0, r);
}

static int take_offer(struct arriving *a, struct err *e)
{
	cleanup_frame struct frame f = { 0 };
	struct refusals r = { 0 };
	int ret = frame_recv_expect(a->link, FRAME_OFFER, &f, OFFER_BYTES_MAX, PENDING_TIMEOUT_MS, e);

	if (ret == 0)
		ret = portable_offer_decode(f.payload, f.len, &a->offer, e);
	if (!a->offer)
		return ret < 0 ? ret : -EPROTO;
	admission_use(&a->d->config.arriving);
	judge_ids(a->offer, &r);
	if (!find_program(a))
		refusals_add(&r, "node.program", "there is no program of that name for this architecture", "install it there by the same path, or with the architecture's name behind it",
			     "%s for %s on %s", a->offer->path, hello_arch(), a->d->config.name);
	ret = r.n ? refusals_send(a->link, &r, e) : frame_send(a->link, FRAME_ACCEPT, NULL, 0, e);
	refusals_free(&r);
	return ret;
}

/* --- its state --- */

static int take_piece(struct arriving *a, const struct frame *f, struct err *e)
{
	if (f->flags == PORTABLE_START && !a->start_bytes && f->len) {
		a->start_bytes = malloc(f->len);
		if (!a->start_bytes)
			return err_sys(e, -ENOMEM, "arguments");
		memcpy(a->start_bytes, f->payload, f->len);
		return portable_start_decode(a->start_bytes, f->len, &a->start, e);
	}
	if (f->flags != PORTABLE_STATE || !a->start_bytes)
		return err_set(e, -EPROTO, "a piece of a state that does not belong there");
	a->bytes += f->len;
	if (a->bytes > a->bytes_max)
		return err_set(e, -ENOMEM, "the state has more than %llu MiB, half of the memory that is free", (unsigned long long)(a->bytes_max >> 20));
	for (size_t done = 0; done < f->len;) {
		ssize_t n = write(a->state, f->payload + done, f->len - done);

		if (n <= 0)
			return err_sys(e, n < 0 ? -errno : -EIO, "keeping the state");
		done += (size_t)n;
	}
	return 0;
}

/* Half of what is free: the other half is for what the program makes of it. */
static uint64_t room(void)
{
	cleanup_fclose FILE *f = fopen("/proc/meminfo", "re");
	char line[128];
	unsigned long long kib = 0;

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
			break;
	return kib * 512;
}

static int take_state(struct arriving *a, struct err *e)
{
	a->bytes_max = room();
	a->state = memfd_create("godwit-state", MFD_CLOEXEC);
	if (a->state < 0)
		return err_sys(e, -errno, "memfd_create");
	for (;;) {
		cleanup_frame struct frame f = { 0 };
		int r = frame_recv_expect(a->link, FRAME_CONTENT, &f, PORTABLE_PIECE_BYTES, -1, e); /* the program comes to its point in its own time */

		if (r < 0)
			return r;
		if (f.flags == PORTABLE_END)
			return a->start_bytes ? 0 : err_set(e, -EPROTO, "a state without a program");
		r = take_piece(a, &f, e);
		if (r < 0)
			return r;
	}
}

/* --- the program, before it is one: failures are said as the library would --- */

static void give_up(int talk, const char *what, const char *path)
{
	char text[512];
	int len = snprintf(text, sizeof(text), "%s %.300s: %s", what, path, strerror(errno));
	uint8_t head[3] = { TALK_REFUSE, (uint8_t)len, (uint8_t)(len >> 8) };

	(void)!send(talk, head, sizeof(head), MSG_NOSIGNAL);
	(void)!send(talk, text, (size_t)len, MSG_NOSIGNAL);
	_exit(127);
}

static void open_standard(const struct arriving *a, int talk)
{
	for (int i = 0; i < 3; i++) {
		const struct portable_standard *s = &a->start.standard[i];
		const char *path = s->path ? s->path : "/dev/null";
		int access = !s->path ? O_RDWR : s->flags & FILE_WRITE ? (s->flags & FILE_READ ? O_RDWR : O_WRONLY) : O_RDONLY;
		int fd = open(path, access | (s->flags & FILE_APPEND ? O_APPEND : 0) | O_NOCTTY | O_NOFOLLOW | O_NONBLOCK);
		struct stat st;

		if (fd < 0 || fstat(fd, &st) < 0 || (s->path && (!S_ISREG(st.st_mode) || lseek(fd, (off_t)s->position, SEEK_SET) < 0)))
			give_up(talk, "standard stream", path);
		fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
		dup2(fd, i);
		if (fd > 2)
			close(fd);
	}
}

static void become(const struct arriving *a, int talk)
{
	const Gw__PortableOffer *o = a->offer;

	for (unsigned i = 0; i < PORTABLE_LIMITS; i++) {
		struct rlimit limit = { o->limits[2ul * i], o->limits[2ul * i + 1] }, own;

		if (setrlimit((__rlimit_resource_t)i, &limit) == 0 || getrlimit((__rlimit_resource_t)i, &own) < 0)
			continue;
		limit.rlim_max = MIN(limit.rlim_max, own.rlim_max); /* as much as this host allows */
		limit.rlim_cur = MIN(limit.rlim_cur, own.rlim_max);
		setrlimit((__rlimit_resource_t)i, &limit);
	}
	if (setgroups(o->n_groups, o->groups) < 0 || setresgid(o->gid, o->gid, o->gid) < 0 || setresuid(o->uid, o->uid, o->uid) < 0)
		give_up(talk, "ids of", "the program");
	if (o->no_new_privs && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		give_up(talk, "no_new_privs of", "the program");
}

static _Noreturn void be_program(struct arriving *a, int talk)
{
	char variables[3][64], **arguments = calloc(a->start.n_arguments + 2, sizeof(*arguments));
	const int give[3] = { a->state, talk, open("/dev/null", O_RDONLY | O_CLOEXEC) };
	char record[64];
	int n = 0, fd;

	snprintf(record, sizeof(record), "/proc/self/fd/%d", a->record);
	fd = open(record, O_RDONLY | O_CLOEXEC); /* while it may */
	setsid();
	signal(SIGPIPE, SIG_DFL);
	close_range(FIRST_FD, ~0u, CLOSE_RANGE_CLOEXEC);
	if (!arguments || fd < 0 || give[2] < 0)
		give_up(talk, "starting", a->program);
	lseek(a->state, 0, SEEK_SET);
	become(a, talk);
	umask(a->start.mask);
	if (chdir(a->start.directory) < 0)
		give_up(talk, "directory", a->start.directory);
	open_standard(a, talk);
	snprintf(variables[0], sizeof(variables[0]), TALK_STATE_VARIABLE "=fd:%d", a->state);
	snprintf(variables[1], sizeof(variables[1]), TALK_FD_VARIABLE "=%d", talk);
	snprintf(variables[2], sizeof(variables[2]), TALK_RECORD_VARIABLE "=%d", fd);
	for (int i = 0; i < 3; i++)
		a->start.environment[a->start.n_environment++] = variables[i];
	fcntl(a->state, F_SETFD, 0);
	fcntl(talk, F_SETFD, 0);
	fcntl(fd, F_SETFD, 0);
	if (a->d->config.emulator[0]) {
		arguments[n++] = (char *)(uintptr_t)a->d->config.emulator;
		arguments[n++] = a->program;
	} else {
		arguments[n++] = a->start.arguments[0];
	}
	for (size_t i = 1; i < a->start.n_arguments; i++)
		arguments[n++] = a->start.arguments[i];
	execve(a->d->config.emulator[0] ? a->d->config.emulator : a->program, arguments, a->start.environment);
	give_up(talk, "starting", a->program);
	_exit(127);
}

static int start_program(struct arriving *a, struct err *e)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return err_sys(e, -errno, "socketpair");
	a->pid = fork();
	if (a->pid == 0) {
		close(pair[0]);
		be_program(a, pair[1]);
	}
	close(pair[1]);
	a->talk = pair[0];
	return a->pid < 0 ? err_sys(e, -errno, "fork") : 0;
}

static int receive(int fd, void *data, size_t len, int timeout_ms)
{
	for (size_t have = 0; have < len;) {
		struct pollfd p = { fd, POLLIN, 0 };
		ssize_t n = poll(&p, 1, timeout_ms) > 0 ? recv(fd, (char *)data + have, len - have, 0) : -1;

		if (n <= 0)
			return -EPIPE;
		have += (size_t)n;
	}
	return 0;
}

static int hear_ready(struct arriving *a, struct err *e)
{
	char text[TALK_TEXT_MAX + 1] = "";
	uint8_t word, head[2];
	size_t len;

	if (receive(a->talk, &word, 1, READ_MS) < 0)
		return err_set(e, -EPIPE, "%s has ended without having read its state: does it call godwit_portable_ready?", a->program);
	if (word == TALK_READY)
		return 0;
	if (word != TALK_REFUSE || receive(a->talk, head, sizeof(head), PENDING_TIMEOUT_MS) < 0)
		return err_set(e, -EPROTO, "%s does not say whether it has read its state", a->program);
	len = MIN((size_t)head[0] | (size_t)head[1] << 8, (size_t)TALK_TEXT_MAX);
	receive(a->talk, text, len, PENDING_TIMEOUT_MS);
	for (char *p = text; *p; p++)
		if (*p < ' ' || *p > '~')
			*p = '?';
	return err_set(e, -EINVAL, "%.200s has not taken the state: %.500s", a->program, text);
}

/* --- the commit --- */

static void enter(const struct arriving *a)
{
	struct registry_entry entry = { .pid = a->pid, .moves = a->offer->moves + 1, .cpu_ms = a->offer->cpu_ms, .started = true };
	const char *colon = strrchr(a->offer->unit, ':');

	snprintf(entry.unit, sizeof(entry.unit), "%s", a->offer->unit);
	snprintf(entry.from, sizeof(entry.from), "%s", a->offer->from);
	snprintf(entry.strategy, sizeof(entry.strategy), "portable");
	snprintf(entry.reason, sizeof(entry.reason), "%s", a->offer->reason);
	entry.local = !strncmp(a->offer->unit, a->d->config.name, (size_t)(colon - a->offer->unit)) && !a->d->config.name[colon - a->offer->unit];
	registry_add(&entry, NULL);
}

static int commit(struct arriving *a, const uint8_t *mig_id, struct err *e)
{
	const uint8_t word = TALK_GO, pid[4] = { (uint8_t)a->pid, (uint8_t)(a->pid >> 8), (uint8_t)(a->pid >> 16), (uint8_t)(a->pid >> 24) };
	cleanup_frame struct frame go = { 0 }, release = { 0 };
	int r = fault_point("pdest", "prepared", a->link, e);

	if (r == 0)
		r = frame_send(a->link, FRAME_PREPARED, NULL, 0, e);
	if (r == 0)
		r = frame_recv_expect(a->link, FRAME_GO, &go, FRAME_HELLO_MAX, -1, e);
	if (r == 0 && waitpid(a->pid, NULL, WNOHANG) != 0)
		r = err_set(e, -ESRCH, "%s has ended", a->program);
	if (r == 0)
		r = fault_point("pdest", "commit", a->link, e);
	if (r == 0)
		r = outcome_commit(a->record, e);
	if (r < 0)
		return r;
	fault_point("pdest", "committed", a->link, NULL);
	send(a->talk, &word, 1, MSG_NOSIGNAL);
	enter(a);
	fault_point("pdest", "resumed", a->link, NULL);
	frame_send(a->link, FRAME_RESUMED, pid, sizeof(pid), NULL);
	if (frame_recv_expect(a->link, FRAME_RELEASE, &release, FRAME_HELLO_MAX, RELEASE_MS, NULL) == 0) {
		outcome_forget(mig_id, a->record);
		a->record = -1;
	}
	return 0;
}

static int arrive(struct arriving *a, const uint8_t *mig_id, struct err *e)
{
	int r;

	fault_load();
	r = take_offer(a, e);
	if (r == 0)
		r = take_state(a, e);
	if (r == 0)
		r = fault_point("pdest", "state", a->link, e);
	if (r < 0)
		return r;
	a->record = outcome_begin(mig_id, e);
	r = a->record < 0 ? a->record : start_program(a, e);
	if (r == 0)
		r = hear_ready(a, e);
	if (r == 0)
		r = commit(a, mig_id, e);
	if (r < 0 && a->pid > 0) {
		kill(a->pid, SIGKILL);
		waitpid(a->pid, NULL, 0);
	}
	return r;
}

int portable_arrive(const struct daemon *d, int fd, const Gw__Hello *hello)
{
	struct arriving a = { .d = d, .link = fd, .state = -1, .talk = -1, .record = -1 };
	struct err e = ERR_INIT;
	int r = arrive(&a, hello->mig_id.data, &e);

	if (r < 0) {
		log_error("event=arrival-failed error=\"%s\"", e.message);
		if (r != -EPERM)
			frame_send_error(fd, r, e.message, NULL);
	} else {
		log_info("event=arrived unit=%s pid=%d portable=1", a.offer->unit, (int)a.pid);
	}
	return r;
}
