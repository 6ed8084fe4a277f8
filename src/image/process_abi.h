/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* process_abi.h - kernel numbers that this system's headers are too old for */
#ifndef GODWIT_IMAGE_PROCESS_ABI_H
#define GODWIT_IMAGE_PROCESS_ABI_H

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#define PR_GET_MDWE 66
#endif
#ifndef PR_SET_MEMORY_MERGE
#define PR_SET_MEMORY_MERGE 67
#define PR_GET_MEMORY_MERGE 68
#endif
#define PROCESS_ARCH_GET_XCOMP_PERM 0x1022
#define PROCESS_ARCH_REQ_XCOMP_PERM 0x1023
#define PROCESS_ARCH_GET_UNTAG_MASK 0x4001

#endif
