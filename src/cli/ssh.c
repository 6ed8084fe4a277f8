// SPDX-License-Identifier: GPL-2.0-or-later
/* ssh.c - see ssh.h; ssh(1), sudo(8) */
#include "cli/ssh.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/util.h"
#include "cli/bootstrap.h"

#define WORDS_MAX 64

/* Statuses that nothing else has. */
enum { NO_PROGRAM = 91, NO_SUDO = 92, SUDO_ASKS = 93, NO_ROOM = 94, NOT_RUNNING = 95, SSH_FAILED = 255, NOT_FOUND = 127 };

/* Whatever the login shell is, it hands one word in single quotes to sh. */
#define BEGIN "exec sh -c 'PATH=$PATH:/usr/local/bin:/usr/bin:/usr/local/sbin:/usr/sbin; export PATH; "
#define BECOME_ROOT "s=; test `id -u` = 0 || { command -v sudo >/dev/null || exit %d; sudo -n -l \"$p\" bridge --stdio >/dev/null 2>&1 || exit %d; s=\"sudo -n\"; }; "
#define BRIDGE "\"$p\" bridge --stdio \"$SSH_CONNECTION\""
#define TAKE "dd bs=%u iflag=fullblock count=%zu 2>/dev/null"

void ssh_bridge_command(size_t blocks, char ret[SSH_COMMAND_MAX])
{
	if (!blocks) {
		snprintf(ret, SSH_COMMAND_MAX, BEGIN "p=`command -v godwit` || exit %d; " BECOME_ROOT "exec $s " BRIDGE "'", NO_PROGRAM, NO_SUDO, SUDO_ASKS);
		return;
	}
	/* The directory is removed by the godwitd that is run from it, at its end, or here where another one has been found. */
	snprintf(ret, SSH_COMMAND_MAX,
		 BEGIN "umask 077; d=; if p=`command -v godwit`; then " TAKE " >/dev/null; else d=`mktemp -d /var/tmp/godwit-bootstrap-XXXXXX` && " TAKE " | tar -xf - -C $d || exit %d; p=$d/bin/godwit; "
		 "LD_LIBRARY_PATH=$d/lib $d/bin/godwitd --version >/dev/null || { rm -rf $d; exit %d; }; fi; " BECOME_ROOT
		 "test -z \"$d\" && exec $s " BRIDGE "; $s env LD_LIBRARY_PATH=$d/lib GODWIT_BOOTSTRAP=$d " BRIDGE "; r=$?; test -e $d/used || rm -rf $d; exit $r'",
		 BOOTSTRAP_BLOCK, blocks, BOOTSTRAP_BLOCK, blocks, NO_ROOM, NOT_RUNNING, NO_SUDO, SUDO_ASKS);
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
		return err_set(e, -ENOENT, "godwit is not installed on %s: install its package there, or let --bootstrap copy it", host);
	case NO_ROOM:
		return err_set(e, -ENOSPC, "the programs could not be put into a directory of /var/tmp on %s", host);
	case NOT_RUNNING:
		return err_set(e, -ENOEXEC, "the programs of this host do not run on %s; why is said above: install the package for its system there", host);
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
