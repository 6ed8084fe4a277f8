// SPDX-License-Identifier: GPL-2.0-or-later
/* node_state.c - see node_state.h */
#include "daemon/node_state.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/util.h"
#include "migrate/registry.h"
#include "wire/hello.h"

#define FILE_BYTES_MAX 4096

/* Words that one process writes and others read. */
struct node_shared {
	char name[HELLO_NAME_MAX + 1];
	int wake_fd;
	uint32_t drained, balances, leaving, arriving, busy, owner;
};

static uint32_t get(const uint32_t *word)
{
	return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static void put(uint32_t *word, uint32_t value)
{
	__atomic_store_n(word, value, __ATOMIC_RELEASE);
}

/* godwit-cluster tells others. */
static void change(struct node_shared *s, uint32_t *word, uint32_t value)
{
	put(word, value);
	(void)!write(s->wake_fd, &(uint64_t){ 1 }, sizeof(uint64_t));
}

static void path_of(const struct node_shared *s, const char *suffix, char path[PATH_MAX])
{
	snprintf(path, PATH_MAX, STATE_DIRECTORY "/%s.state%s", s->name, suffix);
}

static int keep(const struct node_shared *s, bool drained, bool balances, struct err *e)
{
	char path[PATH_MAX], fresh[PATH_MAX], text[80];
	cleanup_close int fd = -1;
	int len = snprintf(text, sizeof(text), "{\"drained\": %s, \"balance\": %s}\n", drained ? "true" : "false", balances ? "true" : "false");
	int r = registry_make_directory(STATE_DIRECTORY, 0755, e);

	if (r < 0)
		return r;
	path_of(s, "", path);
	path_of(s, ".new", fresh);
	fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (fd < 0)
		return err_sys(e, -errno, "%s", fresh);
	if (write(fd, text, (size_t)len) != len || fsync(fd) < 0)
		return err_sys(e, errno ? -errno : -EIO, "%s: write", fresh);
	return rename(fresh, path) < 0 ? err_sys(e, -errno, "%s: rename", path) : 0;
}

static int recall(struct node_shared *s, struct err *e)
{
	char path[PATH_MAX], text[FILE_BYTES_MAX];
	cleanup_close int fd = -1;
	int drained = 0, balances = 0, r;
	ssize_t n;
	json_t *o;

	path_of(s, "", path);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return errno == ENOENT ? 0 : err_sys(e, -errno, "%s", path);
	n = read(fd, text, sizeof(text));
	o = n > 0 ? json_loadb(text, (size_t)n, 0, NULL) : NULL;
	r = o ? json_unpack(o, "{s:b, s:b}", "drained", &drained, "balance", &balances) : -1;
	json_decref(o);
	if (r)
		return err_set(e, -EBADMSG, "%s: says not whether this node is drained: remove it and say `godwit drain` again if it is to be", path);
	s->drained = drained;
	s->balances = balances;
	return 0;
}

int node_state_init(struct node_shared **ret, const char *name, int *ret_wake_fd, struct err *e)
{
	struct node_shared *s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (s == MAP_FAILED)
		return err_sys(e, -errno, "mmap");
	snprintf(s->name, sizeof(s->name), "%s", name);
	s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->wake_fd < 0)
		return err_sys(e, -errno, "eventfd");
	*ret_wake_fd = s->wake_fd;
	*ret = s;
	return recall(s, e);
}

enum node_state node_state(const struct node_shared *s)
{
	return get(&s->leaving) ? NODE_LEAVING : get(&s->drained) ? NODE_DRAINED : get(&s->busy) || get(&s->owner) ? NODE_BUSY : NODE_OK;
}

const char *node_state_why(const struct node_shared *s)
{
	switch (node_state(s)) {
	case NODE_DRAINED:
		return "it is drained and takes nothing until `godwit undrain`";
	case NODE_BUSY:
		return get(&s->owner) ? "a person works there, and it is a workstation" : "";
	case NODE_LEAVING:
		return "its godwitd shuts down: name another node";
	default:
		return "";
	}
}

const char *node_state_name(enum node_state state)
{
	static const char *const names[NODE_STATES] = { [NODE_OK] = "ok", [NODE_BUSY] = "busy", [NODE_DRAINED] = "drained", [NODE_LEAVING] = "leaving", [NODE_GONE] = "unreachable" };

	return state > 0 && state < NODE_STATES ? names[state] : "ok";
}

int node_state_set_drained(struct node_shared *s, bool drained, struct err *e)
{
	int r = keep(s, drained, get(&s->balances), e);

	if (r == 0)
		change(s, &s->drained, drained);
	return r;
}

int node_state_set_balance(struct node_shared *s, bool on, struct err *e)
{
	int r = keep(s, get(&s->drained), on, e);

	if (r == 0)
		put(&s->balances, on);
	return r;
}

bool node_state_balances(const struct node_shared *s)
{
	return get(&s->balances);
}

void node_state_set_owner(struct node_shared *s, bool works)
{
	if (get(&s->owner) != works)
		change(s, &s->owner, works);
}

void node_state_set_leaving(struct node_shared *s, bool leaving)
{
	change(s, &s->leaving, leaving);
}

void node_state_set_busy(struct node_shared *s, bool busy)
{
	put(&s->busy, busy);
}

void node_state_set_arriving(struct node_shared *s, unsigned n)
{
	put(&s->arriving, n);
}

unsigned node_state_arriving(const struct node_shared *s)
{
	return get(&s->arriving);
}
