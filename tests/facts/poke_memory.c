// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * poke_memory.c - writing another process's pages: RELRO pages are modified private file pages under r--, /proc/PID/mem writes
 * them whatever the protection, process_vm_writev does not; on userfaultfd-missing pages /proc/PID/mem fails at once (EIO), whereas
 * process_vm_readv waits for the filler
 */
#include "fact.h"

static int mem, pm;
static pid_t pid;

static ssize_t poke(char *at, const char *text)
{
	ssize_t n = pwrite(mem, text, 8, (off_t)(uintptr_t)at);

	return n < 0 ? -errno : n;
}

static ssize_t vm_write(char *at, const char *text)
{
	struct iovec local = { (char *)text, 8 }, remote = { at, 8 };
	ssize_t n = process_vm_writev(pid, &local, 1, &remote, 1, 0);

	return n < 0 ? -errno : n;
}

static void relro(void)
{
	char line[512], perms[5];
	unsigned long start, end, modified = 0;
	FILE *f = fopen("/proc/self/maps", "re");
	int own = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	MUST(f && own >= 0);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "%lx-%lx %4s", &start, &end, perms) == 3 && !strcmp(perms, "r--p") && strchr(line, '/'))
			for (; start < end; start += PAGE) {
				int64_t c = page_categories(own, (void *)start);
				modified += (c & PAGE_IS_PRESENT) && !(c & PAGE_IS_FILE);
			}
	fclose(f);
	close(own);
	FACT(modified > 0, "%lu modified pages (PRESENT, not FILE) in read-only private file mappings of this process: they must be sent", modified);
}

static void protections(char *file_ro, char *anon_ro, char *anon_none, char *shared_ro, char *file_rx)
{
	ssize_t n;

	FACT((n = vm_write(file_ro, "poked..")) < 0, "process_vm_writev into r--p: %s", strerror((int)-n));
	n = poke(file_ro, "poked..");
	FACT(n == 8, "/proc/PID/mem into a private file mapping r--p: %s", n < 0 ? strerror((int)-n) : "ok");
	int64_t c = page_categories(pm, file_ro);
	FACT((c & PAGE_IS_PRESENT) && !(c & PAGE_IS_FILE), "  it is a private copy now: %s", categories_text(c));
	FACT(poke(file_rx, "poked..") == 8, "  into r-xp of a file: ok");
	FACT(poke(anon_ro, "poked..") == 8, "  into anonymous r--, never touched: ok");
	n = poke(anon_none, "poked..");
	SAW("  into anonymous --- (PROT_NONE): %s", n < 0 ? strerror((int)-n) : "ok");
	n = poke(shared_ro, "poked..");
	FACT(n < 0, "  into a shared r-- mapping: %s", n < 0 ? strerror((int)-n) : "ok");
}

static void cost(char *file_ro, size_t pages)
{
	static char page[PAGE];
	uint64_t t = now_ns();

	for (size_t i = 1; i < pages; i++)
		MUST(pwrite(mem, page, PAGE, (off_t)(uintptr_t)(file_ro + i * PAGE)) == (ssize_t)PAGE);
	SAW("writing one page through /proc/PID/mem: %.2f us each (%zu pages, first write)", (double)(now_ns() - t) / 1000 / (double)(pages - 1), pages - 1);
}

/* A helper touches a missing page from outside; it must wait until the page is filled. */
static void missing(int fd, char *p)
{
	static const char *const names[] = { "pread of /proc/PID/mem", "pwrite of /proc/PID/mem", "process_vm_readv" };
	char page[PAGE];
	int64_t done;

	memset(page, 'p', PAGE);
	for (int how = 0; how < 3; how++, p += PAGE) {
		pid_t helper = fork();
		if (helper == 0) {
			char b[8] = "12345678";
			struct iovec local = { b, 8 }, remote = { p, 8 };
			ssize_t n = how == 0   ? pread(mem, b, 8, (off_t)(uintptr_t)p)
				    : how == 1 ? pwrite(mem, b, 8, (off_t)(uintptr_t)p)
					       : process_vm_readv(pid, &local, 1, &remote, 1, 0);
			_exit(n == 8 ? 0 : errno);
		}
		int status = -1;
		usleep(30000);
		pid_t w = waitpid(helper, &status, WNOHANG);
		if (w == helper) {
			FACT(how < 2 && WEXITSTATUS(status) == EIO, "%s of a missing page fails at once: %s", names[how],
			     strerror(WEXITSTATUS(status)));
			continue;
		}
		struct uffd_msg m;
		bool event = read(fd, &m, sizeof(m)) == sizeof(m) && m.event == UFFD_EVENT_PAGEFAULT;
		FACT(how == 2 && event && uffd_copy(fd, p, page, PAGE, &done) == 0 && waitpid(helper, &status, 0) == helper && status == 0,
		     "%s of a missing page raises a fault event and waits until it is filled", names[how]);
	}
}

int main(void)
{
	int f = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), fd = uffd_open(0);
	size_t pages = 4;
	char *file_ro = mmap(NULL, pages * PAGE, PROT_READ, MAP_PRIVATE, f, 0);
	char *file_rx = mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, f, 0);
	char *anon_ro = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *anon_none = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *shared_ro = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, f, 0);
	int *ready = map_shared(PAGE);
	char path[64];

	relro();
	/* The target makes its own userfaultfd; the parent's descriptor of the same number is replaced through pidfd_getfd. */
	close(fd);
	char *registered = map_anon(8 * PAGE);
	pid = fork();
	if (pid == 0) {
		int own = uffd_open(0);
		MUST(uffd_register(own, registered, 8 * PAGE, UFFDIO_REGISTER_MODE_MISSING) == 0);
		*ready = own;
		for (;;)
			pause();
	}
	while (!*ready)
		usleep(100);
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	fd = (int)syscall(SYS_pidfd_getfd, pidfd, *ready, 0);
	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	mem = open(path, O_RDWR | O_CLOEXEC);
	snprintf(path, sizeof(path), "/proc/%d/pagemap", pid);
	pm = open(path, O_RDONLY | O_CLOEXEC);
	MUST(fd >= 0 && mem >= 0 && pm >= 0);
	protections(file_ro, anon_ro, anon_none, shared_ro, file_rx);
	cost(file_ro, pages);
	missing(fd, registered);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	return fact_result();
}
