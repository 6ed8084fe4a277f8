/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fdpass.c - descriptors between processes; see fdpass.h */
#include "kern/fdpass.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "base/util.h"

int fd_send(int socket, const int *fds, size_t n, struct err *e)
{
	char control[CMSG_SPACE(FDPASS_MAX * sizeof(int))] __attribute__((aligned(8))) = { 0 };
	struct iovec iov = { (char[1]){ 'f' }, 1 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = CMSG_SPACE(n * sizeof(int)) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(n * sizeof(int));
	memcpy(CMSG_DATA(c), fds, n * sizeof(int));
	if (sendmsg(socket, &m, MSG_NOSIGNAL) != 1)
		return err_sys(e, errno, "handing over %zu descriptors", n);
	return 0;
}

int fd_receive(int socket, void *data, size_t len, int *ret_fd, struct err *e)
{
	char control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8)));
	struct iovec iov = { data, len };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
	struct cmsghdr *c;
	ssize_t n = recvmsg(socket, &m, MSG_CMSG_CLOEXEC);

	if (n < 0)
		return err_sys(e, errno, "receiving a descriptor");
	if (n == 0)
		return err_set(e, -EPIPE, "the process that hands over connections is gone");
	c = CMSG_FIRSTHDR(&m);
	if (!c || c->cmsg_type != SCM_RIGHTS || c->cmsg_len != CMSG_LEN(sizeof(int)))
		return err_set(e, -EPROTO, "a message without a descriptor");
	memcpy(ret_fd, CMSG_DATA(c), sizeof(int));
	return 0;
}

int pidfd_open_process(pid_t pid, struct err *e)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);

	return fd < 0 ? err_sys(e, errno, "process %d", pid) : fd;
}

int pidfd_get(int pidfd, int fd, struct err *e)
{
	int got = (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);

	return got < 0 ? err_sys(e, errno, "taking descriptor %d of the process", fd) : got;
}

int pidfd_signal(int pidfd, int sig)
{
	return syscall(SYS_pidfd_send_signal, pidfd, sig, NULL, 0) < 0 ? -errno : 0;
}

int batch_receive_fds(struct batch *b, int socket, int *ret_fds, size_t n, struct err *e)
{
	uint64_t control_at, message_at, iov_at;
	char *control = batch_space(b, CMSG_SPACE(FDPASS_MAX * sizeof(int)), &control_at);
	char *byte = batch_space(b, 16, &iov_at);
	struct iovec *iov = batch_space(b, sizeof(*iov), &message_at);
	struct msghdr *m;
	int ret;

	(void)byte;
	iov->iov_base = (void *)iov_at;
	iov->iov_len = 1;
	iov_at = message_at;
	m = batch_space(b, sizeof(*m), &message_at);
	m->msg_iov = (void *)iov_at;
	m->msg_iovlen = 1;
	m->msg_control = (void *)control_at;
	m->msg_controllen = CMSG_SPACE(n * sizeof(int));
	batch_call(b, "recvmsg", SYS_recvmsg, (uint64_t)socket, message_at, MSG_CMSG_CLOEXEC);
	ret = batch_run(b, e);
	if (ret == 0 && ((struct cmsghdr *)control)->cmsg_len != CMSG_LEN(n * sizeof(int)))
		ret = err_set(e, -EMFILE, "the process received fewer than %zu descriptors", n);
	if (ret == 0)
		memcpy(ret_fds, control + CMSG_LEN(0), n * sizeof(int));
	batch_reset(b);
	return ret;
}
