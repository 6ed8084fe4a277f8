/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * source_view.c - which directories home is to serve where the unit goes (image/view.h)
 *
 * Theory of operation: nothing is served to begin with. The destination, which sees what of the unit's files it has itself, answers an offer with paths that home has to
 * serve (REFUSE with from_home); the attempt is given up, the directories of these paths are added to what is *wanted*, and the next attempt offers them. A unit
 * that has a view already takes it along, and gets no other: files that only a host on its way has are sent.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/socket.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/un.h>

#include "base/log.h"
#include "base/util.h"
#include "image/bytes.h"
#include "image/notes.h"
#include "image/ns_info.h"
#include "image/place.h"
#include "image/process_check.h"
#include "migrate/source.h"
#include "wire/bridge.h"
#include "wire/conn.h"

#define ENVIRONMENT_MAX (1u << 20)
#define PLACES_MAX 256u
#define RECENT_MAX 4096u /* entries of a directory that are looked at */

/* Of this migration, over all attempts. */
static char *wanted[VIEW_DIRECTORIES_MAX];
static size_t n_wanted;

static bool may_serve(const struct source *s)
{
	return !s->unit.view && !place_prefix()[0] && !place_has_spaces() && (s->request->files == FSFILE_POLICY_AUTO || s->request->files == FSFILE_POLICY_RELAY);
}

static bool want(const char *path)
{
	static char directory[PATH_MAX];
	size_t kept = 0;

	if (!view_directory_for(path, directory))
		return false;
	for (size_t i = 0; i < n_wanted; i++)
		if (path_below(directory, wanted[i]))
			return false;
	for (size_t i = 0; i < n_wanted; i++) /* what lies in the new one is served with it */
		if (path_below(wanted[i], directory))
			free(wanted[i]);
		else
			wanted[kept++] = wanted[i];
	n_wanted = kept;
	if (n_wanted == VIEW_DIRECTORIES_MAX)
		return false;
	log_info("event=serve directory=\"%s\" for=\"%s\"", directory, path);
	wanted[n_wanted] = strdup(directory);
	return wanted[n_wanted++] != NULL;
}

/* Where the destination reaches this host: as this host reaches the destination. */
static int own_address(const struct source *s, Gw__View *v, struct err *e)
{
	struct sockaddr_in here = s->request->self, peer;
	int ret;

	if (bridge_is_address(&s->request->dest))
		here = bridge_address(s->request->self_name);
	v->port = ntohs(here.sin_port);
	if (here.sin_addr.s_addr == INADDR_ANY && (ret = conn_addresses(s->link.control, &here, &peer)) < 0)
		return err_sys(e, ret, "the address of this host");
	v->address = ntohl(here.sin_addr.s_addr);
	return 0;
}

int source_view_begin(struct source *s, struct err *e)
{
	Gw__View *v;
	int ret;

	s->view = s->unit.view;
	if (!n_wanted || !may_serve(s))
		return 0;
	ret = files_export_start(s->report->unit, wanted, n_wanted, &s->export, e);
	if (ret < 0)
		return ret;
	s->view = s->own_view = v = must_alloc(sizeof(*v));
	gw__view__init(v);
	bytes_set(&v->token, s->export.token, sizeof(s->export.token));
	v->directories = must_alloc(n_wanted * sizeof(*v->directories));
	for (size_t i = 0; i < n_wanted; i++)
		string_set(&v->directories[v->n_directories++], wanted[i]);
	view_use(v);
	return own_address(s, v, e);
}

void source_view_end(struct source *s)
{
	files_export_release(&s->export);
	if (!s->own_view)
		return;
	view_use(s->unit.view);
	gw__view__free_unpacked(s->own_view, NULL);
	s->view = s->own_view = NULL;
}

/* --- directories that the unit uses --- */

