// SPDX-License-Identifier: GPL-2.0-or-later
/* tty.c - victims about pseudo-terminals: settings, what lies in their buffers, hung up ends, the controlling terminal */
#include <asm/termbits.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "victim.h"

static int master = -1, slave = -1;
static struct text before;

static int open_master(void)
{
	int m = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK), n = -1;

	must(m >= 0 && !grantpt(m) && !unlockpt(m) && !ioctl(m, TIOCGPTN, &n));
	return m;
}

static int open_slave(int m, int flags)
{
	int n = -1, fd;
	char path[64];

	must(!ioctl(m, TIOCGPTN, &n));
	snprintf(path, sizeof(path), "/dev/pts/%d", n);
	fd = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC | flags);
	must(fd >= 0);
	return fd;
}

static void open_pair(void)
{
	master = open_master();
	slave = open_slave(master, O_NONBLOCK);
}

static void change(int fd, tcflag_t clear_l, tcflag_t set_l, tcflag_t clear_i, tcflag_t clear_o)
{
	struct termios2 t;

	must(!ioctl(fd, TCGETS2, &t));
	t.c_lflag = (t.c_lflag & ~clear_l) | set_l;
	t.c_iflag &= ~clear_i;
	t.c_oflag &= ~clear_o;
	must(!ioctl(fd, TCSETS2, &t));
}

static void make_raw(int fd)
{
	change(fd, ICANON | ECHO | ISIG | IEXTEN, 0, ~0u, OPOST);
}

