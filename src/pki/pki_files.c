/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* pki_files.c - the directory of certificates: its lock, its files, what is read at first and written at last; see pki.h */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/util.h"
#include "pki/pki_internal.h"

#define FILE_BYTES_MAX (4u << 20)

int pki_gnutls(struct err *e, int code, const char *format, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap); // NOLINT(clang-analyzer-valist.Uninitialized): version 14 is wrong
	va_end(ap);
	return err_set(e, code == GNUTLS_E_MEMORY_ERROR ? -ENOMEM : -EINVAL, "%s: %s", text, gnutls_strerror(code));
}

void pki_close(struct pki *p)
{
	for (size_t i = 0; i < p->n_cas; i++) {
		gnutls_x509_crt_deinit(p->cas[i].cert);
		gnutls_x509_privkey_deinit(p->cas[i].key);
	}
	close_fdp(&p->fd);
	close_fdp(&p->lock);
	*p = PKI_INIT;
}

bool pki_name_valid(const char *node)
{
	size_t len = strspn(node, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");

	return len && len <= PKI_NAME_MAX && !node[len] && node[0] != '.';
}

/* Read by nobody else on its way. A name with a slash is in a directory that is there. */
int pki_write(int at, const char *name, const void *data, size_t len, unsigned mode, struct err *e)
{
	cleanup_close int fd = -1;
	char new[PKI_FILE_MAX + 8];
	size_t done = 0;
	int ret = 0;

	snprintf(new, sizeof(new), "%s.new", name);
	(void)unlinkat(at, new, 0);
	fd = openat(at, new, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_sys(e, -errno, "%s", name);
	while (done < len && ret == 0) {
		ssize_t n = write(fd, (const char *)data + done, len - done);

		if (n < 0 && errno != EINTR)
			ret = -errno;
		done += n > 0 ? (size_t)n : 0;
	}
	if (ret == 0 && (fchmod(fd, mode) < 0 || fsync(fd) < 0 || renameat(at, new, at, name) < 0))
		ret = -errno;
	if (ret < 0) {
		(void)unlinkat(at, new, 0);
		return err_sys(e, ret, "%s", name);
	}
	return 0;
}

int pki_load(int at, const char *name, gnutls_datum_t *ret, struct err *e)
{
	cleanup_close int fd = openat(at, name, O_RDONLY | O_CLOEXEC);
	struct stat st;
	size_t done = 0;
	unsigned char *data;

	if (fd < 0 || fstat(fd, &st) < 0)
		return err_sys(e, -errno, "%s", name);
	if (!S_ISREG(st.st_mode) || st.st_size > FILE_BYTES_MAX)
		return err_set(e, -EINVAL, "%s: no ordinary file, or too large", name);
	data = gnutls_malloc((size_t)st.st_size + 1);
	if (!data)
		return err_sys(e, -ENOMEM, "%s", name);
	while (done < (size_t)st.st_size) {
		ssize_t n = read(fd, data + done, (size_t)st.st_size - done);

		if (n <= 0)
			break;
		done += (size_t)n;
	}
	data[done] = 0;
	*ret = (gnutls_datum_t){ data, (unsigned)done };
	return 0;
}

int pki_write_pem(int at, const char *name, gnutls_datum_t *pem, unsigned mode, struct err *e)
{
	int ret = pki_write(at, name, pem->data, pem->size, mode, e);

	explicit_bzero(pem->data, pem->size);
	gnutls_free(pem->data);
	*pem = (gnutls_datum_t){ 0 };
	return ret;
}

int pki_each(const struct pki *p, const char *directory, int (*f)(const struct pki *p, const char *name, void *context, struct err *e), void *context, struct err *e)
{
	int fd = openat(p->fd, directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC), ret = 0;
	cleanup_closedir DIR *d = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *entry;

	if (fd < 0 && errno == ENOENT)
		return 0;
	if (!d) {
		ret = -errno;
		close_fdp(&fd);
		return err_sys(e, ret, "%s", directory);
	}
	while (ret == 0 && (entry = readdir(d)))
		ret = entry->d_name[0] == '.' ? 0 : f(p, entry->d_name, context, e);
	return ret;
}

/* The number in "ca-N.pem"; 0 for other names. */
static unsigned generation_of(const char *name)
{
	unsigned n = 0;
	int len = 0;

	return sscanf(name, "ca-%4u.pem%n", &n, &len) == 1 && len && !name[len] ? n : 0;
}

struct newest {
	unsigned under, found;
};

static int look_for_newest(const struct pki *p, const char *name, void *context, struct err *e)
{
	struct newest *x = context;
	unsigned n = generation_of(name);

	if (n > x->found && n < x->under)
		x->found = n;
	return 0;
}

unsigned pki_newest(const struct pki *p, unsigned under)
{
	struct newest x = { .under = under };

	return pki_each(p, ".", look_for_newest, &x, NULL) < 0 ? 0 : x.found;
}

static int load_ca(struct pki *p, unsigned generation, struct err *e)
{
	struct pki_ca *ca = &p->cas[p->n_cas];
	gnutls_datum_t cert = { 0 }, key = { 0 };
	char file[PKI_FILE_MAX];
	int ret;

	*ca = (struct pki_ca){ .generation = generation };
	if (gnutls_x509_crt_init(&ca->cert) < 0 || gnutls_x509_privkey_init(&ca->key) < 0) {
		gnutls_x509_crt_deinit(ca->cert);
		return err_sys(e, -ENOMEM, "certificates");
	}
	p->n_cas++;
	snprintf(file, sizeof(file), "ca-%u.pem", generation);
	ret = pki_load(p->fd, file, &cert, e);
	if (ret == 0 && (ret = gnutls_x509_crt_import(ca->cert, &cert, GNUTLS_X509_FMT_PEM)) < 0)
		ret = pki_gnutls(e, ret, "%s", file);
	gnutls_free(cert.data);
	snprintf(file, sizeof(file), "ca-%u.key", generation);
	if (ret == 0)
		ret = pki_load(p->fd, file, &key, e);
	if (ret == 0 && (ret = gnutls_x509_privkey_import(ca->key, &key, GNUTLS_X509_FMT_PEM)) < 0)
		ret = pki_gnutls(e, ret, "%s", file);
	if (key.data)
		explicit_bzero(key.data, key.size);
	gnutls_free(key.data);
	return ret;
}

static int take_lock(struct pki *p, const char *path, struct err *e)
{
	p->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (p->fd < 0)
		return err_sys(e, -errno, "%s", path);
	p->lock = openat(p->fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (p->lock < 0)
		return err_sys(e, -errno, "%s/lock", path);
	if (flock(p->lock, LOCK_EX | LOCK_NB) < 0)
		return err_set(e, -EBUSY, "%s: another `godwit pki` changes it just now; try again", path);
	return 0;
}

int pki_create(const char *path, struct pki *ret, struct err *e)
{
	if (!strcmp(path, PKI_DEFAULT_DIRECTORY))
		(void)mkdir("/etc/godwit", 0755);
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return err_sys(e, -errno, "%s", path);
	return take_lock(ret, path, e);
}

int pki_open(const char *path, struct pki *ret, struct err *e)
{
	unsigned generation;

	if (take_lock(ret, path, e) < 0)
		return e->code == -ENOENT ? err_set(e, -ENOENT, "%s is no directory of certificates: `godwit pki init %s` makes one", path, path) : e->code;
	generation = pki_newest(ret, PKI_GENERATIONS_MAX);
	if (!generation)
		return err_set(e, -ENOENT, "%s has no CA: `godwit pki init %s` makes one", path, path);
	if (load_ca(ret, generation, e) < 0)
		return err_wrap(e, "%s", path);
	generation = pki_newest(ret, generation);
	if (generation && load_ca(ret, generation, e) < 0)
		return err_wrap(e, "%s", path);
	return 0;
}

bool pki_file_parse(const char *file, unsigned *ret_generation, char ret_node[PKI_NAME_MAX + 1])
{
	char node[PKI_NAME_MAX + 5];
	unsigned generation;
	int len = 0;
	size_t n;

	if (sscanf(file, "%4u-%*32[0-9a-f]-%68s%n", &generation, node, &len) != 2 || file[len])
		return false;
	n = strlen(node);
	if (n < 5 || strcmp(node + n - 4, ".pem") != 0)
		return false;
	node[n - 4] = 0;
	*ret_generation = generation;
	snprintf(ret_node, PKI_NAME_MAX + 1, "%.64s", node);
	return true;
}

struct published {
	gnutls_datum_t ca, crl; /* PEM */
};

static int append(gnutls_datum_t *to, gnutls_datum_t *more, struct err *e)
{
	unsigned char *grown = gnutls_realloc(to->data, to->size + more->size + 1);

	if (grown) {
		memcpy(grown + to->size, more->data, more->size);
		*to = (gnutls_datum_t){ grown, to->size + more->size };
	}
	gnutls_free(more->data);
	*more = (gnutls_datum_t){ 0 };
	return grown ? 0 : err_sys(e, -ENOMEM, "certificates");
}

static int publish_for(const struct pki *p, const char *node, void *context, struct err *e)
{
	const struct published *all = context;
	char file[PKI_FILE_MAX];

	if (!pki_name_valid(node))
		return 0;
	snprintf(file, sizeof(file), "nodes/%s/ca.pem", node);
	if (pki_write(p->fd, file, all->ca.data, all->ca.size, 0644, e) < 0)
		return e->code;
	snprintf(file, sizeof(file), "nodes/%s/crl.pem", node);
	return pki_write(p->fd, file, all->crl.data, all->crl.size, 0644, e);
}

int pki_publish(const struct pki *p, struct err *e)
{
	struct published all = { 0 };
	int ret = 0;

	for (size_t i = 0; i < p->n_cas && ret == 0; i++) {
		gnutls_datum_t pem = { 0 };

		ret = gnutls_x509_crt_export2(p->cas[i].cert, GNUTLS_X509_FMT_PEM, &pem);
		ret = ret < 0 ? pki_gnutls(e, ret, "the CA's certificate") : append(&all.ca, &pem, e);
		if (ret == 0 && pki_make_crl(p, &p->cas[i], &pem, e) == 0)
			ret = append(&all.crl, &pem, e);
		else if (ret == 0)
			ret = e->code;
	}
	if (ret == 0)
		ret = pki_write(p->fd, "ca.pem", all.ca.data, all.ca.size, 0644, e);
	if (ret == 0)
		ret = pki_write(p->fd, "crl.pem", all.crl.data, all.crl.size, 0644, e);
	if (ret == 0)
		ret = pki_each(p, "nodes", publish_for, &all, e);
	gnutls_free(all.ca.data);
	gnutls_free(all.crl.data);
	return ret;
}
