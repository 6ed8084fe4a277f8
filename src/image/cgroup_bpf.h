/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * cgroup_bpf.h - programs of BPF that are attached to a control group
 *
 * Those that decide about devices (device filters of containers) move when they use nothing but their instructions, which the kernel gives back as it took them. Of others it only gives
 * back what it has made of them: they cannot move, and that there are such is said, so that a group which the destination lacks is not made without them.
 */
#ifndef GODWIT_IMAGE_CGROUP_BPF_H
#define GODWIT_IMAGE_CGROUP_BPF_H

#include "base/err.h"
#include "cgroup.pb-c.h"

/* dir: the group's directory (version 2). */
void cgroup_bpf_capture(int dir, Gw__CgroupGroup *g);
int cgroup_bpf_validate(const Gw__CgroupGroup *g, struct err *e);
/* For a group that has been made. */
int cgroup_bpf_restore(int dir, const Gw__CgroupGroup *g, struct err *e);

#endif
