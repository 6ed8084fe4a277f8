/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ns_mount_group.c - peer groups, masters and kinds of propagation of the unit's mounts; see ns_mount_make.c */
#include <errno.h>
#include <sys/mount.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "image/bytes.h"
#include "image/ns_mount_internal.h"

static int set_propagation(int fd, uint64_t kind)
{
	struct mount_attr a = { .propagation = kind };

	return mount_setattr(fd, "", AT_EMPTY_PATH, &a, sizeof(a)) < 0 ? -errno : 0;
}

/* The mount of a group that has been put into it, of the largest part of the file system; -1: none. */
static int find_member(const struct maker *m, const bool *done, uint32_t group)
{
	int best = -1;

	for (size_t i = 0; i < m->msg->n_mounts; i++)
		if (done[i] && m->mounts[i] >= 0 && m->msg->mounts[i]->group == group && (best < 0 || strlen(m->msg->mounts[i]->root) < strlen(m->msg->mounts[best]->root)))
			best = (int)i;
	return best;
}

/* Whether a mount of that group is among those that are made now and is not yet in it. */
static bool is_to_come(const struct maker *m, const bool *done, uint32_t group)
{
	for (size_t i = 0; group && i < m->msg->n_mounts; i++)
		if (m->msg->mounts[i]->group == group && m->mounts[i] >= 0 && !done[i])
			return true;
	return false;
}

/* Of those that are to be in group `group` and are not, the one with the largest part comes first: what others take over must show all that they show. */
static bool is_largest(const struct maker *m, const bool *done, size_t i)
{
	const Gw__NsMount *mount = m->msg->mounts[i];

	for (size_t k = 0; mount->group && k < m->msg->n_mounts; k++)
		if (k != i && !done[k] && m->mounts[k] >= 0 && m->msg->mounts[k]->group == mount->group && strlen(m->msg->mounts[k]->root) < strlen(mount->root))
			return false;
	return true;
}

static int take_over(const struct maker *m, int from, size_t to)
{
	return move_mount(m->mounts[from], "", m->mounts[to], "", MOVE_MOUNT_SET_GROUP | MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0 ? -errno : 0;
}

/* The kind of a mount can be set from within its namespace only, its group from anywhere. */
int mount_enter_space(struct maker *m, uint32_t space)
{
	int ret = m->space == space ? 0 : ns_enter(m->spaces[space], NS_MNT);

	if (ret == 0)
		m->space = space;
	return ret;
}

static int join_group(const struct maker *m, const bool *done, size_t i)
{
	const Gw__NsMount *mount = m->msg->mounts[i];
	int peer = mount->group ? find_member(m, done, mount->group) : -1, master = mount->master ? find_member(m, done, mount->master) : -1, ret = 0;

	if (mount->unbindable)
		return set_propagation(m->mounts[i], MS_UNBINDABLE);
	if (peer >= 0)
		return (ret = set_propagation(m->mounts[i], MS_PRIVATE)) < 0 ? ret : take_over(m, peer, i);
	if (master >= 0)
		ret = take_over(m, master, i);
	if (ret == 0 && master >= 0)
		ret = set_propagation(m->mounts[i], MS_SLAVE);
	return ret == 0 && mount->group ? set_propagation(m->mounts[i], MS_SHARED) : ret;
}

int mount_set_groups(struct maker *m, struct err *e)
{
	cleanup_free bool *done = must_alloc(m->msg->n_mounts + 1);
	bool moved = true;

	for (size_t i = 0; m->late && i < m->msg->n_mounts; i++)
		done[i] = !ns_mount_is_late(m->msg, i);
	while (moved) {
		moved = false;
		for (size_t i = 0; i < m->msg->n_mounts; i++) {
			int ret;

			if (done[i] || m->mounts[i] < 0 || is_to_come(m, done, m->msg->mounts[i]->master) || !is_largest(m, done, i))
				continue;
			ret = mount_enter_space(m, m->msg->mounts[i]->space);
			if (ret == 0)
				ret = join_group(m, done, i);
			if (ret < 0)
				return err_sys(e, ret, "propagation of mount %s", m->msg->mounts[i]->where);
			done[i] = moved = true;
		}
	}
	return 0;
}