static void put(int fd, const char *text)
{
	must(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
}

/* Waits until so much can be read: the kernel carries it over by and by. */
static void settle(int fd, int bytes)
{
	int have = 0;

	for (int i = 0; i < 2000 && !ioctl(fd, FIONREAD, &have) && have < bytes; i++)
		usleep(1000);
	must(have >= bytes);
}

static void expect_read(const char *what, int fd, const char *expected)
{
	char got[9000];
	ssize_t n = read(fd, got, sizeof(got) - 1);

	if (n < 0) {
		fail("%s, expected '%s', got errno %d", what, expected, errno);
		return;
	}
	got[n] = 0;
	expect_text(what, expected, got);
}

static void expect_nothing(const char *what, int fd)
{
	char c;

	if (read(fd, &c, 1) >= 0 || errno != EAGAIN)
		fail("%s, expected nothing to read (errno %d)", what, errno);
}

static void add_settings(struct text *t, int fd)
{
	struct termios2 s;
	struct winsize w;
	struct stat st;
	char path[64], link[128] = "";

	memset(&s, 0, sizeof(s));
	memset(&w, 0, sizeof(w));
	ioctl(fd, TCGETS2, &s);
	ioctl(fd, TIOCGWINSZ, &w);
	must(!fstat(fd, &st));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	must(readlink(path, link, sizeof(link) - 1) > 0);
	text_add(t, "%s i %#x o %#x c %#x l %#x line %d speed %u %u size %d %d %d %d mode %o uid %d gid %d rdev %x flags %#o\n", link, s.c_iflag, s.c_oflag,
		 s.c_cflag, s.c_lflag, s.c_line, s.c_ispeed, s.c_ospeed, w.ws_row, w.ws_col, w.ws_xpixel, w.ws_ypixel, st.st_mode, st.st_uid,
		 st.st_gid, (unsigned)st.st_rdev, fcntl(fd, F_GETFL));
	for (int i = 0; i < NCCS; i++)
		text_add(t, "%d ", s.c_cc[i]);
	text_add(t, "\n");
}

static void add_pair(struct text *t)
{
	int lock = -1, packet = -1, exclusive = -1, n = -1;

	add_settings(t, master);
	ioctl(master, TIOCGPTLCK, &lock);
	ioctl(master, TIOCGPKT, &packet);
	ioctl(master, TIOCGPTN, &n);
	if (slave >= 0) {
		add_settings(t, slave);
		ioctl(slave, TIOCGEXCL, &exclusive);
	}
	text_add(t, "number %d lock %d packet %d exclusive %d\n", n, lock, packet, exclusive);
}

static void compare_pair(void)
{
	struct text after = { 0 };

	add_pair(&after);
	expect_text("settings of the terminal", before.s, after.s);
}

/* ---- settings, raw data both ways ---- */

static void raw_setup(void)
{
	struct winsize w = { 43, 132, 7, 9 };
	struct termios2 t;
	int one = 1;

	open_pair();
	must(!ioctl(slave, TCGETS2, &t));
	t.c_lflag &= ~(ICANON | ECHO | ISIG);
	t.c_iflag = IXANY | BRKINT;
	t.c_cc[VMIN] = 3;
	t.c_cc[VTIME] = 7;
	t.c_cc[VINTR] = 'x';
	t.c_cflag = (t.c_cflag & ~CBAUD) | B9600;
	must(!ioctl(slave, TCSETS2, &t) && !ioctl(slave, TIOCSWINSZ, &w));
	put(master, "typed\nbut not \r read\3");
	put(slave, "written\nbut\tnot seen");
	settle(slave, 21);
	settle(master, 20);
	must(!fchmod(slave, 0604) && !fchown(slave, 12, 34));
	must(!ioctl(slave, TIOCEXCL) && !ioctl(master, TIOCSPTLCK, &one));
	add_pair(&before);
}

static void raw_check(void)
{
	compare_pair();
	expect_read("typed", slave, "typed\nbut not \r read\3");
	expect_read("written", master, "written\r\nbut\tnot seen");
	expect_nothing("slave", slave);
	expect_nothing("master", master);
	put(master, "more");
	settle(slave, 4);
	expect_read("typed later", slave, "more");
	put(slave, "x\n");
	settle(master, 3);
	expect_read("written later", master, "x\r\n");
}

VICTIM(tty_raw, 0, raw_setup, NULL, raw_check);

/* ---- lines: ended, being edited, ended by the end of the file; a newline taken literally ---- */

static void canon_setup(void)
{
	open_pair();
	change(slave, ECHO, 0, 0, 0);
	put(master, "first\nsecond \26\n one\n\4half\4;wrong\25rest");
	put(slave, "12345");
	settle(slave, 6 + 14);
	settle(master, 5);
	usleep(20000);
	add_pair(&before);
}

static void canon_check(void)
{
	compare_pair();
	expect_read("first line", slave, "first\n");
	expect_read("line with a literal newline", slave, "second \n one\n");
	expect_read("end of file", slave, "");
	expect_read("line without newline", slave, "half");
	expect_nothing("line being edited", slave);
	put(master, "\177!\n"); /* rubs out the last character */
	usleep(20000);
	expect_read("edited line", slave, "res!\n");
	change(slave, 0, 0, 0, 0);
	expect_read("output", master, "12345");
	put(slave, "\t|\n");
	settle(master, 4);
	expect_read("output later", master, "\t|\r\n");
}

VICTIM(tty_canon, 0, canon_setup, NULL, canon_check);

/* With tabs turned into spaces, which column the output is in shows. */
static void column_setup(void)
{
	struct termios2 t;

	open_pair();
	must(!ioctl(slave, TCGETS2, &t));
	t.c_oflag |= OPOST | XTABS;
	must(!ioctl(slave, TCSETS2, &t));
	put(slave, "12345");
	settle(master, 5);
	expect_read("before", master, "12345");
	put(master, "ab");
	settle(master, 2);
	add_pair(&before);
}

static void column_check(void)
{
	compare_pair();
	expect_read("echo", master, "ab");
	put(slave, "\t|");
	settle(master, 2);
	expect_read("tab", master, " |");
	put(master, "c\n");
	usleep(20000);
	expect_read("line", slave, "abc\n");
	expect_read("echo later", master, "c\r\n");
}

VICTIM(tty_column, 0, column_setup, NULL, column_check);

/* ---- packet mode with an event that has not been read ---- */

static void packet_setup(void)
{
	int one = 1;

	open_pair();
	must(!ioctl(master, TIOCPKT, &one));
	put(slave, "data");
	settle(master, 4);
	must(!ioctl(slave, TCXONC, TCOOFF) && !ioctl(slave, TCXONC, TCOON));
	change(slave, 0, 0, IXON, 0);
	add_pair(&before);
}

static void packet_check(void)
{
	char c[100];

	compare_pair();
	expect(read(master, c, sizeof(c)) == 1);
	expect_u64("event", TIOCPKT_START | TIOCPKT_NOSTOP, (uint64_t)(unsigned char)c[0]);
	expect(read(master, c, sizeof(c)) == 5);
	expect(!memcmp(c, "\0data", 5));
	expect_nothing("master", master);
	must(!ioctl(slave, TCFLSH, TCIFLUSH));
	expect(read(master, c, sizeof(c)) == 1 && c[0] == TIOCPKT_FLUSHREAD);
}

VICTIM(tty_packet, 0, packet_setup, NULL, packet_check);

/* ---- several descriptions and duplicates of one end, several terminals ---- */

static int others[8];

static void many_setup(void)
{
	open_pair();
	others[0] = open_slave(master, 0);
	others[1] = dup(others[0]);
	others[2] = open_master();
	others[3] = open_master();
	others[4] = open_slave(others[3], O_NONBLOCK);
	close(others[2]); /* a number that is free again */
	others[2] = dup(others[3]);
	for (int i = 0; i < 5; i++)
		must(others[i] >= 0);
	add_pair(&before);
	add_settings(&before, others[3]);
	add_settings(&before, others[4]);
}

static void many_check(void)
{
	struct text after = { 0 };

	add_pair(&after);
	add_settings(&after, others[3]);
	add_settings(&after, others[4]);
	expect_text("terminals", before.s, after.s);
	expect_text("name of the slave", ttyname(others[0]), ttyname(slave));
	fcntl(others[1], F_SETFL, O_NONBLOCK);
	expect(fcntl(others[0], F_GETFL) & O_NONBLOCK);
	put(master, "a\n");
	put(others[2], "b\n");
	settle(others[0], 2);
	settle(others[4], 2);
	expect_read("one terminal", others[1], "a\n");
	expect_read("another", others[4], "b\n");
	close(slave);
	close(others[0]);
	expect_read("still open", master, "a\r\n");
	close(others[1]);
	expect(read(master, &after, 1) < 0 && errno == EIO); /* nobody has the slave any more */
}

VICTIM(tty_many, 0, many_setup, NULL, many_check);

/* ---- nobody has the slave ---- */

static void unopened_setup(void)
{
	master = open_master();
	put(master, "typed early\n.");
	usleep(20000);
	others[0] = open_master();
	close(open_slave(others[0], 0));
	add_pair(&before);
}

static void unopened_check(void)
{
	char c;

	compare_pair();
	expect_read("echo", master, "typed early\r\n.");
	expect_nothing("master of a slave never opened", master);
	slave = open_slave(master, O_NONBLOCK);
	expect_read("typed before it was opened", slave, "typed early\n");
	expect(read(others[0], &c, 1) < 0 && errno == EIO);
	close(open_slave(others[0], 0));
}

VICTIM(tty_unopened, 0, unopened_setup, NULL, unopened_check);

static void hung_up_setup(void)
{
	open_pair();
	others[0] = open_slave(master, 0);
	close(master);
	master = open_master();
	others[1] = open_slave(master, 0);
	must(!ioctl(others[1], TIOCVHANGUP));
	others[2] = open_slave(master, O_NONBLOCK);
}

static void hung_up_check(void)
{
	char c;

	expect(read(slave, &c, 1) == 0 && write(slave, "x", 1) < 0 && errno == EIO);
	expect(read(others[0], &c, 1) == 0);
	expect(read(others[1], &c, 1) == 0 && write(others[1], "x", 1) < 0 && errno == EIO);
	put(master, "x\n");
	settle(others[2], 2);
	expect_read("opened after the others were hung up", others[2], "x\n");
}

VICTIM(tty_hung_up, 0, hung_up_setup, NULL, hung_up_check);

/* ---- stopped output ---- */

static void stopped_setup(void)
{
	open_pair();
	make_raw(slave);
	change(slave, 0, ICANON, 0, 0);
	others[0] = open_master();
	others[1] = open_slave(others[0], O_NONBLOCK);
	change(others[1], 0, 0, 0, 0);
	must(!ioctl(slave, TCXONC, TCOOFF));
	put(others[0], "\23"); /* Ctrl-S */
	usleep(20000);
	must(write(slave, "x", 1) < 0 && errno == EAGAIN && write(others[1], "x", 1) < 0 && errno == EAGAIN);
	add_pair(&before);
}

static void stopped_check(void)
{
	compare_pair();
	expect(write(slave, "x", 1) < 0 && errno == EAGAIN);
	expect(write(others[1], "x", 1) < 0 && errno == EAGAIN);
	put(others[0], "\21"); /* Ctrl-Q */
	usleep(20000);
	expect(write(others[1], "x", 1) == 1);
	put(master, "\21");
	usleep(20000);
	expect(write(slave, "x", 1) < 0 && errno == EAGAIN);
	expect(!ioctl(slave, TCXONC, TCOON) && write(slave, "x", 1) == 1);
}

VICTIM(tty_stopped, 0, stopped_setup, NULL, stopped_check);

/* ---- full both ways ---- */

static size_t typed, written;

static size_t write_full(int fd, uint64_t seed)
{
	unsigned char block[256];
	size_t n = 0, quiet = 0;

	while (quiet < 20) {
		ssize_t done;

		for (size_t i = 0; i < sizeof(block); i++)
			block[i] = (unsigned char)(mix(seed + n + i) | 0x40);
		done = write(fd, block, sizeof(block));
		if (done < 0) {
			must(errno == EAGAIN);
			usleep(2000);
			quiet++;
			continue;
		}
		quiet = 0;
		n += (size_t)done;
	}
	return n;
}

static void read_full(const char *what, int fd, size_t len, uint64_t seed)
{
	unsigned char block[1000];
	size_t n = 0, quiet = 0;

	while (n < len && quiet < 100) {
		ssize_t done = read(fd, block, sizeof(block));

		if (done < 0 && errno != EAGAIN) {
			fail("%s: errno %d", what, errno);
			return;
		}
		if (done <= 0) {
			usleep(2000);
			quiet++;
			continue;
		}
		quiet = 0;
		for (ssize_t i = 0; i < done; i++) {
			if (block[i] != (unsigned char)(mix(seed + n) | 0x40)) {
				fail("%s: byte %zu of %zu, expected %d, got %d", what, n, len, (unsigned char)(mix(seed + n) | 0x40), block[i]);
				return;
			}
			n++;
		}
	}
	expect_u64(what, len, n);
}

static void full_setup(void)
{
	open_pair();
	make_raw(slave);
	typed = write_full(master, 1);
	written = write_full(slave, 2);
	must(typed > 4096 && written > 4096);
	report("info typed=%zu written=%zu", typed, written);
}

static void full_check(void)
{
	read_full("bytes typed", slave, typed, 1);
	read_full("bytes written", master, written, 2);
	expect_nothing("slave", slave);
	expect_nothing("master", master);
}

VICTIM(tty_full, 0, full_setup, NULL, full_check);

/* ---- a stream: nothing lost, nothing twice, in order ---- */

static uint64_t sent, received;

static void stream_setup(void)
{
	open_pair();
	make_raw(slave);
	put(slave, "");
}

static void stream_work(void)
{
	unsigned char c[200];
	ssize_t n;

	for (size_t i = 0; i < sizeof(c); i++)
		c[i] = (unsigned char)mix(sent + i);
	n = write(slave, c, 1 + sent % sizeof(c));
	sent += n > 0 ? (uint64_t)n : 0;
	n = read(master, c, 1 + received * 7 % sizeof(c));
	for (ssize_t i = 0; i < n; i++, received++) {
		if (c[i] != (unsigned char)mix(received)) {
			fail("byte %llu of the stream, expected %d, got %d", (unsigned long long)received, (unsigned char)mix(received), c[i]);
			return;
		}
	}
	usleep(100);
}

static void stream_check(void)
{
	for (int i = 0; i < 1000 && received < sent && !failed(); i++) {
		unsigned char c[200];
		ssize_t n = read(master, c, sizeof(c));

		for (ssize_t k = 0; k < n; k++, received++)
			expect_u64("byte of the stream", (unsigned char)mix(received), c[k]);
		if (n <= 0)
			usleep(1000);
	}
	expect_u64("bytes", sent, received);
}

VICTIM(tty_stream, 0, stream_setup, stream_work, stream_check);

/* ---- terminals come and go ---- */

static void churn_work(void)
{
	int m = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), zero = 0, s;

	must(m >= 0 && !ioctl(m, TIOCSPTLCK, &zero));
	s = ioctl(m, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	must(s >= 0);
	usleep(300);
	must(!close(s) && !close(m));
	usleep(10000);
}

VICTIM(tty_churn, V_TIMED | V_OPENS, many_setup, churn_work, many_check);

/* ---- the controlling terminal ---- */

static volatile sig_atomic_t interrupts, resizes;

static void count_signal(int sig)
{
	if (sig == SIGINT)
		interrupts++;
	else
		resizes++;
}

static void control_setup(void)
{
	struct sigaction sa = { .sa_handler = count_signal };

	open_pair();
	must(getsid(0) == getpid());
	must(!ioctl(slave, TIOCSCTTY, 0));
	must(!sigaction(SIGINT, &sa, NULL) && !sigaction(SIGWINCH, &sa, NULL));
	signal(SIGHUP, SIG_IGN);
	others[0] = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	must(others[0] >= 0);
	close(slave);
	slave = -1;
	add_pair(&before);
	text_file(&before, "/proc/self/stat", (const char *[]){ "nothing", NULL });
}

static void expect_count(const char *what, volatile sig_atomic_t *count, int expected)
{
	for (int i = 0; i < 200 && *count != expected; i++)
		usleep(5000);
	expect_u64(what, (uint64_t)expected, (uint64_t)*count);
}

static void control_check(void)
{
	struct winsize w = { 50, 90, 0, 0 };
	int fd, group = -1, session = -1;

	compare_pair();
	expect_count("SIGWINCH before", &resizes, 0);
	expect(!ioctl(others[0], TIOCGPGRP, &group) && !ioctl(others[0], TIOCGSID, &session));
	expect_u64("foreground group", (uint64_t)getpgid(0), (uint64_t)group);
	expect_u64("session of the terminal", (uint64_t)getsid(0), (uint64_t)session);
	put(others[0], "out");
	settle(master, 3);
	expect_read("written to /dev/tty", master, "out");
	put(master, "\3");
	expect_count("SIGINT", &interrupts, 1);
	expect(!ioctl(master, TIOCSWINSZ, &w));
	expect_count("SIGWINCH", &resizes, 1);
	fd = open("/dev/tty", O_RDWR | O_CLOEXEC);
	expect(fd >= 0);
	expect(!ioctl(fd, TIOCNOTTY));
	expect(open("/dev/tty", O_RDWR | O_CLOEXEC) < 0 && errno == ENXIO);
}

VICTIM(tty_control, 0, control_setup, NULL, control_check);

/* ---- a session with a terminal: a leader like a shell, a job in the foreground, one in the background, one without the terminal ---- */

enum { LEADER, FOREGROUND, BACKGROUND, WITHOUT, JOBS };

static struct {
	volatile pid_t pid[JOBS];
	volatile int interrupts[JOBS], stops[JOBS], goes_on[JOBS];
	volatile int ready;
} *shared;

static int job;

static void count_for_job(int sig)
{
	if (sig == SIGINT)
		shared->interrupts[job]++;
	else if (sig == SIGCONT)
		shared->goes_on[job]++;
	else
		shared->stops[job]++;
}

static void catch(int sig)
{
	struct sigaction sa = { .sa_handler = count_for_job };

	must(!sigaction(sig, &sa, NULL));
}

static void be_job(int which)
{
	job = which;
	signal(SIGTERM, SIG_DFL);
	signal(SIGHUP, SIG_DFL);
	catch(SIGINT);
	catch(SIGTSTP);
	catch(SIGTTIN);
	__atomic_fetch_add(&shared->ready, 1, __ATOMIC_SEQ_CST);
	for (;;) {
		char line[100];

		/* A job in the background that reads the terminal is sent SIGTTIN. */
		if (which == BACKGROUND && shared->goes_on[LEADER] && read(slave, line, sizeof(line)) < 0 && errno != EINTR)
			_exit(1);
		usleep(10000);
	}
}

static pid_t start_job(int which)
{
	pid_t pid = fork();

	must(pid >= 0);
	if (!pid) {
		setpgid(0, 0);
		if (which == WITHOUT)
			must(!ioctl(slave, TIOCNOTTY));
		be_job(which);
	}
	setpgid(pid, pid);
	shared->pid[which] = pid;
	return pid;
}

static void be_leader(void)
{
	pid_t group;

	must(setsid() > 0);
	slave = open_slave(master, 0);
	must(!ioctl(slave, TIOCSCTTY, 0));
	close(master);
	shared->pid[LEADER] = getpid();
	signal(SIGTTOU, SIG_IGN);
	start_job(BACKGROUND);
	start_job(WITHOUT);
	group = start_job(FOREGROUND);
	must(!ioctl(slave, TIOCSPGRP, &group));
	be_job(LEADER);
}

static void add_process(struct text *t, pid_t pid)
{
	char path[64], line[1024], *p;
	int ppid, pgid, sid, tty, tpgid;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "re");
	must(f && fgets(line, sizeof(line), f));
	fclose(f);
	p = strrchr(line, ')');
	must(sscanf(p + 3, "%*c %d %d %d %d %d", &ppid, &pgid, &sid, &tty, &tpgid) == 5 || sscanf(p + 2, "%*c %d %d %d %d %d", &ppid, &pgid, &sid, &tty, &tpgid) == 5);
	text_add(t, "process %d: parent %d group %d session %d terminal %#x foreground %d\n", pid, ppid, pgid, sid, tty, tpgid);
}

