// SPDX-License-Identifier: LGPL-2.1-or-later
/* etcd_http.c - see etcd_http.h */
#include "cluster/etcd_http.h"

#include <curl/curl.h>
#include <dlfcn.h>
#include <errno.h>

#include "base/util.h"

#define ANSWER_MAX (16u << 20)

#undef curl_easy_setopt /* its checks want the function itself */
#undef curl_easy_getinfo

struct etcd_http {
	struct membership_etcd etcd;
	size_t last; /* the server that answered */
	CURL *curl;
	struct curl_slist *headers;
	char error[CURL_ERROR_SIZE];
	void *library;
	CURL *(*easy_init)(void);
	void (*easy_cleanup)(CURL *);
	void (*easy_reset)(CURL *);
	CURLcode (*easy_setopt)(CURL *, CURLoption, ...);
	CURLcode (*easy_perform)(CURL *);
	CURLcode (*easy_getinfo)(CURL *, CURLINFO, ...);
	const char *(*easy_strerror)(CURLcode);
	struct curl_slist *(*slist_append)(struct curl_slist *, const char *);
	void (*slist_free_all)(struct curl_slist *);
};

struct text {
	char *data;
	size_t len;
};

static int load(struct etcd_http *h, struct err *e)
{
	const struct {
		const char *name;
		void *at;
	} symbols[] = {
		{ "curl_easy_init", &h->easy_init },           { "curl_easy_cleanup", &h->easy_cleanup },   { "curl_easy_reset", &h->easy_reset },
		{ "curl_easy_setopt", &h->easy_setopt },       { "curl_easy_perform", &h->easy_perform },   { "curl_easy_getinfo", &h->easy_getinfo },
		{ "curl_easy_strerror", &h->easy_strerror },   { "curl_slist_append", &h->slist_append },   { "curl_slist_free_all", &h->slist_free_all },
	};

	h->library = dlopen("libcurl-gnutls.so.4", RTLD_NOW | RTLD_LOCAL);
	if (!h->library)
		h->library = dlopen("libcurl.so.4", RTLD_NOW | RTLD_LOCAL);
	if (!h->library)
		return err_set(e, -ENOENT, "etcd is reached with libcurl, which cannot be loaded (%s): install Debian's libcurl3-gnutls", dlerror());
	for (size_t i = 0; i < ARRAY_SIZE(symbols); i++) {
		void *symbol = dlsym(h->library, symbols[i].name);

		if (!symbol)
			return err_set(e, -ENOENT, "libcurl has no %s", symbols[i].name);
		memcpy(symbols[i].at, &symbol, sizeof(symbol));
	}
	return 0;
}

int etcd_http_open(struct etcd_http **ret, const struct membership_etcd *etcd, struct err *e)
{
	struct etcd_http *h = calloc(1, sizeof(*h));
	int r;

	if (!h)
		return err_sys(e, -ENOMEM, "etcd");
	h->etcd = *etcd;
	r = load(h, e);
	if (r == 0) {
		h->curl = h->easy_init();
		h->headers = h->slist_append(NULL, "Content-Type: application/json");
		if (!h->curl || !h->headers)
			r = err_set(e, -ENOMEM, "libcurl cannot be initialised");
	}
	if (r < 0) {
		etcd_http_close(h);
		return r;
	}
	*ret = h;
	return 0;
}

void etcd_http_close(struct etcd_http *h)
{
	if (!h)
		return;
	if (h->curl)
		h->easy_cleanup(h->curl);
	if (h->headers)
		h->slist_free_all(h->headers);
	free(h); /* the library stays: those that it has brought along have state that they do not give back */
}

static size_t on_data(char *data, size_t size, size_t n, void *arg)
{
	struct text *t = arg;
	char *grown;

	n *= size;
	if (n > ANSWER_MAX - t->len)
		return 0;
	grown = realloc(t->data, t->len + n + 1);
	if (!grown)
		return 0;
	memcpy(grown + t->len, data, n);
	t->data = grown;
	t->len += n;
	t->data[t->len] = 0;
	return n;
}

