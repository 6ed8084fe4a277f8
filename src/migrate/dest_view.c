/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* dest_view.c - directories that home serves for a unit that comes here (image/view.h), and which would have to be */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "base/util.h"
#include "home/files_pump.h"
#include "image/place.h"
#include "migrate/dest.h"

int dest_view_begin(struct dest *d, struct err *e)
{
	const Gw__View *v = d->offer->view;
	cleanup_close int fuse = -1, fd = -1;
	uint8_t session[FILES_TOKEN_BYTES];
	struct sockaddr_in home;
	int ret;

	if (!v)
		return 0;
	ret = view_validate(v, e);
	if (ret < 0)
		return ret;
	view_use(v);
	if (d->ns.holder)
		return err_set(e, -EBADMSG, "a unit with a mount namespace of its own that has a view");
	if (files_export_is_here(v->token.data)) /* at home again: its files are here */
		return 0;
	home = view_address(v);
	fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (fuse < 0)
		return err_sys(e, -errno, "/dev/fuse, for files that home serves");
	ns_outside(true); /* where godwit-relay stays: it may have to connect again */
	fd = files_pump_connect(&home, d->self_name, v->token.data, session, e);
	ret = fd < 0 ? fd : files_pump_start(&home, d->self_name, session, fuse, fd, e);
	ns_outside(false);
	if (ret == 0)
		ret = view_make(v, fuse, &d->ns, e);
	if (ret < 0)
		return ret;
	place_set(d->ns.holder);
	for (uint32_t i = 0; i < d->files.n && ret == 0; i++)
		ret = fsfile_place(&d->files.v[i], e);
	return ret;
}

/* Where home's files cannot be mounted, contents are sent, unless that is not what the user has asked for. */
static bool can_mount(const struct dest *d)
{
	return d->offer->files_policy == FSFILE_POLICY_RELAY || access("/dev/fuse", R_OK | W_OK) == 0;
}

bool dest_view_wants(struct dest *d, const struct fsfile *f, struct fsfile_answer *answer, struct refusals *refusals, size_t before)
{
	enum fsfile_policy policy = (enum fsfile_policy)d->offer->files_policy;

	if (!f->servable || !can_mount(d) || !fsfile_policy_wants_home(policy, f, answer))
		return false;
	refusals_cut(refusals, before);
	fsfile_answer_close(answer);
	answer->verdict = FSFILE_REFUSE;
	return dest_view_want(d, fsfile_seen(f));
}

bool dest_view_want(struct dest *d, const char *path)
{
	char **grown = realloc(d->from_home, (d->n_from_home + 1) * sizeof(*grown));

	if (grown)
		d->from_home = grown;
	if (!grown || !(grown[d->n_from_home] = strdup(path)))
		return false;
	d->n_from_home++;
	return true;
}

/* Whether the directory here is the very one. */
static bool is_same(const struct dest *d, const Gw__Place *p)
{
	struct statfs fs;
	struct stat st;

	if (stat(p->path, &st) < 0 || !S_ISDIR(st.st_mode) || st.st_ino != p->ino || statfs(p->path, &fs) < 0)
		return false;
	return (strcmp(d->peer->boot_id, d->own_boot_id) == 0 && st.st_dev == p->dev) || fsfile_is_network_same(p->fs_magic, p->fsid, &fs);
}

static bool has_directory(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

void dest_view_judge(struct dest *d)
{
	Gw__Hello self;

	hello_fill(&self);
	snprintf(d->own_boot_id, sizeof(d->own_boot_id), "%s", self.boot_id);
	for (size_t i = 0; i < d->offer->n_places && can_mount(d); i++)
		if (!is_same(d, d->offer->places[i]) && !(d->offer->places[i]->any_will_do && has_directory(d->offer->places[i]->path)))
			dest_view_want(d, d->offer->places[i]->path);
}

int dest_view_refuse(struct dest *d, struct err *e)
{
	Gw__Refuse refuse = GW__REFUSE__INIT;
	cleanup_free uint8_t *packed = NULL;
	int ret;

	refuse.from_home = d->from_home;
	refuse.n_from_home = d->n_from_home;
	packed = malloc(gw__refuse__get_packed_size(&refuse));
	if (!packed)
		return err_sys(e, ENOMEM, "the answer");
	ret = frame_send(d->link.control, FRAME_REFUSE, packed, gw__refuse__pack(&refuse, packed), e);
	return ret < 0 ? ret : err_set(e, -EAGAIN, "%s, and perhaps more, is to be served from home", d->from_home[0]);
}

void dest_view_free(struct dest *d)
{
	for (size_t i = 0; i < d->n_from_home; i++)
		free(d->from_home[i]);
	free(d->from_home);
	d->from_home = NULL;
	d->n_from_home = 0;
}