/* Whether it could be served and is not yet; then it is put on the list. any_will_do: a directory of that name at the destination is as good. */
static void add_place(Gw__Offer *o, const char *path, bool any_will_do)
{
	static char directory[PATH_MAX];
	struct statfs fs;
	struct stat st;
	Gw__Place *p;

	if (path[0] != '/' || o->n_places >= PLACES_MAX || view_has(path))
		return;
	for (size_t i = 0; i < o->n_places; i++)
		if (o->places[i] && strcmp(o->places[i]->path, path) == 0) {
			o->places[i]->any_will_do = o->places[i]->any_will_do && any_will_do;
			return;
		}
	if (!view_directory_for(path, directory) || stat(path, &st) < 0 || statfs(path, &fs) < 0)
		return;
	o->places[o->n_places++] = p = must_alloc(sizeof(*p));
	gw__place__init(p);
	string_set(&p->path, path);
	p->any_will_do = any_will_do;
	p->dev = st.st_dev;
	p->ino = st.st_ino;
	p->fs_magic = (uint64_t)fs.f_type;
	memcpy(&p->fsid, &fs.f_fsid, sizeof(p->fsid));
}

/* Since when the process runs, by CLOCK_REALTIME in seconds; INT64_MAX: unknown. */
static int64_t start_of(pid_t pid)
{
	struct process_stat stat;

	if (process_stat_read(pid, &stat, NULL) < 0)
		return INT64_MAX;
	return (int64_t)((clock_ns(CLOCK_REALTIME) - clock_ns(CLOCK_BOOTTIME)) / 1000000000ull + stat.start_ticks / (unsigned long long)sysconf(_SC_CLK_TCK));
}

/*
 * A compiler's temporary file need not be open at this moment, and its name is in the memory of the process that will open it next: where files lie that the user
 * of the unit has made since it began, others of the unit may look for them.
 */