static void set_options(struct etcd_http *h, const char *url, const char *body, struct text *answer)
{
	h->easy_reset(h->curl); /* keeps the connection */
	h->easy_setopt(h->curl, CURLOPT_URL, url);
	h->easy_setopt(h->curl, CURLOPT_POSTFIELDS, body);
	h->easy_setopt(h->curl, CURLOPT_HTTPHEADER, h->headers);
	h->easy_setopt(h->curl, CURLOPT_WRITEFUNCTION, on_data);
	h->easy_setopt(h->curl, CURLOPT_WRITEDATA, answer);
	h->easy_setopt(h->curl, CURLOPT_TIMEOUT_MS, (long)MEMBERSHIP_TIMEOUT_MS);
	h->easy_setopt(h->curl, CURLOPT_NOSIGNAL, 1L);
	h->easy_setopt(h->curl, CURLOPT_NOPROXY, "*"); /* the environment of a daemon is nobody's */
	h->easy_setopt(h->curl, CURLOPT_ERRORBUFFER, h->error);
	if (h->etcd.ca[0])
		h->easy_setopt(h->curl, CURLOPT_CAINFO, h->etcd.ca);
	if (h->etcd.cert[0])
		h->easy_setopt(h->curl, CURLOPT_SSLCERT, h->etcd.cert);
	if (h->etcd.key[0])
		h->easy_setopt(h->curl, CURLOPT_SSLKEY, h->etcd.key);
	h->error[0] = 0;
}

/* -ENOTCONN: the next one may do better. */
static int ask_one(struct etcd_http *h, size_t server, const char *path, const char *body, json_t **ret, struct err *e)
{
	char url[MEMBERSHIP_SERVER_MAX + 64];
	struct text answer = { 0 };
	long status = 0;
	CURLcode code;
	json_t *o;
	int r = 0;

	snprintf(url, sizeof(url), "%s/v3/%s", h->etcd.servers[server], path);
	set_options(h, url, body, &answer);
	code = h->easy_perform(h->curl);
	h->easy_getinfo(h->curl, CURLINFO_RESPONSE_CODE, &status);
	o = code == CURLE_OK ? json_loadb(answer.data ? answer.data : "", answer.len, JSON_DISABLE_EOF_CHECK, NULL) : NULL; /* a stream's first object */
	free(answer.data);
	if (code != CURLE_OK) {
		r = err_set(e, -ENOTCONN, "etcd at %s: %s", h->etcd.servers[server], h->error[0] ? h->error : h->easy_strerror(code));
	} else if (status != 200) {
		const char *why = json_string_value(json_object_get(o, "message"));

		r = err_set(e, status >= 500 ? -ENOTCONN : -EREMOTEIO, "etcd at %s: status %ld: %.200s", h->etcd.servers[server], status, why ? why : "no reason is given");
	} else if (!json_is_object(o)) {
		r = err_set(e, -EPROTO, "etcd at %s: an answer that is no JSON object", h->etcd.servers[server]);
	}
	if (r < 0)
		json_decref(o);
	else
		*ret = o;
	return r;
}

int etcd_http_ask(struct etcd_http *h, const char *path, json_t *question, json_t **ret, struct err *e)
{
	cleanup_free char *body = question ? json_dumps(question, JSON_COMPACT) : NULL;
	int r = -ENOTCONN;

	json_decref(question);
	if (!body)
		return err_sys(e, -ENOMEM, "etcd");
	for (size_t i = 0; i < h->etcd.n_servers && r == -ENOTCONN; i++) {
		size_t server = (h->last + i) % h->etcd.n_servers;

		r = ask_one(h, server, path, body, ret, e);
		if (r == 0)
			h->last = server;
	}
	return r;
}
