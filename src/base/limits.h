/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* limits.h - resource limits of Godwit's own processes */
#ifndef GODWIT_BASE_LIMITS_H
#define GODWIT_BASE_LIMITS_H

/*
 * As many descriptors as the kernel lets one process have (sysctl fs.nr_open), or as many as the hard limit allows where CAP_SYS_RESOURCE is lacking. A worker holds one for
 * each open file description, object of shared memory and process of the unit.
 */
void limits_raise_descriptors(void);

#endif
