/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tcx_attach.c - attaching a program to a device that sends (src/net/redirect_attach.c)
 *
 * By tcx nothing is lost. With a clsact queueing discipline, which older ways need, the device's own discipline is away for a moment, and so is what is sent then.
 */
#include "fact.h"

#include <arpa/inet.h>
#include <linux/bpf.h>
#include <net/if.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>

#define TCX_EGRESS 47
#define TIMES 50

static volatile bool stop;
static unsigned long sent;

static int bpf(int command, void *attr, size_t len)
{
	return (int)syscall(SYS_bpf, command, attr, len);
}

/* Does nothing to any packet: r0 = -1, exit. */
static int load(void)
{
	struct bpf_insn program[] = { { .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = -1 }, { .code = BPF_JMP | BPF_EXIT } };
	union bpf_attr attr = { .prog_type = BPF_PROG_TYPE_SCHED_CLS, .insn_cnt = 2, .insns = (uintptr_t)program, .license = (uintptr_t)"GPL" };

	return bpf(BPF_PROG_LOAD, &attr, sizeof(attr));
}

static int change(int command, int device, int program)
{
	struct {
		uint32_t device, program, type, flags, replace, relative;
		uint64_t revision;
	} attr = { .device = (uint32_t)device, .program = (uint32_t)program, .type = TCX_EGRESS };

	return bpf(command, &attr, sizeof(attr));
}

static void *send_all_the_time(void *arg)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(9), .sin_addr = { inet_addr("10.78.0.2") } };
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	(void)arg;
	while (!stop) {
		if (sendto(fd, "x", 1, 0, (struct sockaddr *)&to, sizeof(to)) == 1)
			sent++;
		if (!(sent % 64))
			usleep(100); /* the receiver keeps up */
	}
	close(fd);
	return NULL;
}

static unsigned long arrived(void)
{
	FILE *f = fopen("/sys/class/net/there/statistics/rx_packets", "r");
	unsigned long n = 0;

	MUST(f && fscanf(f, "%lu", &n) == 1);
	fclose(f);
	return n;
}

static unsigned long lose(void (*once)(int device, int program), int device, int program)
{
	unsigned long before = arrived();
	pthread_t thread;

	stop = false;
	sent = 0;
	MUST(pthread_create(&thread, NULL, send_all_the_time, NULL) == 0);
	for (int i = 0; i < TIMES; i++) {
		once(device, program);
		usleep(2000);
	}
	stop = true;
	pthread_join(thread, NULL);
	WAIT_FOR(arrived() - before >= sent);
	SAW("%lu sent, %lu arrived", sent, arrived() - before);
	return sent > arrived() - before ? sent - (arrived() - before) : 0;
}

static void by_tcx(int device, int program)
{
	MUST(change(BPF_PROG_ATTACH, device, program) == 0);
	MUST(change(BPF_PROG_DETACH, device, program) == 0);
}

static void by_clsact(int device, int program)
{
	(void)device;
	(void)program;
	MUST(system("tc qdisc add dev here clsact && tc qdisc del dev here clsact") == 0);
}

int main(void)
{
	unsigned long lost;
	int program, device;

	if (unshare(CLONE_NEWNET | CLONE_NEWNS) < 0)
		SKIP("no network namespace: %s", strerror(errno));
	MUST(system("mount -t sysfs none /sys && ip link add here type veth peer name there && ip link set here up && ip link set there up && "
		    "ip addr add 10.78.0.1/24 dev here && ip neigh add 10.78.0.2 lladdr 02:00:00:00:00:02 dev here && sleep 0.2") == 0);
	device = (int)if_nametoindex("here");
	program = load();
	MUST(program >= 0);
	if (change(BPF_PROG_ATTACH, device, program) < 0)
		SKIP("no tcx: %s", strerror(errno));
	MUST(change(BPF_PROG_DETACH, device, program) == 0);
	lost = lose(by_tcx, device, program);
	FACT(lost == 0, "nothing is lost while a program is attached %d times by tcx", TIMES);
	lost = lose(by_clsact, device, program);
	SAW("with clsact %lu are lost", lost);
	return fact_result();
}