static void add_recent(const struct source *s, Gw__Offer *o, const char *directory)
{
	cleanup_closedir DIR *d = opendir(directory);
	int64_t since = start_of(s->unit.procs[0].pid);
	struct stat unit, st;
	struct dirent *item;
	char path[64];
	unsigned n = 0;

	snprintf(path, sizeof(path), "/proc/%d", s->unit.procs[0].pid);
	if (stat(path, &unit) < 0)
		return;
	while (d && (item = readdir(d)) && n++ < RECENT_MAX)
		if (item->d_type == DT_REG && fstatat(dirfd(d), item->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_uid == unit.st_uid && st.st_mtim.tv_sec >= since) {
			add_place(o, directory, false);
			return;
		}
}

/* Then reading it would be an event. */
static bool is_watched(const Gw__FdTable *t, const char *directory)
{
	for (size_t i = 0; i < t->n_descs; i++)
		for (size_t k = 0; k < t->descs[i]->n_watches; k++)
			if (path_below(directory, t->descs[i]->watches[k]->path))
				return true;
	return false;
}

/* Where a program puts its temporary files, as its environment was when it began. */
static void add_temporary(Gw__Offer *o, pid_t pid)
{
	static const char *const names[] = { "TMPDIR=", "TMP=", "TEMP=", "TEMPDIR=" };
	cleanup_free char *text = malloc(ENVIRONMENT_MAX);
	cleanup_close int fd = -1;
	char path[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/environ", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd >= 0 && text ? read(fd, text, ENVIRONMENT_MAX - 1) : -1;
	if (n <= 0)
		return;
	text[n] = 0;
	for (const char *p = text; p < text + n; p += strlen(p) + 1)
		for (size_t i = 0; i < ARRAY_SIZE(names); i++)
			if (strncmp(p, names[i], strlen(names[i])) == 0)
				add_place(o, p + strlen(names[i]), false);
}

static void add_working_directory(Gw__Offer *o, pid_t pid)
{
	char link[64], path[PATH_MAX];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/%d/cwd", pid);
	n = readlink(link, path, sizeof(path) - 1);
	path[MAX(n, 0)] = 0;
	add_place(o, path, false);
}

static void note_listener(const char *mark, const char *name, size_t len)
{
	char text[sizeof(((struct sockaddr_un *)0)->sun_path) + 1];

	len = MIN(len, sizeof(text) - 1);
	for (size_t i = 0; i < len; i++)
		text[i] = name[i] < ' ' || name[i] > '~' ? '?' : name[i];
	text[len] = 0;
	notes_add("programs of the host that it has left cannot connect to its unix socket %s%s any more.", mark, text);
}

/*
 * Who connects to a socket at home finds its file there (home/files_listen.h). Not in /run, which is each host's own, not by an abstract name, and not where the destination has
 * such a directory itself: there it is the destination's programs that find it.
 */
static void add_listener(const struct source *s, Gw__Offer *o, const Gw__FdUnix *u)
{
	const struct sockaddr_un *name = (const void *)u->name.data;
	char path[PATH_MAX] = "", full[PATH_MAX], directory[PATH_MAX], *slash;

	if (u->state != GW__FD_UNIX_STATE__UNIX_LISTENING || s->unit.ns || u->name.len <= offsetof(struct sockaddr_un, sun_path) || (name->sun_path[0] && !u->has_file))
		return;
	if (!name->sun_path[0]) {
		note_listener("@", name->sun_path + 1, u->name.len - offsetof(struct sockaddr_un, sun_path) - 1);
		return;
	}
	snprintf(path, sizeof(path), "%s/%.*s", name->sun_path[0] == '/' ? "" : u->directory, (int)(u->name.len - offsetof(struct sockaddr_un, sun_path)), name->sun_path);
	memmove(path, path + (path[1] == '/'), strlen(path + (path[1] == '/')) + 1);
	if (view_has(path))
		return;
	strcpy(full, path);
	slash = strrchr(path, '/');
	*slash = 0;
	if (may_serve(s) && view_directory_for(path, directory) && strcmp(directory, "/run"))
		add_place(o, path, true);
	else
		note_listener("", full, strlen(full));
}

void source_view_offer(struct source *s, Gw__Offer *o)
{
	const Gw__FdTable *t = s->unit.fds.msg;

	o->view = s->view;
	o->places = must_alloc(PLACES_MAX * sizeof(*o->places));
	for (size_t i = 0; i < t->n_descs; i++)
		if (t->descs[i]->kind == GW__FD_KIND__FD_UNIX)
			add_listener(s, o, t->descs[i]->unix_socket);
	if (!may_serve(s))
		return;
	for (size_t i = 0; i < s->nprocs; i++) {
		add_working_directory(o, s->unit.procs[i].pid);
		add_temporary(o, s->unit.procs[i].pid);
		for (size_t k = 0; k < s->unit.procs[i].nthreads; k++)
			if (s->unit.procs[i].threads[k]->own_fs)
				add_place(o, s->unit.procs[i].threads[k]->own_fs->cwd, false);
	}
	if (!is_watched(t, "/tmp"))
		add_recent(s, o, "/tmp");
	if (!is_watched(t, "/var/tmp"))
		add_recent(s, o, "/var/tmp");
	for (size_t i = 0; i < t->n_descs; i++)
		if (t->descs[i]->kind == GW__FD_KIND__FD_DIRECTORY || t->descs[i]->kind == GW__FD_KIND__FD_PATH)
			add_place(o, t->descs[i]->path, false);
}

void source_view_offered(Gw__Offer *o)
{
	for (size_t i = 0; i < o->n_places; i++)
		gw__place__free_unpacked(o->places[i], NULL);
	free(o->places);
	o->n_places = 0;
	o->places = NULL;
}

int source_view_refused(struct source *s, const struct path_list *l, struct err *e)
{
	size_t added = 0;

	for (size_t i = 0; i < l->n && may_serve(s); i++)
		added += want(l->v[i]);
	if (added)
		return err_set(e, -EAGAIN, "%s lacks files that process %d uses (%s), which are to be served from here", s->request->dest_name, s->request->pid, l->v[0]);
	refusals_add(s->refusals, "file.home", "the destination lacks it, and it cannot be served from here", "share the file system between the hosts, or --files=copy",
		     "file %s", l->v[0]);
	return err_set(e, -EPERM, "%s cannot take process %d", s->request->dest_name, s->request->pid);
}

/* --- moving on --- */

/* What the unit has written to shared mappings is to be at home before anybody else maps the file. */
int source_view_flush(struct source *s, struct err *e)
{
	for (uint32_t i = 0; s->unit.view && i < s->unit.files.n; i++) {
		struct fsfile *f = &s->unit.files.v[i];
		int fd;

		if (!(f->uses & FSFILE_MAPPED_WRITE) || !fsfile_is_homes(f))
			continue;
		fd = fsfile_read_fd(f, e);
		if (fd < 0)
			return fd;
		if (sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER) < 0)
			return err_sys(e, -errno, "%s, which home serves", f->path);
	}
	return 0;
}
