/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* aio_record.h - what the BPF program writes for each context of asynchronous I/O; shared by it and aio_peek.c, so it includes nothing */
#ifndef GODWIT_KERN_AIO_RECORD_H
#define GODWIT_KERN_AIO_RECORD_H

struct aio_record {
	unsigned long long id;   /* the address of its ring */
	unsigned long long size; /* of the ring's mapping */
	unsigned int slots;      /* of the ring; one stays empty */
	unsigned int in_flight;  /* requests that are not over */
	unsigned int tail;       /* of the ring */
	unsigned int unused;
};

#endif
