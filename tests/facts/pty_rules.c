// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * pty_rules.c - what src/image/pty.c and its neighbours rely on about pseudo-terminals
 *
 * TIOCSTI has reached the line discipline when it returns; a change of settings that leaves ICANON alone keeps what has been typed;
 * TIOCVHANGUP hangs up the descriptions of the slave that are open, and no later one; the number of a closed master stays taken while
 * its slave is still open; a leader that gives its terminal up (TIOCNOTTY) does not hang it up.
 */
#include <asm/termbits.h>

#include "fact.h"

static int open_master(unsigned *ret_number)
{
	int m = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK), zero = 0;

	MUST(m >= 0 && ioctl(m, TIOCSPTLCK, &zero) == 0 && ioctl(m, TIOCGPTN, ret_number) == 0);
	return m;
}

static int open_slave(int m)
{
	int s = ioctl(m, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);

	MUST(s >= 0);
	return s;
}

static void typing(void)
{
	unsigned number;
	int m = open_master(&number), s = open_slave(m), have = -1;
	struct termios2 t;
	char text[16];

	MUST(ioctl(m, TCGETS2, &t) == 0);
	t.c_lflag = ICANON;
	MUST(ioctl(m, TCSETS2, &t) == 0);
	for (const char *c = "ab\nc"; *c; c++)
		MUST(ioctl(s, TIOCSTI, c) == 0);
	MUST(ioctl(s, FIONREAD, &have) == 0);
	FACT(have == 3, "after TIOCSTI the line can be read at once (%d bytes)", have);
	t.c_lflag = ICANON | ECHO | ISIG;
	t.c_iflag = IXON;
	MUST(ioctl(m, TCSETS2, &t) == 0);
	FACT(read(s, text, sizeof(text)) == 3, "other settings with ICANON as before keep the line");
	MUST(ioctl(s, TIOCSTI, "\n") == 0);
	FACT(read(s, text, sizeof(text)) == 2 && text[0] == 'c', "and what was being edited");
	MUST(ioctl(m, TIOCSTI, "x") == 0 && ioctl(m, FIONREAD, &have) == 0);
	FACT(have >= 1, "TIOCSTI on the master is what the master reads (%d bytes)", have);
	close(m);
	close(s);
}

static void hanging_up(void)
{
	unsigned number, again;
	int m = open_master(&number), first = open_slave(m), later;
	struct winsize w;
	char c;

	MUST(ioctl(first, TIOCVHANGUP) == 0);
	later = open_slave(m);
	FACT(ioctl(first, TIOCGWINSZ, &w) < 0 && errno == EIO, "a description that is hung up answers EIO");
	FACT(read(first, &c, 1) == 0, "and reads as ended");
	FACT(ioctl(later, TIOCGWINSZ, &w) == 0, "one opened afterwards works");
	close(m);
	m = open_master(&again);
	FACT(again != number, "the number %u is not given away while slaves of it are open (but %u)", number, again);
	close(m);
	close(first);
	close(later);
}

static void giving_up(void)
{
	unsigned number;
	int m = open_master(&number), s = open_slave(m), status, session = 0;
	struct winsize w;
	pid_t child = fork();

	if (child == 0) {
		signal(SIGHUP, SIG_IGN);
		if (setsid() < 0 || ioctl(s, TIOCSCTTY, 0) < 0 || open("/dev/tty", O_RDWR) < 0 || ioctl(s, TIOCNOTTY) < 0)
			_exit(1);
		_exit(0);
	}
	MUST(waitpid(child, &status, 0) == child);
	FACT(status == 0, "a session takes a terminal and gives it up");
	FACT(ioctl(s, TIOCGWINSZ, &w) == 0, "it is not hung up by that");
	FACT(ioctl(m, TIOCGSID, &session) < 0 || !session, "and nobody's any more");
	close(m);
	close(s);
}

int main(void)
{
	if (access("/dev/ptmx", F_OK) < 0)
		SKIP("no pseudo-terminals here");
	typing();
	hanging_up();
	giving_up();
	return fact_failures ? 1 : 0;
}
