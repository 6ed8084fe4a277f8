/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * host_exec.c - runs a command inside a host
 *
 * labhost exec STATE PREFIX NAME [--tty] [--spawn LOG] [--] COMMAND [ARGUMENT...]
 *
 * The command is a process of the host's pid namespace and leads a session of its own. It gets our standard
 * streams and nothing else that is open here. Every signal that reaches us is passed on to it (those that the terminal driver
 * sends to our whole group go to its whole group); when Ctrl-Z stops it, we stop; its exit status is ours, and when a signal ended it, the same signal
 * ends us. What the command left running in the background goes on.
 *
 * --tty: the command gets a new terminal of the host, relayed to ours.
 * --spawn LOG: the command goes to the background, reads from /dev/null and appends to the file LOG of this side.
 */
#include "labhost.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/util.h"

struct exec_request {
	bool tty;
	const char *log;        /* with --spawn, otherwise NULL */
	char **command;
	sigset_t mask;          /* what we were started with, and the command gets */
	char cwd[4096];
	int pidfd;              /* init of the host */
	int channel[2];         /* for the pty */
};

static void parse(const struct labhost *host, int argc, char **argv, struct exec_request *request)
{
	int i = 0;

	for (; i < argc && argv[i][0] == '-'; i++) {
		if (strcmp(argv[i], "--tty") == 0 || strcmp(argv[i], "-t") == 0) {
			request->tty = true;
		} else if (strcmp(argv[i], "--spawn") == 0 && i + 1 < argc) {
			request->log = argv[++i];
		} else if (strcmp(argv[i], "--") == 0) {
			i++;
			break;
		} else {
			lab_die(host, 0, "exec: unknown option %s", argv[i]);
		}
	}
	if (i >= argc)
		lab_die(host, 0, "exec: no command; usage: ./dev lab exec HOST -- COMMAND [ARGUMENT...]");
	request->command = argv + i;
}

/* PATH of the host: the lab's programs (STATE/path), the caller's PATH, and the system directories if they were missing. */
static void set_environment(const struct labhost *host)
{
	const char *old = getenv("PATH");
	char file[512], ours[4096] = "", path[16384];
	cleanup_fclose FILE *f = NULL;

	snprintf(file, sizeof(file), "%s/path", host->state);
	f = fopen(file, "re");
	if (f && fgets(ours, sizeof(ours), f))
		ours[strcspn(ours, "\n")] = '\0';
	if (!old || !*old)
		old = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	snprintf(path, sizeof(path), "%s%s%s%s", ours, *ours ? ":" : "", old, strstr(old, "/usr/sbin") ? "" : ":/usr/sbin:/sbin");
	setenv("PATH", path, 1);
}

