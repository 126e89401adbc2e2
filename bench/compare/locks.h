/*
 * locks.h - the lock kinds of the kernel, as C spells them, for the comparison programs.
 *
 * The spin loops are those of Linux 2.6.11: a waiter reads until the word looks free and only then tries again.
 */
#ifndef SOFTNET_BENCH_LOCKS_H
#define SOFTNET_BENCH_LOCKS_H

#include <stdatomic.h>
#include <stddef.h>

#if defined(__x86_64__) || defined(__i386__)
#define cpu_relax() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define cpu_relax() __asm__ volatile("yield" ::: "memory")
#else
#define cpu_relax() atomic_signal_fence(memory_order_seq_cst)
#endif

#define LINE __attribute__((aligned(128)))

/* test and set: one exchange to take it, one plain store to give it back */
typedef struct { LINE atomic_int word; } tas_lock_t;

static inline void tas_lock(tas_lock_t *l)
{
	while (atomic_exchange_explicit(&l->word, 1, memory_order_acquire) != 0)
		do
			cpu_relax();
		while (atomic_load_explicit(&l->word, memory_order_relaxed) != 0);
}

static inline void tas_unlock(tas_lock_t *l)
{
	atomic_store_explicit(&l->word, 0, memory_order_release);
}

/* ticket: first come, first served; the holder's next one must be on a core, or everybody waits */
typedef struct { LINE atomic_uint next, owner; } ticket_lock_t;

static inline void ticket_lock(ticket_lock_t *l)
{
	unsigned me = atomic_fetch_add_explicit(&l->next, 1, memory_order_relaxed);

	while (atomic_load_explicit(&l->owner, memory_order_acquire) != me)
		cpu_relax();
}

static inline void ticket_unlock(ticket_lock_t *l)
{
	unsigned me = atomic_load_explicit(&l->owner, memory_order_relaxed);

	atomic_store_explicit(&l->owner, me + 1, memory_order_release);
}

/* MCS: a queue of waiters, each spins on its own line */
typedef struct mcs_node {
	LINE _Atomic(struct mcs_node *) next;
	atomic_int wait;
} mcs_node_t;
typedef struct { LINE _Atomic(mcs_node_t *) tail; } mcs_lock_t;

static inline void mcs_lock(mcs_lock_t *l, mcs_node_t *me)
{
	mcs_node_t *before;

	atomic_store_explicit(&me->next, NULL, memory_order_relaxed);
	atomic_store_explicit(&me->wait, 1, memory_order_relaxed);
	before = atomic_exchange_explicit(&l->tail, me, memory_order_acq_rel);
	if (before == NULL)
		return;
	atomic_store_explicit(&before->next, me, memory_order_release);
	while (atomic_load_explicit(&me->wait, memory_order_acquire) != 0)
		cpu_relax();
}

static inline void mcs_unlock(mcs_lock_t *l, mcs_node_t *me)
{
	mcs_node_t *after = atomic_load_explicit(&me->next, memory_order_acquire);

	if (after == NULL) {
		mcs_node_t *want = me;

		if (atomic_compare_exchange_strong_explicit(&l->tail, &want, NULL, memory_order_release,
							    memory_order_relaxed))
			return;
		while ((after = atomic_load_explicit(&me->next, memory_order_acquire)) == NULL)
			cpu_relax();
	}
	atomic_store_explicit(&after->wait, 0, memory_order_release);
}

#endif
