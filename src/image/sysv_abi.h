/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sysv_abi.h - what the system's headers leave to the program, or hide, about System V objects; and limits */
#ifndef GODWIT_IMAGE_SYSV_ABI_H
#define GODWIT_IMAGE_SYSV_ABI_H

#include <stdint.h>
#include <sys/sem.h>

union semun {
	int val;
	struct semid_ds *buf;
	uint16_t *array;
	struct seminfo *info;
};

#ifndef MSG_COPY
#define MSG_COPY 040000
#endif

#define SYSV_OBJECTS_MAX 4096u
#define SYSV_SEMAPHORES_MAX 32000u /* in a set */
#define SYSV_VALUE_MAX 32767u
#define SYSV_MESSAGES_MAX 65536

#endif
