/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* cred_record.h - what the BPF program writes for each thread; shared by it and cred_peek.c, so it includes nothing */
#ifndef GODWIT_KERN_CRED_RECORD_H
#define GODWIT_KERN_CRED_RECORD_H

#define CRED_BLOB_WORDS 16
#define CRED_NAME_LEN 64

/* A keyring of a thread. */
struct cred_keyring {
	int serial;              /* 0: there is none */
	unsigned int keys;       /* in it */
	unsigned int user_links; /* those of them that are keyrings of a user ("_uid.0") */
	unsigned int unused;
	char name[CRED_NAME_LEN];
};

struct cred_record {
	int tid;
	unsigned char dispatches; /* its system calls are handed to the program (PR_SET_SYSCALL_USER_DISPATCH) */
	unsigned char has_ldt;    /* its process has descriptors of segments (modify_ldt) */
	unsigned char reserved[2];
	struct cred_keyring session, process, thread;
	unsigned long long blob[CRED_BLOB_WORDS]; /* what security modules keep with the credentials; it may be shorter */
};

#endif
