/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* bridge.c - addresses, records, the engine's side, headers; see bridge.h */
#include "wire/bridge.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/util.h"
#include "wire/conn.h"

static char directory[64] = "/run/godwit/bridges";

/* --- where --- */

void bridge_use_directory(const char *path)
{
	snprintf(directory, sizeof(directory), "%s", path);
}

void bridge_entrance(char ret[BRIDGE_PATH_MAX])
{
	snprintf(ret, BRIDGE_PATH_MAX, "%s/in.sock", directory);
}

void bridge_path(const struct sockaddr_in *of, const char *suffix, char ret[BRIDGE_PATH_MAX])
{
	snprintf(ret, BRIDGE_PATH_MAX, "%s/%06x%s", directory, ntohl(of->sin_addr.s_addr) & 0xffffff, suffix);
}

/* FNV-1a, folded; never 0.0.0.0. */
struct sockaddr_in bridge_address(const char *node)
{
	uint32_t hash = 2166136261u;

	for (; *node; node++)
		hash = (hash ^ (uint8_t)*node) * 16777619u;
	hash = (hash >> 24 ^ hash) & 0xffffff;
	return (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(CONN_DEFAULT_PORT), .sin_addr.s_addr = htonl(hash ? hash : 1) };
}

bool bridge_is_address(const struct sockaddr_in *address)
{
	return address->sin_family == AF_INET && address->sin_addr.s_addr && ntohl(address->sin_addr.s_addr) >> 24 == 0;
}

/* Who holds it is there. */
static bool is_held(int fd)
{
	return flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK;
}

static bool read_any(const char *path, bool held, struct bridge_record *ret)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct bridge_record r = { 0 };
	char text[1024], own[INET_ADDRSTRLEN], peer[INET_ADDRSTRLEN];
	ssize_t n = fd >= 0 && (!held || is_held(fd)) ? pread(fd, text, sizeof(text) - 1, 0) : 0;
	int pid, ours, kept;

	if (n <= 0)
		return false;
	text[n] = 0;
	_Static_assert(HELLO_NAME_MAX == 64 && BRIDGE_HOW_MAX == 256 && INET_ADDRSTRLEN == 16, "the lengths here");
	if (sscanf(text, "node %64s self %64s pid %d ours %d kept %d own %15s peer %15s how %255s", r.node, r.self, &pid, &ours, &kept, own, peer, r.how) < 7 ||
	    inet_pton(AF_INET, own, &r.own) != 1 || inet_pton(AF_INET, peer, &r.peer) != 1)
		return false;
	r.pid = pid;
	r.ours = ours;
	r.kept = kept;
	*ret = r;
	return true;
}

static bool read_record(const char *path, struct bridge_record *ret)
{
	return read_any(path, true, ret);
}

static bool find(const char *node, bool held, struct bridge_record *ret)
{
	const struct sockaddr_in address = bridge_address(node);
	char path[BRIDGE_PATH_MAX];

	bridge_path(&address, ".node", path);
	return read_any(path, held, ret) && !strcmp(ret->node, node);
}

bool bridge_was(const char *node)
{
	struct bridge_record r;

	return find(node, false, &r);
}

static void both_path(const struct bridge_record *record, char path[BRIDGE_PATH_MAX])
{
	const struct sockaddr_in address = bridge_address(record->node);

	bridge_path(&address, ".both", path);
}

int bridge_let_both(const struct bridge_record *record, struct err *e)
{
	char path[BRIDGE_PATH_MAX];
	cleanup_close int fd = -1;

	both_path(record, path);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	return fd < 0 || dprintf(fd, "%d\n", (int)record->pid) < 0 ? err_sys(e, -errno, "%s", path) : 0;
}

bool bridge_lets_both(const struct bridge_record *record)
{
	char path[BRIDGE_PATH_MAX], text[16] = "";
	cleanup_close int fd = -1;

	both_path(record, path);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd >= 0 && read(fd, text, sizeof(text) - 1) > 0 && atoi(text) == record->pid;
}

bool bridge_find(const char *node, struct bridge_record *ret)
{
	struct bridge_record r;

	if (!find(node, true, &r))
		return false;
	if (ret)
		*ret = r;
	return true;
}

