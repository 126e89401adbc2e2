/*
 * locks.c - lock pairs in C: alone, and contended by many threads.
 *
 *   locks alone                   ns per lock and unlock of each kind, one thread
 *   locks contended N SECONDS     acquisitions per second of each kind, N threads pinned nowhere
 *
 * Prints one line of JSON.  The contended critical section is one increment of a shared word, which is checked at the
 * end: a lock that lets two in would lose some.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "locks.h"

enum kind { TAS, SPIN, TICKET, MCS, KINDS };
static const char *const names[KINDS] = { "tas", "pthread_spin", "ticket", "mcs" };

static tas_lock_t tas;
static ticket_lock_t ticket;
static mcs_lock_t mcs;
static LINE pthread_spinlock_t spin;
static LINE volatile unsigned long counter;
static LINE atomic_int go;      /* 1 warm up, 2 measure, 3 stop */

struct arg {
	LINE enum kind kind;
	unsigned long total, measured;
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

#define PAIRS 20000000UL

#define TIME_PAIRS(lock, unlock) ({                                     \
	double best = 1e9;                                              \
	for (int round = 0; round < 5; round++) {                       \
		double t = now();                                       \
		for (unsigned long i = 0; i < PAIRS / 4; i++) {         \
			lock;                                           \
			counter++;                                      \
			unlock;                                         \
		}                                                       \
		t = (now() - t) / (PAIRS / 4) * 1e9;                    \
		if (round > 0 && t < best)                              \
			best = t;                                       \
	}                                                               \
	best; })

static int alone(void)
{
	mcs_node_t node;
	double t[KINDS];

	t[TAS] = TIME_PAIRS(tas_lock(&tas), tas_unlock(&tas));
	t[SPIN] = TIME_PAIRS(pthread_spin_lock(&spin), pthread_spin_unlock(&spin));
	t[TICKET] = TIME_PAIRS(ticket_lock(&ticket), ticket_unlock(&ticket));
	t[MCS] = TIME_PAIRS(mcs_lock(&mcs, &node), mcs_unlock(&mcs, &node));
	printf("{\"program\":\"locks\",\"mode\":\"alone\",\"unit\":\"ns\"");
	for (int k = 0; k < KINDS; k++)
		printf(",\"%s\":%.2f", names[k], t[k]);
	printf("}\n");
	return 0;
}

static void *contender(void *p)
{
	struct arg *a = p;
	mcs_node_t node;
	int phase;

	while ((phase = atomic_load_explicit(&go, memory_order_relaxed)) != 3) {
		switch (a->kind) {
		case TAS: tas_lock(&tas); counter++; tas_unlock(&tas); break;
		case SPIN: pthread_spin_lock(&spin); counter++; pthread_spin_unlock(&spin); break;
		case TICKET: ticket_lock(&ticket); counter++; ticket_unlock(&ticket); break;
		default: mcs_lock(&mcs, &node); counter++; mcs_unlock(&mcs, &node); break;
		}
		a->total++;
		if (phase == 2)
			a->measured++;
	}
	return NULL;
}

static void sleep_for(double s)
{
	struct timespec t = { (time_t)s, (long)((s - (time_t)s) * 1e9) };

	nanosleep(&t, NULL);
}

/*
 * Two rates.  `steady` leaves out the time in which the threads start: then only one or two of them contend, and a fair
 * lock passes from running thread to running thread.  `whole` counts it in, as a short naive benchmark would.
 */
static double run(enum kind kind, int n, double seconds, double *whole)
{
	pthread_t *th = calloc(n, sizeof *th);
	struct arg *args = aligned_alloc(128, n * sizeof *args);
	unsigned long total = 0, measured = 0;
	double t, start;

	memset(args, 0, n * sizeof *args);
	counter = 0;
	atomic_store(&go, 1);
	start = now();
	for (int i = 0; i < n; i++) {
		args[i].kind = kind;
		if (pthread_create(&th[i], NULL, contender, &args[i]) != 0) {
			fprintf(stderr, "locks: cannot start %d threads\n", n);
			exit(1);
		}
	}
	sleep_for(seconds / 4);
	t = now();
	atomic_store(&go, 2);
	sleep_for(seconds);
	atomic_store(&go, 3);
	t = now() - t;
	start = now() - start;
	for (int i = 0; i < n; i++) {
		pthread_join(th[i], NULL);
		total += args[i].total;
		measured += args[i].measured;
	}
	if (total != counter) {
		fprintf(stderr, "locks: %s lost %ld updates\n", names[kind], (long)(total - counter));
		exit(1);
	}
	*whole = total / start;
	free(args);
	free(th);
	return measured / t;
}

int main(int argc, char **argv)
{
	int n;
	double seconds, whole[KINDS];

	pthread_spin_init(&spin, PTHREAD_PROCESS_PRIVATE);
	if (argc == 2 && strcmp(argv[1], "alone") == 0)
		return alone();
	if (argc != 4 || strcmp(argv[1], "contended") != 0 || (n = atoi(argv[2])) < 1 || n > 256 ||
	    (seconds = atof(argv[3])) <= 0) {
		fprintf(stderr, "usage: locks alone | locks contended THREADS SECONDS\n");
		return 2;
	}
	printf("{\"program\":\"locks\",\"mode\":\"contended\",\"unit\":\"acquisitions/s\",\"threads\":%d", n);
	for (int k = 0; k < KINDS; k++)
		printf(",\"%s\":%.0f", names[k], run(k, n, seconds, &whole[k]));
	printf(",\"whole\":{");
	for (int k = 0; k < KINDS; k++)
		printf("%s\"%s\":%.0f", k > 0 ? "," : "", names[k], whole[k]);
	printf("}}\n");
	return 0;
}
