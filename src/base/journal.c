/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* journal.c - see journal.h. There is no descriptor that stays open: workers close what they do not know, and some may open none; then the line goes to standard error. */
#include "base/journal.h"

#include <ctype.h>
#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/util.h"

#define SOCKET_PATH "/run/systemd/journal/socket"
#define FIELDS_MAX 24
#define KEY_MAX 40

bool journal_is_stderr(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long device, inode;
	struct stat st;

	return stream && sscanf(stream, "%llu:%llu", &device, &inode) == 2 && fstat(STDERR_FILENO, &st) == 0 && st.st_dev == device && st.st_ino == inode;
}

static size_t add(char *to, size_t at, size_t size, const char *key, size_t key_len, const char *value, size_t value_len)
{
	if (at + key_len + value_len + 2 > size)
		return at;
	memcpy(to + at, key, key_len);
	at += key_len;
	to[at++] = '=';
	memcpy(to + at, value, value_len);
	at += value_len;
	to[at++] = '\n';
	return at;
}

/* The name that a field gets: of "event" GODWIT_EVENT. 0: it is none. */
static size_t name_of(const char *key, size_t len, char name[KEY_MAX])
{
	size_t at = (size_t)sprintf(name, "GODWIT_");

	if (!len || len >= KEY_MAX - at)
		return 0;
	for (size_t i = 0; i < len; i++) {
		if (!islower((unsigned char)key[i]) && !isdigit((unsigned char)key[i]) && key[i] != '_')
			return 0;
		name[at++] = (char)toupper((unsigned char)key[i]);
	}
	return at;
}

/* Whether a field may end here: at the end, or before another one. */
static bool is_end(const char *p)
{
	if (!*p)
		return true;
	return *p == ' ' && p[1 + strcspn(p + 1, "= \"")] == '=' && p[1] != '=';
}

/* A value in quotes ends with one before the next field or the end: within it quotes are as they are. Returns where the field ends. */
static const char *value_of(const char *p, const char **ret, size_t *ret_len)
{
	const char *end;

	if (*p != '"') {
		*ret = p;
		*ret_len = strcspn(p, " ");
		return p + *ret_len;
	}
	*ret = p + 1;
	for (end = strchr(p + 1, '"'); end && !is_end(end + 1); end = strchr(end + 1, '"'))
		;
	*ret_len = end ? (size_t)(end - p - 1) : strlen(p + 1);
	return end ? end + 1 : p + strlen(p);
}

size_t journal_encode(int priority, const char *identifier, const char *text, char *to, size_t size)
{
	char number[2] = { (char)('0' + priority), 0 }, name[KEY_MAX];
	size_t at = add(to, 0, size, "PRIORITY", 8, number, 1);
	const char *p = text;

	at = add(to, at, size, "SYSLOG_IDENTIFIER", 17, identifier, strlen(identifier));
	at = add(to, at, size, "MESSAGE", 7, text, strlen(text));
	for (int i = 0; *p && i < FIELDS_MAX; i++) {
		size_t key_len = strcspn(p, "= "), name_len, value_len;
		const char *key = p, *value;

		if (p[key_len] != '=') {
			p += key_len + (p[key_len] == ' ');
			continue;
		}
		p = value_of(p + key_len + 1, &value, &value_len);
		p += strspn(p, " ");
		name_len = name_of(key, key_len, name);
		if (name_len)
			at = add(to, at, size, name, name_len, value, value_len);
	}
	return at;
}

bool journal_send(int priority, const char *text)
{
	static const struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = SOCKET_PATH };
	cleanup_close int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	char datagram[8192];
	size_t len;

	if (fd < 0)
		return false;
	len = journal_encode(priority, program_invocation_short_name, text, datagram, sizeof(datagram));
	return sendto(fd, datagram, len, MSG_NOSIGNAL, (const struct sockaddr *)&address, sizeof(address)) == (ssize_t)len;
}
