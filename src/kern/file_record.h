/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* file_record.h - what the BPF program writes for each descriptor; shared by it and file_table.c, so it includes nothing */
#ifndef GODWIT_KERN_FILE_RECORD_H
#define GODWIT_KERN_FILE_RECORD_H

/* Addresses in the kernel tell things apart, and are not used for anything else. Two records of one state are equal byte by byte. */
struct file_record {
	unsigned int fd;
	unsigned int flags;          /* f_flags: as F_GETFL shows them, without FD_CLOEXEC */
	unsigned long long file;     /* the open file description */
	unsigned long long number;   /* of the inode */
	unsigned long long inode, kind; /* inode: another value for another inode, also when it has got the memory of this one; kind: its operations */
	long long position;
	unsigned long long digest;   /* TCP sockets: of all that the kernel keeps about it; read by groups, sets of epoll: file_record_set; 0: something else, or not known */
	unsigned char cloexec;
	unsigned char has_owner;     /* F_SETOWN, F_SETSIG or O_ASYNC have been used */
	unsigned char has_locks;     /* somebody holds a lock or a lease on the file */
	unsigned char armed;         /* enum file_armed, of a timerfd */
	unsigned int process;        /* whose number it is, by the initial pid namespace */
};

/* What a set of epoll has as its digest: the sum of these, with the lowest bit set. */
static inline __attribute__((always_inline)) unsigned long long file_record_mix(unsigned long long digest, unsigned long long word)
{
	digest = (digest ^ word) * 0x9e3779b97f4a7c15ull;
	digest ^= digest >> 32;
	digest *= 0xd6e8feb86659fd93ull;
	return digest ^ digest >> 29;
}

/* file: as in the records, what the entry watches. */
static inline __attribute__((always_inline)) unsigned long long file_record_entry(unsigned long long file, unsigned int fd, unsigned int events, unsigned long long data)
{
	return file_record_mix(file_record_mix(file_record_mix(1, file), (unsigned long long)events << 32 | fd), data);
}

/* How it polls devices that are busy. */
static inline __attribute__((always_inline)) unsigned long long file_record_set(unsigned int busy_poll_us, unsigned int budget, unsigned int prefers)
{
	return file_record_mix(2, (unsigned long long)busy_poll_us << 32 | budget << 1 | (prefers != 0));
}

/* A single number: of a process as the records name it, or of the caller (0). */
struct file_one {
	unsigned int process, fd; /* given */
	unsigned long long is_read; /* 0: there is none */
	struct file_record r;
};

/* As many numbers as a word of the kernel's bitmaps of them has bits. */
#define FILE_GROUP 64
/* So many words of the bitmap behind the last group are looked through. */
#define FILE_GROUPS_BEYOND 256

/* Whose groups: a process and a number that it has given them. */
struct file_groups_key {
	unsigned int process, number;
};

/* So many of them at most. */
#define FILE_GROUPS_MAPS 1024

struct file_groups_ask {
	struct file_groups_key key;
	unsigned int process; /* whose table: as in the records */
	unsigned int first, n_groups; /* of the map's elements these */
};

struct file_group {
	unsigned int process, first; /* given: as in the records; the first number, a multiple of 64 */
	unsigned int is_last;        /* given: no other number is expected behind this group */
	unsigned int is_read;        /* 0: could not be read, or there are numbers behind the last group */
	unsigned long long open;     /* a bit for each of the records that has been written */
	struct file_record v[FILE_GROUP];
};

/* What a remaining time of 0 does not tell: a timer that is due, and will expire as soon as its CPU gets to it, shows that as well. */
enum file_armed { FILE_ARMED_UNKNOWN, FILE_ARMED_NO, FILE_ARMED_YES };

#endif
