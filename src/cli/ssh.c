// SPDX-License-Identifier: GPL-2.0-or-later
/* ssh.c - see ssh.h; ssh(1), sudo(8) */
#include "cli/ssh.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/util.h"

#define WORDS_MAX 64

/* Statuses that nothing else has. */
enum { NO_PROGRAM = 91, NO_SUDO = 92, SUDO_ASKS = 93, SSH_FAILED = 255, NOT_FOUND = 127 };

void ssh_bridge_command(const char *program, char ret[SSH_COMMAND_MAX])
{
	/* Whatever the login shell is, it hands one word in single quotes to sh. */
	snprintf(ret, SSH_COMMAND_MAX,
		 "exec sh -c 'PATH=$PATH:/usr/local/bin:/usr/bin:/usr/local/sbin:/usr/sbin; export PATH; p=`command -v %s` || exit %d; "
		 "test `id -u` = 0 && exec \"$p\" bridge --stdio \"$SSH_CONNECTION\"; "
		 "command -v sudo >/dev/null || exit %d; sudo -n -l \"$p\" bridge --stdio >/dev/null 2>&1 || exit %d; exec sudo -n \"$p\" bridge --stdio \"$SSH_CONNECTION\"'",
		 program, NO_PROGRAM, NO_SUDO, SUDO_ASKS);
}

static void __attribute__((noreturn)) run(char *command, const char *host, const char *what, int fd, int errors)
{
	static const int ignored[] = { SIGINT, SIGQUIT, SIGHUP }; /* ssh leaves them so */
	const char *words[WORDS_MAX + 8];
	sigset_t none;
	char *rest;
	size_t n = 0;

	for (char *word = strtok_r(command, " \t", &rest); word && n < WORDS_MAX; word = strtok_r(NULL, " \t", &rest))
		words[n++] = word;
	words[n++] = "-T";
	words[n++] = "--";
	words[n++] = host;
	words[n++] = what;
	words[n] = NULL;
	for (size_t i = 0; i < ARRAY_SIZE(ignored); i++)
		signal(ignored[i], SIG_IGN);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (dup2(fd, STDIN_FILENO) < 0 || dup2(fd, STDOUT_FILENO) < 0 || dup2(errors, STDERR_FILENO) < 0)
		_exit(NOT_FOUND);
	execvp(words[0], (char *const *)(uintptr_t)words);
	dprintf(STDERR_FILENO, "%s: %s\n", words[0], strerror(errno));
	_exit(NOT_FOUND);
}

int ssh_start(const char *command, const char *host, const char *what, struct ssh *ret, struct err *e)
{
	cleanup_free char *words = strdup(command);
	int pair[2], errors[2];

	if (!words || !words[strspn(words, " \t")])
		return err_set(e, -EINVAL, "no command for ssh");
	if (host[0] == '-')
		return err_set(e, -EINVAL, "'%s' is no host", host);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0 || pipe2(errors, O_CLOEXEC) < 0)
		return err_sys(e, -errno, "socketpair");
	*ret = (struct ssh){ .pid = fork(), .fd = pair[0], .errors = errors[0] };
	if (ret->pid == 0)
		run(words, host, what, pair[1], errors[1]);
	close(pair[1]);
	close(errors[1]);
	return ret->pid < 0 ? err_sys(e, -errno, "fork") : 0;
}

void ssh_close(struct ssh *ssh)
{
	close_fdp(&ssh->fd);
	close_fdp(&ssh->errors);
}

int ssh_end(struct ssh *ssh, const char *host, struct err *e)
{
	int status = 0, code;

	close_fdp(&ssh->fd);
	while (waitpid(ssh->pid, &status, 0) < 0 && errno == EINTR)
		;
	code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
	switch (code) {
	case NO_PROGRAM:
		return err_set(e, -ENOENT, "godwit is not installed on %s: install its package there", host);
	case NO_SUDO:
		return err_set(e, -EPERM, "who logs in on %s is not root, and there is no sudo: log in as root@", host);
	case SUDO_ASKS:
		return err_set(e, -EPERM, "sudo on %s wants a password, which nobody can give it here: log in as root@, or let the user run it without: %%sudo ALL=(root) NOPASSWD: /usr/bin/godwit bridge *", host);
	case NOT_FOUND:
		return err_set(e, -ENOENT, "ssh cannot be run: install openssh-client");
	case SSH_FAILED:
		return err_set(e, -ECONNREFUSED, "ssh did not get to %s; what it says is above", host);
	default:
		return err_set(e, -EPROTO, "ssh to %s has ended (%s %d) without `godwit bridge` having begun there", host, WIFEXITED(status) ? "status" : "signal",
			       WIFEXITED(status) ? code : WTERMSIG(status));
	}
}
