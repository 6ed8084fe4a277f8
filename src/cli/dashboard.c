// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * dashboard.c - godwit dashboard: a browser on this machine, or at the other end of an ssh, may use the API as the user who has called this
 *
 * It listens on a loopback address, where any user of the machine can connect, and so can pages of strangers that a browser has open. Whoever brings the *code* in the address that is printed gets the
 * *key*; then the code is another one. The page keeps the key and sends it with each request in a header, which no other page can: there are no cookies. Each request has a connection of its own to
 * api.sock, so that nobody's request comes in behind another's. Only the page itself is for everybody.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "ask/front.h"
#include "base/util.h"
#include "cli/cli.h"

#define PORT_DEFAULT 8470
#define SECRET_BYTES 16u
#define SECRET_TEXT (2 * SECRET_BYTES + 1)
#define CLIENTS_MAX 48u
#define PATIENCE_S 10
#define BACKLOG 16

static struct sockaddr_un api = { .sun_family = AF_UNIX };
static char key[SECRET_TEXT], code[SECRET_TEXT];
static unsigned n_clients, port;
static bool as_json;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int make_secret(char text[SECRET_TEXT])
{
	uint8_t bytes[SECRET_BYTES];

	if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
		return -EIO;
	for (size_t i = 0; i < sizeof(bytes); i++)
		snprintf(text + 2 * i, 3, "%02x", bytes[i]);
	return 0;
}

/* In a time that says nothing of where they differ. */
static bool is_secret(const char *said, const char secret[SECRET_TEXT])
{
	unsigned differ = 0;

	if (strlen(said) != SECRET_TEXT - 1)
		return false;
	for (size_t i = 0; i < SECRET_TEXT - 1; i++)
		differ |= (unsigned)(said[i] ^ secret[i]);
	return !differ;
}

static void print_address(void)
{
	if (as_json)
		printf("{\"url\":\"http://localhost:%u/#code=%s\",\"port\":%u}\n", port, code, port);
	else
		printf("http://localhost:%u/#code=%s\n", port, code);
	fflush(stdout);
}

/* The code, for the key. */
static void let_in(int fd, const char *body, size_t len)
{
	json_t *said = json_loadb(body, len, JSON_REJECT_DUPLICATES, NULL);
	char text[SECRET_TEXT + 16];
	bool right;

	snprintf(text, sizeof(text), "{\"key\":\"%s\"}", key);
	pthread_mutex_lock(&lock);
	right = is_secret(text_of(said, "code"), code) && make_secret(code) == 0;
	if (right)
		print_address();
	pthread_mutex_unlock(&lock);
	json_decref(said);
	if (right)
		front_answer(fd, "200 OK", text);
	else
		front_refuse(fd, "403 Forbidden", "code", "each address that `godwit dashboard` prints opens one window: take the newest");
}

static void pass_on(int fd, const struct front_request *request)
{
	cleanup_close int to = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (to < 0 || connect(to, (struct sockaddr *)&api, sizeof(api)) < 0)
		front_refuse(fd, "502 Bad Gateway", "no-answer", "godwit-api does not answer on this host: does godwitd run?");
	else
		front_pass(fd, to, request);
}

/* Who may ask for that? */
static void serve(int fd)
{
	struct front_request request;

	if (!front_hear(fd, &request) || !front_is_ours(fd, &request, false))
		return;
	if (!strcmp(request.head.target, "/session") && !strcmp(request.head.method, "POST"))
		let_in(fd, request.body, request.head.body_len);
	else if (!request.is_page && !is_secret(front_token(&request), key))
		front_refuse(fd, "401 Unauthorized", "no-key", "take the newest address that `godwit dashboard` prints");
	else
		pass_on(fd, &request);
}

static void *attend(void *arg)
{
	int fd = (int)(intptr_t)arg;

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){ PATIENCE_S, 0 }, sizeof(struct timeval));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &(struct timeval){ PATIENCE_S, 0 }, sizeof(struct timeval));
	serve(fd);
	shutdown(fd, SHUT_WR);
	close(fd);
	pthread_mutex_lock(&lock);
	n_clients--;
	pthread_mutex_unlock(&lock);
	return NULL;
}

