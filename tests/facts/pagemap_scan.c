// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * pagemap_scan.c - what PAGEMAP_SCAN reports for each kind of page, registered for asynchronous write protection or not,
 * and which mappings accept that registration
 */
#include "fact.h"

#define LEN (16 * PAGE)

static int pm, fd;

static int64_t cat(char *p)
{
	return page_categories(pm, p);
}

static int scan(char *p, size_t len, uint64_t flags, uint64_t mask, uint64_t ret)
{
	struct page_region v[64];
	struct pm_scan_arg a = { .size = sizeof(a), .flags = flags, .start = (uintptr_t)p, .end = (uintptr_t)p + len, .vec = (uintptr_t)v,
				 .vec_len = 64, .category_mask = mask, .return_mask = ret };
	int n = ioctl(pm, PAGEMAP_SCAN, &a);
	uint64_t pages = 0;

	if (n < 0)
		return -errno;
	for (int i = 0; i < n; i++)
		pages += (v[i].end - v[i].start) / PAGE;
	return (int)pages;
}

static void unregistered(void)
{
	char *p = map_anon(LEN);
	volatile char c = p[PAGE];
	(void)c;
	p[2 * PAGE] = 1;
	SAW("unregistered anonymous: never touched: %s", categories_text(cat(p)));
	SAW("  only read: %s", categories_text(cat(p + PAGE)));
	SAW("  written: %s", categories_text(cat(p + 2 * PAGE)));
	/* Some hypervisors have kernels without that page (pvm_no_zero_page): then it is one as others, whose zeros the source finds by looking. */
	FACT(cat(p + PAGE) & (PAGE_IS_PFNZERO | PAGE_IS_PRESENT), "a page that was only read is %s", cat(p + PAGE) & PAGE_IS_PFNZERO ? "PFNZERO" : "a page of its own");
	FACT((cat(p + 2 * PAGE) & PAGE_IS_WRITTEN), "a present page of a never registered mapping is WRITTEN");
	madvise(p + 2 * PAGE, PAGE, MADV_DONTNEED);
	SAW("  DONTNEEDed: %s", categories_text(cat(p + 2 * PAGE)));
	p[3 * PAGE] = 1;
	int r = scan(p, LEN, PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC, PAGE_IS_WRITTEN, PAGE_IS_WRITTEN);
	FACT(r == -EPERM, "WP_MATCHING|CHECK_WPASYNC over an unregistered mapping: %s", r < 0 ? strerror(-r) : "ok");
	r = scan(p, LEN, PM_SCAN_WP_MATCHING, PAGE_IS_WRITTEN, PAGE_IS_WRITTEN);
	FACT(r == 0, "WP_MATCHING without CHECK_WPASYNC: unregistered mappings are skipped (%d pages)", r);
	r = scan(p, LEN, 0, PAGE_IS_WRITTEN, PAGE_IS_WRITTEN);
	SAW("plain scan for WRITTEN there: %d pages", r);
}