int bridge_list(int (*each)(const struct bridge_record *record, void *arg), void *arg)
{
	cleanup_closedir DIR *d = opendir(directory);
	char path[sizeof(directory) + sizeof(((struct dirent *)0)->d_name) + 1];
	struct bridge_record r;
	struct dirent *entry;
	int ret = 0;

	while (d && ret == 0 && (entry = readdir(d))) {
		size_t len = strlen(entry->d_name);

		if (len < 5 || strcmp(entry->d_name + len - 5, ".node") != 0)
			continue;
		snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name);
		if (read_record(path, &r))
			ret = each(&r, arg);
	}
	return ret;
}

/* The file is there whole or not at all, and locked before it has its name. */
int bridge_record_take(const struct bridge_record *record, struct err *e)
{
	const struct sockaddr_in address = bridge_address(record->node);
	char path[BRIDGE_PATH_MAX], fresh[BRIDGE_PATH_MAX + 16], own[INET_ADDRSTRLEN], peer[INET_ADDRSTRLEN];
	struct bridge_record other;
	cleanup_close int fd = -1, turn = -1; /* one after the other */
	int n;

	if (mkdir(directory, 0700) < 0 && errno != EEXIST)
		return err_sys(e, -errno, "%s", directory);
	turn = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (turn < 0 || flock(turn, LOCK_EX) < 0)
		return err_sys(e, -errno, "%s", directory);
	bridge_path(&address, ".node", path);
	if (read_record(path, &other))
		return strcmp(other.node, record->node) ? err_set(e, -EEXIST, "the nodes %s and %s cannot be told apart on bridges: give one another name", other.node, record->node) :
							  err_set(e, -EBUSY, "there is a bridge to %s already", record->node);
	snprintf(fresh, sizeof(fresh), "%s.%d", path, (int)getpid());
	fd = open(fresh, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
		return err_sys(e, -errno, "%s", fresh);
	inet_ntop(AF_INET, &record->own, own, sizeof(own));
	inet_ntop(AF_INET, &record->peer, peer, sizeof(peer));
	n = dprintf(fd, "node %s\nself %s\npid %d\nours %d\nkept %d\nown %s\npeer %s\nhow %s\n", record->node, record->self, (int)record->pid, record->ours, record->kept, own, peer,
		    record->how);
	if (n < 0 || rename(fresh, path) < 0) {
		int r = -errno;

		unlink(fresh);
		return err_sys(e, r, "%s", path);
	}
	return take_fd(&fd);
}

/* --- the engine's side --- */

void bridge_name_end(int fd, const struct sockaddr_in *own, const struct sockaddr_in *peer, struct in_addr own_host, struct in_addr peer_host)
{
	static unsigned count;
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	int len = snprintf(name.sun_path + 1, sizeof(name.sun_path) - 1, "godwit-bridge %08x %08x %08x %08x %d.%u", ntohl(own->sin_addr.s_addr), ntohl(peer->sin_addr.s_addr),
			   ntohl(own_host.s_addr), ntohl(peer_host.s_addr), (int)getpid(), count++);

	(void)!bind(fd, (struct sockaddr *)&name, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)len));
}

/* own, peer, and of the hosts, from an end's name. */
static bool read_name(const struct sockaddr_un *name, uint32_t ret[4])
{
	return name->sun_family == AF_UNIX && !name->sun_path[0] && sscanf(name->sun_path + 1, "godwit-bridge %8x %8x %8x %8x", &ret[0], &ret[1], &ret[2], &ret[3]) == 4;
}

/* The end itself has a name, or the other one, of who has come in: with the two the other way round. */
int bridge_addresses(int fd, bool hosts, struct sockaddr_in *ret_own, struct sockaddr_in *ret_peer)
{
	struct sockaddr_un name = { 0 };
	socklen_t len = sizeof(name) - 1;
	uint32_t v[4];
	bool turned = false;

	if (getsockname(fd, (struct sockaddr *)&name, &len) < 0)
		return -ENOTCONN;
	if (!read_name(&name, v)) {
		memset(&name, 0, sizeof(name));
		len = sizeof(name) - 1;
		turned = true;
		if (getpeername(fd, (struct sockaddr *)&name, &len) < 0 || !read_name(&name, v))
			return -ENOTCONN;
	}
	*ret_own = *ret_peer = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(CONN_DEFAULT_PORT) };
	ret_own->sin_addr.s_addr = htonl(v[2 * hosts + turned]);
	ret_peer->sin_addr.s_addr = htonl(v[2 * hosts + !turned]);
	return 0;
}

