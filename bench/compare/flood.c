/*
 * flood.c - sends 64-byte UDP frames as fast as a raw socket takes them.
 *
 *   flood IFACE DSTMAC SRCIP DESTFILE SECONDS CPU
 *
 * DESTFILE holds one IPv4 address a line; frames go to them in turn.  The process is pinned to CPU (-1: nowhere).
 * Prints one line of JSON: frames sent, seconds, its own cpu time (user and system, interrupts served on top of it
 * included as the host accounts them).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define FRAME 64
#define BATCH 64

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

static void die(const char *what)
{
	fprintf(stderr, "flood: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint16_t csum(const uint8_t *p, int len)
{
	uint32_t s = 0;

	for (int i = 0; i < len; i += 2)
		s += p[i] << 8 | p[i + 1];
	while (s >> 16)
		s = (s & 0xffff) + (s >> 16);
	return ~s;
}

static void build(uint8_t *f, const uint8_t *dmac, const uint8_t *smac, uint32_t src, uint32_t dst)
{
	uint8_t *ip = f + 14, *udp = f + 34;
	uint16_t c;

	memset(f, 0, FRAME);
	memcpy(f, dmac, 6);
	memcpy(f + 6, smac, 6);
	f[12] = 8;
	ip[0] = 0x45;
	ip[3] = FRAME - 14;
	ip[8] = 64;
	ip[9] = 17;
	memcpy(ip + 12, &src, 4);
	memcpy(ip + 16, &dst, 4);
	c = csum(ip, 20);
	ip[10] = c >> 8;
	ip[11] = c;
	udp[0] = udp[2] = 0x13;
	udp[1] = udp[3] = 0x88;
	udp[5] = FRAME - 34;
}

static uint32_t *read_dests(const char *file, int *n)
{
	FILE *in = fopen(file, "r");
	char line[64];
	int room = 1024;
	uint32_t *d = malloc(room * sizeof *d);

	if (in == NULL)
		die(file);
	for (*n = 0; fgets(line, sizeof line, in) != NULL;) {
		line[strcspn(line, "\n")] = 0;
		if (*n == room)
			d = realloc(d, (room *= 2) * sizeof *d);
		if (inet_pton(AF_INET, line, &d[*n]) == 1)
			++*n;
	}
	fclose(in);
	return d;
}

static int open_socket(const char *iface, uint8_t *mac)
{
	int fd = socket(AF_PACKET, SOCK_RAW, 0), one = 1;
	struct sockaddr_ll to = { .sll_family = AF_PACKET };
	struct ifreq ifr;

	if (fd < 0)
		die("raw socket");
	to.sll_ifindex = if_nametoindex(iface);
	if (to.sll_ifindex == 0 || bind(fd, (struct sockaddr *)&to, sizeof to) < 0)
		die(iface);
	memset(&ifr, 0, sizeof ifr);
	strncpy(ifr.ifr_name, iface, IFNAMSIZ - 1);
	if (ioctl(fd, SIOCGIFHWADDR, &ifr) < 0)
		die("address");
	memcpy(mac, ifr.ifr_hwaddr.sa_data, 6);
	setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof one);
	return fd;
}

static unsigned long flood(int fd, uint8_t (*frames)[FRAME], int n, double seconds)
{
	struct mmsghdr msg[BATCH];
	struct iovec iov[BATCH];
	unsigned long sent = 0;
	double end = now() + seconds;
	int next = 0;

	memset(msg, 0, sizeof msg);
	while (now() < end) {
		int got;

		for (int i = 0; i < BATCH; i++) {
			iov[i].iov_base = frames[next];
			iov[i].iov_len = FRAME;
			msg[i].msg_hdr.msg_iov = &iov[i];
			msg[i].msg_hdr.msg_iovlen = 1;
			if (++next == n)
				next = 0;
		}
		got = sendmmsg(fd, msg, BATCH, 0);
		if (got > 0)
			sent += got;
		else if (errno != ENOBUFS && errno != EAGAIN && errno != EINTR)
			die("sendmmsg");
	}
	return sent;
}

int main(int argc, char **argv)
{
	uint8_t dmac[6], smac[6];
	uint32_t src, *dests;
	int n, fd, cpu;
	uint8_t (*frames)[FRAME];
	unsigned long sent;
	struct rusage ru;
	double t;

	if (argc != 7 || inet_pton(AF_INET, argv[3], &src) != 1 ||
	    sscanf(argv[2], "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", dmac, dmac + 1, dmac + 2, dmac + 3, dmac + 4, dmac + 5) != 6) {
		fprintf(stderr, "usage: flood IFACE DSTMAC SRCIP DESTFILE SECONDS CPU\n");
		return 2;
	}
	dests = read_dests(argv[4], &n);
	if (n == 0) {
		fprintf(stderr, "flood: no destination in %s\n", argv[4]);
		return 1;
	}
	cpu = atoi(argv[6]);
	if (cpu >= 0) {
		cpu_set_t set;

		CPU_ZERO(&set);
		CPU_SET(cpu, &set);
		if (sched_setaffinity(0, sizeof set, &set) < 0)
			die("affinity");
	}
	fd = open_socket(argv[1], smac);
	frames = malloc((size_t)n * FRAME);
	for (int i = 0; i < n; i++)
		build(frames[i], dmac, smac, src, dests[i]);
	t = now();
	sent = flood(fd, frames, n, atof(argv[5]));
	t = now() - t;
	getrusage(RUSAGE_SELF, &ru);
	printf("{\"program\":\"flood\",\"sent\":%lu,\"seconds\":%.4f,\"user\":%.4f,\"system\":%.4f}\n", sent, t,
	       ru.ru_utime.tv_sec + ru.ru_utime.tv_usec * 1e-6, ru.ru_stime.tv_sec + ru.ru_stime.tv_usec * 1e-6);
	return 0;
}