static void registered(void)
{
	char *p = map_anon(LEN);

	p[2 * PAGE] = 1;
	p[3 * PAGE] = 1;
	p[4 * PAGE] = 1;
	volatile char c = p[PAGE];
	(void)c;
	MUST(uffd_register(fd, p, LEN, UFFDIO_REGISTER_MODE_WP) == 0);
	SAW("just registered, not yet protected: written before: %s; read: %s; untouched: %s", categories_text(cat(p + 2 * PAGE)),
	    categories_text(cat(p + PAGE)), categories_text(cat(p)));
	MUST(uffd_protect(fd, p, LEN, true) == 0);
	SAW("protected: written before: %s; read before: %s; untouched: %s", categories_text(cat(p + 2 * PAGE)), categories_text(cat(p + PAGE)),
	    categories_text(cat(p)));
	FACT(!(cat(p + 2 * PAGE) & PAGE_IS_WRITTEN) && !(cat(p) & PAGE_IS_WRITTEN), "after UFFDIO_WRITEPROTECT nothing is WRITTEN, also not the untouched");
	p[2 * PAGE] = 2;
	p[5 * PAGE] = 2;
	c = p[6 * PAGE];
	p[PAGE] = 1;
	SAW("then: written again: %s; first write: %s; first read: %s; read before, now written: %s", categories_text(cat(p + 2 * PAGE)),
	    categories_text(cat(p + 5 * PAGE)), categories_text(cat(p + 6 * PAGE)), categories_text(cat(p + PAGE)));
	FACT(cat(p + 2 * PAGE) & cat(p + 5 * PAGE) & cat(p + PAGE) & PAGE_IS_WRITTEN, "written pages are WRITTEN");
	FACT(!(cat(p + 6 * PAGE) & PAGE_IS_WRITTEN), "a first read makes no WRITTEN page");
	madvise(p + 3 * PAGE, PAGE, MADV_DONTNEED);
	SAW("a protected page DONTNEEDed: %s", categories_text(cat(p + 3 * PAGE)));
	madvise(p + 2 * PAGE, PAGE, MADV_DONTNEED);
	SAW("a written page DONTNEEDed: %s", categories_text(cat(p + 2 * PAGE)));
	FACT((cat(p + 3 * PAGE) & (PAGE_IS_WRITTEN | PAGE_IS_PRESENT)) == PAGE_IS_WRITTEN,
	     "DONTNEED of a protected page shows as WRITTEN and not PRESENT (a dropped page is not missed)");
	int r = scan(p, LEN, PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC, PAGE_IS_WRITTEN, PAGE_IS_WRITTEN);
	SAW("read and re-arm: %d pages; after it: %d", r, scan(p, LEN, 0, PAGE_IS_WRITTEN, PAGE_IS_WRITTEN));
	FACT(scan(p, LEN, 0, PAGE_IS_WRITTEN, PAGE_IS_WRITTEN) == 0, "one call reads and re-arms");
	char *q = mremap(p, LEN, 2 * LEN, MREMAP_MAYMOVE);
	MUST(q != MAP_FAILED);
	SAW("after mremap (%s): old page %s; new part %s", q == p ? "in place" : "moved", categories_text(cat(q + 5 * PAGE)),
	    categories_text(cat(q + LEN)));
	q[LEN] = 1;
	SAW("  its new part, written: %s", categories_text(cat(q + LEN)));
	char *d = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	d[0] = 1;
	SAW("a mapping made beside it later, written: %s", categories_text(cat(d)));
}

static int scan_strangers(char *p, size_t len, uint64_t inverted)
{
	struct page_region v[64];
	struct pm_scan_arg a = { .size = sizeof(a), .start = (uintptr_t)p, .end = (uintptr_t)p + len, .vec = (uintptr_t)v, .vec_len = 64, .category_mask = inverted,
				 .category_inverted = inverted, .return_mask = PAGE_IS_PRESENT };
	int n = ioctl(pm, PAGEMAP_SCAN, &a);
	uint64_t pages = 0;

	for (int i = 0; i < n; i++)
		pages += (v[i].end - v[i].start) / PAGE;
	return n < 0 ? -errno : (int)pages;
}

