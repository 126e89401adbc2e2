/*
 * rcu.c - the read side of liburcu: ns per rcu_read_lock + rcu_read_unlock of its memb, bp and qsbr flavours.
 *
 * Prints one line of JSON.  Needs the headers and libraries of liburcu 0.13 or later.
 */
#define _LGPL_SOURCE 1
#define URCU_INLINE_SMALL_FUNCTIONS 1
#include <stdio.h>
#include <time.h>

#include <urcu/urcu-bp.h>
#include <urcu/urcu-memb.h>
#include <urcu/urcu-qsbr.h>

#define PAIRS 10000000UL

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

static int word = 1, *shared = &word;

/* the reader also follows one pointer, as readers do; without it the loop is empty in qsbr */
#define TIME_PAIRS(lock, unlock) ({                                     \
	double best = 1e9;                                              \
	for (int round = 0; round < 6; round++) {                       \
		double t = now();                                       \
		for (unsigned long i = 0; i < PAIRS; i++) {             \
			lock();                                         \
			sum += *rcu_dereference(shared);                \
			unlock();                                       \
		}                                                       \
		t = (now() - t) / PAIRS * 1e9;                          \
		if (round > 0 && t < best)                              \
			best = t;                                       \
	}                                                               \
	best; })

int main(void)
{
	volatile unsigned long keep;
	unsigned long sum = 0;
	double memb, bp, qsbr;

	urcu_memb_register_thread();
	memb = TIME_PAIRS(urcu_memb_read_lock, urcu_memb_read_unlock);
	urcu_memb_unregister_thread();
	urcu_bp_register_thread();
	bp = TIME_PAIRS(urcu_bp_read_lock, urcu_bp_read_unlock);
	urcu_qsbr_register_thread();
	qsbr = TIME_PAIRS(urcu_qsbr_read_lock, urcu_qsbr_read_unlock);
	urcu_qsbr_unregister_thread();
	keep = sum;
	(void)keep;
	printf("{\"program\":\"rcu\",\"unit\":\"ns\",\"memb\":%.2f,\"bp\":%.2f,\"qsbr\":%.2f}\n", memb, bp, qsbr);
	return 0;
}