static int start_client(int fd)
{
	pthread_t thread;
	bool room;
	int r = -EAGAIN;

	pthread_mutex_lock(&lock);
	room = n_clients < CLIENTS_MAX;
	n_clients += room;
	pthread_mutex_unlock(&lock);
	if (room && pthread_create(&thread, NULL, attend, (void *)(intptr_t)fd) == 0)
		return pthread_detach(thread);
	if (room) {
		pthread_mutex_lock(&lock);
		n_clients--;
		pthread_mutex_unlock(&lock);
	}
	close(fd);
	return r;
}

/* On the port, or, when that is taken and nobody has named it, on any. */
static int listen_here(unsigned wanted, bool named)
{
	struct sockaddr_in own = { .sin_family = AF_INET, .sin_port = htons((uint16_t)wanted), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	cleanup_close int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(own);

	if (fd < 0)
		return -errno;
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int));
	if (bind(fd, (struct sockaddr *)&own, sizeof(own)) < 0 && (named || errno != EADDRINUSE))
		return -errno;
	if (listen(fd, BACKLOG) < 0 || getsockname(fd, (struct sockaddr *)&own, &len) < 0)
		return -errno;
	port = ntohs(own.sin_port);
	return take_fd(&fd);
}

/* api.sock beside godwitd's socket; whether somebody answers there. */
static int find_api(void)
{
	const char *slash = strrchr(socket_path, '/');
	int len = slash ? (int)(slash - socket_path + 1) : 0;
	cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (snprintf(api.sun_path, sizeof(api.sun_path), "%.*sapi.sock", len, socket_path) >= (int)sizeof(api.sun_path)) {
		complain("%s: too long for a socket's path", socket_path);
		return -ENAMETOOLONG;
	}
	if (fd >= 0 && connect(fd, (struct sockaddr *)&api, sizeof(api)) == 0)
		return 0;
	complain("nobody listens on %s (%s): put these lines into godwit.conf, and restart godwitd:\n[api]\nenabled = yes", api.sun_path, strerror(errno));
	return -ENOENT;
}

static int run(unsigned wanted, bool named)
{
	char host[64] = "HOST";
	int listener;

	if (find_api() < 0)
		return EXIT_FAILED;
	listener = listen_here(wanted, named);
	if (listener < 0) {
		complain("port %u of the loopback address: %s; --port names another", wanted, strerror(-listener));
		return EXIT_FAILED;
	}
	if (make_secret(key) < 0 || make_secret(code) < 0) {
		complain("no random numbers are to be had");
		return EXIT_FAILED;
	}
	signal(SIGPIPE, SIG_IGN);
	(void)gethostname(host, sizeof(host) - 1);
	if (!as_json)
		printf("Open the last address below in a browser here; from another machine after ssh -L %u:localhost:%u %s\nEach opens one window, which may do what you may do. Ctrl-C ends it.\n\n", port, port, host);
	print_address();
	for (;;) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

		if (fd >= 0)
			start_client(fd);
		else if (errno != EINTR && errno != ECONNABORTED)
			poll(NULL, 0, 100); /* no descriptors at the moment */
	}
}

int verb_dashboard(int argc, char **argv)
{
	static const struct option options[] = { { "port", required_argument, NULL, 'p' }, { "json", no_argument, NULL, 'j' }, { 0 } };
	unsigned long wanted = PORT_DEFAULT;
	bool named = false;
	char *end;
	int o;

	optind = 1;
	while ((o = getopt_long(argc, argv, "+:", options, NULL)) != -1) {
		if (o == 'p') {
			wanted = strtoul(optarg, &end, 10);
			named = true;
			if (*end || end == optarg || wanted > 65535)
				return usage_error("dashboard", "--port: '%s' is no number from 0 to 65535", optarg);
		} else if (o == 'j') {
			as_json = true;
		} else {
			return option_error("dashboard", o, argv);
		}
	}
	if (optind < argc)
		return usage_error("dashboard", "'%s': no argument is expected", argv[optind]);
	return run((unsigned)wanted, named);
}