/* Memory that is alone in its page tables: they go with it when it is mapped anew. */
static void without_tables(void)
{
	const size_t len = 4 << 20, pages = len / PAGE;
	char *p = (char *)(((uintptr_t)map_anon(3 * len) + len) & ~(len - 1));

	MUST(mmap(p, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p);
	memset(p, 1, len);
	MUST(uffd_register(fd, p, len, UFFDIO_REGISTER_MODE_WP) == 0);
	MUST(uffd_protect(fd, p, len, true) == 0);
	madvise(p, len, MADV_DONTNEED);
	FACT(scan(p, len, 0, PAGE_IS_WRITTEN, PAGE_IS_WRITTEN) == (int)pages, "registered memory that was dropped whole counts as written");
	FACT(scan_strangers(p, len, PAGE_IS_WPALLOWED | PAGE_IS_WRITTEN) == 0, "the query for what is not registered finds nothing of it");
	MUST(mmap(p, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p);
	FACT(scan(p, len, 0, PAGE_IS_WRITTEN, PAGE_IS_WRITTEN) == 0, "a mapping made anew in its place, without page tables, is not reported as written");
	FACT(scan_strangers(p, len, PAGE_IS_WPALLOWED | PAGE_IS_WRITTEN) == (int)pages, "the query for what is not registered finds it");
	p[0] = 1;
	FACT(scan_strangers(p, len, PAGE_IS_WPALLOWED | PAGE_IS_WRITTEN) + scan(p, len, 0, PAGE_IS_WRITTEN, PAGE_IS_WRITTEN) == (int)pages,
	     "with a page table, too, each page is found by one of the two queries");
}

static void private_files(void)
{
	int f = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), r;
	char *p;

	p = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, f, 0);
	volatile char c = p[0];
	c = p[PAGE];
	(void)c;
	p[PAGE] = 1;
	p[2 * PAGE] = 1;
	SAW("private file mapping, unregistered: read %s; read, then written %s; written %s", categories_text(cat(p)),
	    categories_text(cat(p + PAGE)), categories_text(cat(p + 2 * PAGE)));
	FACT((cat(p) & PAGE_IS_FILE) && !(cat(p + PAGE) & PAGE_IS_FILE) && !(cat(p + 2 * PAGE) & PAGE_IS_FILE) && (cat(p + PAGE) & PAGE_IS_PRESENT),
	     "modified pages of a private file mapping are PRESENT and not FILE");
	SAW("  its never touched page: %s", categories_text(cat(p + 3 * PAGE)));
	r = uffd_register(fd, p, 4 * PAGE, UFFDIO_REGISTER_MODE_WP);
	FACT(r == 0, "WP_ASYNC registration of a private file mapping: %s", r ? strerror(-r) : "ok");
	if (r == 0) {
		r = uffd_protect(fd, p, 4 * PAGE, true);
		SAW("  protect: %s; then: unmodified %s; modified %s; untouched %s", r ? strerror(-r) : "ok", categories_text(cat(p)),
		    categories_text(cat(p + PAGE)), categories_text(cat(p + 3 * PAGE)));
		p[0] = 2;
		p[PAGE] = 2;
		p[3 * PAGE] = 2;
		SAW("  written: %s, %s, %s", categories_text(cat(p)), categories_text(cat(p + PAGE)), categories_text(cat(p + 3 * PAGE)));
		FACT((cat(p) & cat(p + PAGE) & cat(p + 3 * PAGE) & PAGE_IS_WRITTEN), "  and tracked");
	}
	p = mmap(NULL, LEN, PROT_READ, MAP_PRIVATE, f, 0);
	c = p[0];
	r = uffd_register(fd, p, LEN, UFFDIO_REGISTER_MODE_WP);
	SAW("read-only private file mapping: register %s, page %s", r ? strerror(-r) : "ok", categories_text(cat(p)));
	p = mmap(NULL, LEN, PROT_READ, MAP_SHARED, f, 0);
	r = uffd_register(fd, p, LEN, UFFDIO_REGISTER_MODE_WP);
	SAW("read-only SHARED mapping of a file that is not open for writing: register %s", r ? strerror(-r) : "ok");
}