int bridge_begin(enum bridge_kind kind, const struct sockaddr_in *to, int timeout_ms, struct err *e)
{
	struct bridge_request request = { .magic = BRIDGE_MAGIC, .kind = kind, .timeout_ms = timeout_ms };
	cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct bridge_record record = { 0 };
	struct sockaddr_in own;
	char path[BRIDGE_PATH_MAX];

	if (fd < 0)
		return err_sys(e, -errno, "socket");
	bridge_path(to, ".node", path);
	if (!read_record(path, &record))
		return err_set(e, -ENOTCONN, "the bridge over ssh that led to %s is closed: `godwit bridge USER@HOST` makes it anew", read_any(path, false, &record) ? record.node : "it");
	own = bridge_address(record.self);
	if (kind == BRIDGE_CONNECT)
		bridge_name_end(fd, &own, to, record.own, record.peer);
	bridge_path(to, ".sock", path);
	memcpy(address.sun_path, path, sizeof(path));
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || send(fd, &request, sizeof(request), MSG_NOSIGNAL) != (ssize_t)sizeof(request))
		return err_sys(e, errno ? -errno : -EPIPE, "the bridge to %s", record.node);
	return take_fd(&fd);
}

/* --- what goes over ssh --- */

static const char hello_magic[8] = { 'G', 'D', 'W', 'B', 'R', 'D', 'G', '1' };

#define HELLO_OWN 8u
#define HELLO_PEER 12u
#define HELLO_NODE 16u

void bridge_hello_encode(const struct bridge_hello *hello, uint8_t to[BRIDGE_HELLO_BYTES])
{
	memset(to, 0, BRIDGE_HELLO_BYTES);
	memcpy(to, hello_magic, sizeof(hello_magic));
	memcpy(to + HELLO_OWN, &hello->own, sizeof(hello->own));
	memcpy(to + HELLO_PEER, &hello->peer, sizeof(hello->peer));
	memcpy(to + HELLO_NODE, hello->node, sizeof(hello->node));
}

int bridge_hello_decode(const uint8_t from[BRIDGE_HELLO_BYTES], struct bridge_hello *ret, struct err *e)
{
	struct bridge_hello hello;
	char seen[41];

	for (size_t i = 0; i < sizeof(seen); i++)
		seen[i] = (char)(i + 1 == sizeof(seen) ? 0 : isprint(from[i]) ? from[i] : '.');
	if (memcmp(from, hello_magic, sizeof(hello_magic)) != 0)
		return err_set(e, -EPROTO, "what came over ssh is not the other godwit's: \"%s...\"; does a file that the login shell reads there print something?", seen);
	memcpy(&hello.own, from + HELLO_OWN, sizeof(hello.own));
	memcpy(&hello.peer, from + HELLO_PEER, sizeof(hello.peer));
	memcpy(hello.node, from + HELLO_NODE, sizeof(hello.node));
	hello.node[HELLO_NAME_MAX] = 0;
	if (!hello_name_valid(hello.node))
		return err_set(e, -EPROTO, "the other node has a name that is none");
	*ret = hello;
	return 0;
}

void bridge_frame_encode(const struct bridge_frame *frame, uint8_t to[BRIDGE_HEADER_BYTES])
{
	uint32_t channel = htole32(frame->channel);
	uint16_t len = htole16(frame->len);

	memcpy(to, &channel, 4);
	to[4] = (uint8_t)frame->type;
	to[5] = 0;
	memcpy(to + 6, &len, 2);
}

int bridge_frame_decode(const uint8_t from[BRIDGE_HEADER_BYTES], struct bridge_frame *ret, struct err *e)
{
	static const struct {
		uint16_t min, max;
	} sizes[] = { [BRIDGE_REFUSED] = { 4, BRIDGE_REFUSED_MAX }, [BRIDGE_DATA] = { 1, BRIDGE_DATA_MAX }, [BRIDGE_CREDIT] = { 4, 4 }, [BRIDGE_PONG] = { 0, 0 } };
	uint32_t channel;
	uint16_t len;

	memcpy(&channel, from, 4);
	memcpy(&len, from + 6, 2);
	channel = le32toh(channel);
	len = le16toh(len);
	if (from[4] < BRIDGE_OPEN || from[4] > BRIDGE_PONG || from[5] || len < sizes[from[4]].min || len > sizes[from[4]].max)
		return err_set(e, -EPROTO, "nonsense over ssh (type %u, %u bytes)", from[4], len);
	*ret = (struct bridge_frame){ channel, (enum bridge_type)from[4], len };
	return 0;
}