static void add_session(struct text *t)
{
	for (int i = 0; i < JOBS; i++)
		add_process(t, shared->pid[i]);
}

static void session_setup(void)
{
	pid_t leader;

	shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must(shared != MAP_FAILED);
	master = open_master();
	leader = fork();
	must(leader >= 0);
	if (!leader)
		be_leader();
	while (shared->ready < JOBS)
		usleep(1000);
	add_session(&before);
}

static void expect_value(const char *what, volatile int *value, int expected)
{
	for (int i = 0; i < 300 && *value != expected; i++)
		usleep(5000);
	expect_u64(what, (uint64_t)expected, (uint64_t)*value);
}

static void session_check(void)
{
	struct text after = { 0 };
	char text[64];
	int group = 0;

	add_session(&after);
	expect_text("the session", before.s, after.s);
	expect(!ioctl(master, TIOCGPGRP, &group));
	expect_u64("foreground group", (uint64_t)shared->pid[FOREGROUND], (uint64_t)group);
	put(master, "\3");
	expect_value("SIGINT of the foreground job", &shared->interrupts[FOREGROUND], 1);
	put(master, "\32");
	expect_value("SIGTSTP of the foreground job", &shared->stops[FOREGROUND], 1);
	shared->goes_on[LEADER] = 1;
	for (int i = 0; i < 300 && !shared->stops[BACKGROUND]; i++)
		usleep(5000);
	expect(shared->stops[BACKGROUND] > 0);
	for (int i = 0; i < JOBS; i++)
		if (i != FOREGROUND && (shared->interrupts[i] || (i != BACKGROUND && shared->stops[i])))
			fail("job %d: %d SIGINT, %d stops", i, shared->interrupts[i], shared->stops[i]);
	expect(read(master, text, sizeof(text)) > 0 && !strncmp(text, "^C^Z", 4));
	for (int i = JOBS; i-- > 0;)
		kill(shared->pid[i], SIGKILL);
}

VICTIM(tty_session, 0, session_setup, NULL, session_check);