static void open_streams(const struct labhost *host, const struct exec_request *request, int log)
{
	int null;

	if (request->tty) {
		if (pty_open_inside(request->channel[1]) < 0)
			lab_die(host, errno, "exec: terminal of the host");
		return;
	}
	if (!request->log)
		return;
	null = open("/dev/null", O_RDONLY);
	if (null < 0 || dup2(null, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0)
		lab_die(host, errno, "exec: streams of the background process");
}

/* A host whose memory or CPU is limited (./dev lab limit) has control groups, one a line; what we start there belongs to them. */
static void join_control_groups(const struct labhost *host)
{
	cleanup_fclose FILE *f = NULL;
	char path[512], procs[512];
	int fd;

	snprintf(path, sizeof(path), "%s/hosts/%s/cgroup", host->state, host->name);
	f = fopen(path, "re");
	while (f && fscanf(f, "%511s", procs) == 1) {
		fd = open(procs, O_WRONLY | O_CLOEXEC);
		if (fd < 0 || write(fd, "0", 1) != 1)
			lab_die(host, errno, "exec: %s", procs);
		close(fd);
	}
}

static _Noreturn void run_command(const struct labhost *host, const struct exec_request *request, int log)
{
	int failure;

	join_control_groups(host);
	if (setns(request->pidfd, CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP) < 0)
		lab_die(host, errno, "exec: entering the host");
	if (chdir(request->cwd) < 0 && chdir("/") < 0)
		lab_die(host, errno, "exec: chdir");
	setsid();
	open_streams(host, request, log);
	sigprocmask(SIG_SETMASK, &request->mask, NULL);
	syscall(SYS_close_range, 3u, ~0u, 0u);
	execvp(request->command[0], request->command);
	failure = errno;
	fprintf(stderr, "lab: %s: %s: %s\n", host->name, request->command[0], strerror(failure));
	_exit(failure == ENOENT ? 127 : 126);
}

/* Passes signals on until the command has ended; returns its wait status. */
static int supervise(pid_t pid, const sigset_t *watched)
{
	siginfo_t info;
	int status;

	for (;;) {
		if (sigwaitinfo(watched, &info) < 0)
			continue;
		if (info.si_signo != SIGCHLD) {
			kill(info.si_code == SI_KERNEL ? -pid : pid, info.si_signo);
			continue;
		}
		if (waitpid(pid, &status, WNOHANG | WUNTRACED) != pid)
			continue;
		if (!WIFSTOPPED(status))
			return status;
		/* Ctrl-Z at a shell. Whoever stopped the command in another way will not think of waking us, too. */
		if (WSTOPSIG(status) == SIGTSTP && isatty(0)) {
			raise(SIGSTOP);
			kill(pid, SIGCONT);
		}
	}
}

static int finish(int status)
{
	struct rlimit no_core = { 0, 0 };
	sigset_t one;

	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	setrlimit(RLIMIT_CORE, &no_core);
	signal(WTERMSIG(status), SIG_DFL);
	sigemptyset(&one);
	sigaddset(&one, WTERMSIG(status));
	raise(WTERMSIG(status));
	sigprocmask(SIG_UNBLOCK, &one, NULL);
	return 128 + WTERMSIG(status);
}

/* Relays the terminal until the command has ended. */
static void start_relay(const struct labhost *host, const struct exec_request *request, pid_t pid)
{
	cleanup_close int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	int master = pty_receive(request->channel[0]);

	if (master < 0 || pidfd < 0)
		lab_die(host, errno, "exec: terminal of the host");
	pty_relay(master, pidfd);
	close(master);
}

/* A fork in the host's control group: moving there later would wait for all processors. */
static pid_t fork_in_group(const struct labhost *host)
{
	struct clone_args args = { .exit_signal = SIGCHLD };
	cleanup_close int group = -1;
	char path[4096];

	if (lab_cgroup(host, path, sizeof(path) - sizeof("/host"))) {
		strcat(path, "/host");
		group = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	}
	if (group >= 0) {
		args.flags = CLONE_INTO_CGROUP;
		args.cgroup = (uint64_t)group;
	}
	return (pid_t)syscall(SYS_clone3, &args, sizeof(args));
}

int host_exec(struct labhost *host, int argc, char **argv)
{
	struct exec_request request = { .pidfd = -1, .channel = { -1, -1 } };
	cleanup_close int log = -1;
	sigset_t all;
	pid_t pid;

	parse(host, argc, argv, &request);
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &request.mask);
	signal(SIGCHLD, SIG_DFL);
	if (!getcwd(request.cwd, sizeof(request.cwd)))
		strcpy(request.cwd, "/");
	if (request.log) {
		log = open(request.log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
		if (log < 0)
			lab_die(host, errno, "%s", request.log);
	}
	set_environment(host);
	request.pidfd = lab_open_init(host, &pid);
	if (request.pidfd < 0)
		lab_die(host, 0, "is not running (./dev lab status shows the hosts)");
	if (request.tty && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, request.channel) < 0)
		lab_die(host, errno, "socketpair");
	if (setns(request.pidfd, CLONE_NEWPID) < 0)
		lab_die(host, errno, "exec: entering the pid namespace");
	pid = fork_in_group(host);
	if (pid < 0)
		lab_die(host, errno, "exec: fork");
	if (pid == 0 && request.log && fork() != 0)
		_exit(0);       /* an orphan of the host is adopted by the host's init; one of ours would be by the machine's */
	if (pid == 0)
		run_command(host, &request, log);
	if (request.tty) {
		close(request.channel[1]);
		start_relay(host, &request, pid);
	}
	return finish(supervise(pid, &all));
}