static void shared_and_read_only(void)
{
	int m = memfd_create("m", MFD_CLOEXEC), r;
	char *p;

	MUST(ftruncate(m, LEN) == 0);
	char name[] = "/tmp/fact-XXXXXX";
	int t = mkstemp(name);
	MUST(t >= 0 && ftruncate(t, LEN) == 0);
	unlink(name);
	p = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED, t, 0);
	p[0] = 1;
	r = uffd_register(fd, p, LEN, UFFDIO_REGISTER_MODE_WP);
	SAW("shared mapping of a disk file: register %s; written page %s", r ? strerror(-r) : "ok", categories_text(cat(p)));
	if (r == 0) {
		r = uffd_protect(fd, p, LEN, true);
		SAW("  protect %s: %s", r ? strerror(-r) : "ok", categories_text(cat(p)));
		p[0] = 1;
		p[PAGE] = 1;
		SAW("  written again: %s, %s", categories_text(cat(p)), categories_text(cat(p + PAGE)));
	}
	p = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED, m, 0);
	p[0] = 1;
	r = uffd_register(fd, p, LEN, UFFDIO_REGISTER_MODE_WP);
	FACT(r == 0, "shared memfd/anonymous (shmem): register %s", r ? strerror(-r) : "ok");
	r = uffd_protect(fd, p, LEN, true);
	SAW("  protect %s: %s, untouched %s", r ? strerror(-r) : "ok", categories_text(cat(p)), categories_text(cat(p + PAGE)));
	p[0] = 1;
	p[PAGE] = 1;
	SAW("  written: %s, %s", categories_text(cat(p)), categories_text(cat(p + PAGE)));
	FACT(cat(p) & cat(p + PAGE) & PAGE_IS_WRITTEN, "  and tracked");
	p = map_anon(LEN);
	memset(p, 1, LEN);
	mprotect(p, LEN, PROT_READ);
	r = uffd_register(fd, p, LEN, UFFDIO_REGISTER_MODE_WP);
	FACT(r == 0, "read-only anonymous mapping: register %s", r ? strerror(-r) : "ok");
	SAW("  protect: %s", uffd_protect(fd, p, LEN, true) ? "error" : "ok");
	mprotect(p, LEN, PROT_READ | PROT_WRITE);
	SAW("  made writable: %s", categories_text(cat(p)));
	p[0] = 1;
	FACT((cat(p) & PAGE_IS_WRITTEN) && !(cat(p + PAGE) & PAGE_IS_WRITTEN), "  a write after mprotect is tracked: %s, %s", categories_text(cat(p)),
	     categories_text(cat(p + PAGE)));
	p = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE, m, 0);
	volatile char c = p[0];
	(void)c;
	p[PAGE] = 1;
	SAW("private memfd mapping, unregistered: read %s, written %s", categories_text(cat(p)), categories_text(cat(p + PAGE)));
	SAW("  register: %s", uffd_register(fd, p, LEN, UFFDIO_REGISTER_MODE_WP) ? "error" : "ok");
	/* the vdso and vvar */
	uintptr_t end, start = vdso_range(getpid(), &end);
	r = uffd_register(fd, (void *)start, end - start, UFFDIO_REGISTER_MODE_WP);
	SAW("vdso: register %s; page %s", r ? strerror(-r) : "ok", categories_text(cat((char *)start)));
}

/* What is moved back to its old place is joined with the mappings around, which are not registered any more then, but keep their marks. */
static void moved_back(void)
{
	char *p = map_anon(LEN), *away = map_anon(4 * PAGE);

	memset(p, 1, LEN);
	MUST(uffd_register(fd, p, LEN, UFFDIO_REGISTER_MODE_WP) == 0);
	MUST(mremap(p + 3 * PAGE, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, away + PAGE) == away + PAGE);
	MUST(uffd_register(fd, away + PAGE, PAGE, UFFDIO_REGISTER_MODE_WP) == 0);
	MUST(uffd_protect(fd, p, 3 * PAGE, true) == 0 && uffd_protect(fd, p + 4 * PAGE, LEN - 4 * PAGE, true) == 0 && uffd_protect(fd, away + PAGE, PAGE, true) == 0);
	FACT(!(cat(p + 2 * PAGE) & PAGE_IS_WRITTEN) && (cat(p + 2 * PAGE) & PAGE_IS_WPALLOWED), "a neighbour of what was moved away: %s", categories_text(cat(p + 2 * PAGE)));
	MUST(mremap(away + PAGE, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, p + 3 * PAGE) == p + 3 * PAGE);
	p[2 * PAGE] = 2;
	SAW("moved back: it %s, its neighbour, written since, %s", categories_text(cat(p + 3 * PAGE)), categories_text(cat(p + 2 * PAGE)));
	if (cat(p + 2 * PAGE) & PAGE_IS_WPALLOWED)
		return; /* another kernel: all is well */
	FACT(!(cat(p + 2 * PAGE) & PAGE_IS_WRITTEN), "  the write does not show");
	MUST(uffd_register(fd, p, LEN, UFFDIO_REGISTER_MODE_WP) == 0);
	FACT(!(cat(p + 2 * PAGE) & PAGE_IS_WRITTEN), "  nor when it is registered again: %s", categories_text(cat(p + 2 * PAGE)));
	FACT(uffd_protect(fd, p, LEN, false) == 0 && (cat(p + 2 * PAGE) & PAGE_IS_WRITTEN), "  it does when the marks have been taken off: %s", categories_text(cat(p + 2 * PAGE)));
}

int main(void)
{
	pm = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	MUST(pm >= 0);
	fd = uffd_open(UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED);
	unregistered();
	registered();
	without_tables();
	moved_back();
	private_files();
	shared_and_read_only();
	return fact_result();
}
