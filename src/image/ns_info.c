/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ns_info.c - see ns_info.h */
#include "image/ns_info.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mount.h>

#include "base/util.h"
#include "image/bytes.h"
#include "image/ns.h"

#ifndef MS_NOSYMFOLLOW
#define MS_NOSYMFOLLOW 256
#endif

static const struct {
	const char *name;
	uint64_t flag;
} flags[] = {
	{ "ro", MS_RDONLY }, { "nosuid", MS_NOSUID }, { "nodev", MS_NODEV }, { "noexec", MS_NOEXEC }, { "noatime", MS_NOATIME },
	{ "nodiratime", MS_NODIRATIME }, { "relatime", MS_RELATIME }, { "nosymfollow", MS_NOSYMFOLLOW },
};

void mount_unescape(char *s)
{
	char *to = s;

	for (; *s; s++)
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] && s[3]) {
			*to++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 3;
		} else {
			*to++ = *s;
		}
	*to = 0;
}

static void take_flags(struct mount_info *m, char *options)
{
	char *save;

	for (char *word = strtok_r(options, ",", &save); word; word = strtok_r(NULL, ",", &save)) {
		m->idmapped |= strcmp(word, "idmapped") == 0;
		for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
			if (strcmp(word, flags[i].name) == 0)
				m->flags |= flags[i].flag;
	}
}

/* What of the file system's options is to be given when it is made: all but whether it can be written. */
static void take_options(struct mount_info *m, char *options)
{
	size_t len = 0;
	char *save;

	for (char *word = strtok_r(options, ",", &save); word; word = strtok_r(NULL, ",", &save)) {
		if (strcmp(word, "ro") == 0)
			m->readonly = true;
		else if (strcmp(word, "rw") && strcmp(word, "seclabel") && len + strlen(word) + 2 < sizeof(m->options))
			len += (size_t)snprintf(m->options + len, sizeof(m->options) - len, "%s%s", len ? "," : "", word);
	}
}

static bool parse(char *line, struct mount_info *m)
{
	char *words[64] = { NULL };
	size_t n = 0, dash = 6;

	*m = (struct mount_info){ .above = -1, .fd = -1 };
	while (line && n < ARRAY_SIZE(words))
		words[n++] = strsep(&line, " "); /* a source may be empty */
	while (dash < n && strcmp(words[dash], "-"))
		dash++;
	if (dash + 3 >= n || sscanf(words[2], "%u:%u", &m->major, &m->minor) != 2)
		return false;
	m->id = atoi(words[0]);
	m->parent = atoi(words[1]);
	snprintf(m->root, sizeof(m->root), "%s", words[3]);
	snprintf(m->where, sizeof(m->where), "%s", words[4]);
	take_flags(m, words[5]);
	for (size_t i = 6; i < dash; i++) {
		(void)!sscanf(words[i], "shared:%u", &m->group);
		(void)!sscanf(words[i], "master:%u", &m->master);
		m->unbindable |= strcmp(words[i], "unbindable") == 0;
	}
	snprintf(m->type, sizeof(m->type), "%s", words[dash + 1]);
	snprintf(m->source, sizeof(m->source), "%s", words[dash + 2]);
	take_options(m, words[dash + 3]);
	mount_unescape(m->root);
	mount_unescape(m->where);
	mount_unescape(m->source);
	return true;
}

int mount_infos_parse(char *text, struct mount_infos *ret, struct err *e)
{
	struct mount_infos l = { 0 };
	char *save;

	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		struct mount_info *grown = realloc(l.v, (l.n + 1) * sizeof(*grown));

		if (grown)
			l.v = grown;
		if (!grown || l.n >= 4 * NS_MOUNTS_MAX) {
			free(l.v);
			return err_set(e, -E2BIG, "too many mounts");
		}
		if (parse(line, &l.v[l.n]))
			l.n++;
	}
	*ret = l;
	return 0;
}

int read_whole(int fd, char **ret, struct err *e)
{
	size_t size = 1 << 16, len = 0;
	char *text = must_alloc(size);
	ssize_t n;

	while ((n = pread(fd, text + len, size - len - 1, (off_t)len)) > 0) {
		len += (size_t)n;
		if (size - len < size / 2) {
			text = realloc(text, size *= 2);
			if (!text)
				abort();
		}
	}
	text[len] = 0;
	*ret = text;
	return n < 0 ? err_sys(e, errno, "reading") : 0;
}

int mount_infos_read(const char *path, struct mount_infos *ret, struct err *e)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	cleanup_free char *text = NULL;

	if (fd < 0 || read_whole(fd, &text, NULL) < 0)
		return err_sys(e, errno, "%s", path);
	return mount_infos_parse(text, ret, e);
}

const char *path_below(const char *path, const char *base)
{
	size_t len = strcmp(base, "/") == 0 ? 0 : strlen(base);

	return strncmp(path, base, len) == 0 && (path[len] == '/' || !path[len]) ? path + len : NULL;
}

bool mount_root_is_removed(const char *root, size_t *ret_len)
{
	const char *mark = strstr(root, "//deleted");

	*ret_len = mark ? (size_t)(mark - root) : strlen(root);
	return mark && !mark[9];
}

static struct mount_info *find_root(struct mount_infos *l)
{
	for (size_t i = 0; i < l->n; i++) {
		bool has_parent = false;

		for (size_t k = 0; k < l->n; k++)
			has_parent |= k != i && l->v[k].id == l->v[i].parent;
		if (!has_parent && strcmp(l->v[i].where, "/") == 0)
			return &l->v[i];
	}
	return NULL;
}

struct ordering {
	struct mount_infos *from, *to;
};

/* Takes mount m and what is on it: of those that lie on each other's places the longest path comes first. */
static void place(struct ordering *o, struct mount_info *m, int above)
{
	int own = (int)o->to->n;

	o->to->v[o->to->n] = *m;
	o->to->v[o->to->n++].above = above;
	m->above = own; /* taken */
	for (;;) {
		struct mount_info *next = NULL;

		for (size_t i = 0; i < o->from->n; i++) {
			struct mount_info *c = &o->from->v[i];

			if (c->parent == m->id && c != m && c->above < 0 && (!next || strlen(c->where) > strlen(next->where)))
				next = c;
		}
		if (!next)
			return;
		place(o, next, own);
	}
}

void mount_info_set_at(struct mount_infos *l, size_t i)
{
	struct mount_info *m = &l->v[i];
	const char *at = m->above >= 0 ? path_below(m->where, l->v[m->above].where) : "";

	m->at = at && at[0] == '/' ? at + 1 : at ? at : m->where + 1;
}

int mount_infos_order(struct mount_infos *l, struct err *e)
{
	struct mount_info *root = find_root(l);
	struct mount_infos to = { 0 };

	if (!root || l->n > NS_MOUNTS_MAX)
		return err_set(e, root ? -E2BIG : -EOPNOTSUPP, "the unit's mounts (%zu) cannot be read from here", l->n);
	to.v = must_alloc(l->n * sizeof(*to.v));
	place(&(struct ordering){ l, &to }, root, -1);
	free(l->v);
	*l = to;
	for (size_t i = 0; i < l->n; i++)
		mount_info_set_at(l, i);
	return 0;
}

void mount_infos_free(struct mount_infos *l)
{
	for (size_t i = 0; i < l->n; i++)
		close_fdp(&l->v[i].fd);
	free(l->v);
	*l = (struct mount_infos){ 0 };
}

bool mount_infos_has_above(const struct mount_infos *l, size_t index)
{
	for (size_t i = 0; i < l->n; i++)
		if (l->v[i].above == (int)index)
			return true;
	return false;
}
