/** limits.ts - every limit and tunable default of the machine and the kernel, one per line. Sizes are powers of two. */

// the machine
export const NR_CPUS = 32
export const CACHELINE = 128 // two lines: the adjacent-line prefetcher pairs them
export const PAGE_SIZE = 4096
export const MAX_NICS = 8
export const MAX_QUEUES = 32 // per NIC
export const NR_IRQS = 64 // interrupt lines
export const RAM_SIZE = 64 << 20
export const HZ = 1000

// locks
export const MAX_HELD = 48 // locks held at once by one CPU
export const SPIN_BEFORE_PARK = 200 // tries before a waiter gives its host core away

// packets
export const SKB_CACHE = 8192 // sk_buffs
export const SKB_DATA_2K = 8192 // packet buffers of each size
export const SKB_DATA_16K = 64
export const SKB_DATA_JUMBO = 512 // the same, when a port has frames that do not fit 2 KiB
export const SKB_DATA_64K = 16
export const MAX_SKB_FRAGS = 18
export const MAX_HEADER = 32

// devices
export const NETDEV_MAX_BACKLOG = 300 // this and the next: what the sysctls begin with
export const WEIGHT_P = 64
export const IPQMAXLEN = 50 // 4.2BSD's IFQ_MAXLEN for ipintrq
export const SCREEN_QUEUE_LEN = 32 // packets that wait for a screening process
export const RX_RING = 256
export const TX_RING = 256
export const TX_QUEUE_LEN = 1000
export const MAX_NETDEVS = 16
export const CONNTRACK_BUCKETS = 512 // RAM / 16384 / 8
export const MAX_CONNTRACKS = 8 * CONNTRACK_BUCKETS
export const MAX_NAMED_TABLES = 16 // of each match that keeps some
export const MAX_RECENT = 400 // addresses in all tables of match recent
export const RECENT_PER_TABLE = 100
export const RECENT_STAMPS = 20 // packets that are remembered of an address
export const MAX_HASHLIMITS = 1024 // in all tables of match hashlimit
export const LOG_BUF_LEN = 1 << 14 // bytes of the kernel's log
export const MAX_QUEUED_PACKETS = 1024 // packets that wait for the verdict of a process
export const PACKET_PAGES = 256 // of 4 KiB, for fragments
export const MAX_NEIGHBOURS = 8192
export const NEIGH_GC_THRESH1 = 128 // these three: what the sysctls begin with
export const NEIGH_GC_THRESH2 = 512 // entries that are not permanent: more than these for 5 s, and unused ones go
export const NEIGH_GC_THRESH3 = 1024 // there are never more
export const MAX_PNEIGHS = 1024 // addresses that are answered for
export const RT_HASH_BUCKETS = 2048
export const RT_CACHE_ENTRIES = 16 * RT_HASH_BUCKETS
export const MAX_TASKS = 512
export const MAX_WORKQUEUES = 4

// processes and sockets
export const USER_MEM_SIZE = 1 << 18 // bytes that a process has for itself
export const NR_OPEN = 256 // descriptors of a process
export const FD_SETSIZE = 1024 // descriptors that select can name
export const OPEN_MAX = 256 // descriptors of one poll that are always allowed
export const MAX_POLL_WAITS = 1024 // files that all processes together wait for in select and poll
export const MAX_FILES = 2048 // open files of the machine
export const PIPE_BUFFERS = 16 // pages of a pipe
export const MAX_PIPES = 128 // pipes and FIFOs
export const MAX_PIPE_PAGES = 512 // of all pipes together
export const MAX_EVENTPOLLS = 64 // files of epoll_create
export const MAX_EPITEMS = 1024 // files that all of those together watch
export const MAX_FASYNC = 256 // files that tell by a signal
export const OPTMEM_MAX = 4 * (2 * 1024 + 512) // bytes of a socket's options at first, and of one filter at most
export const MAX_FILTERS = 16 // sockets with a filter of their own
export const MAX_SOCKS = 512
export const SOCK_SLOT = 2048 // the largest socket of all protocols, bytes
export const UIO_MAXIOV = 1024

export const MAX_UNIX_NAMES = 256 // of sockets, paths that nobody unlinked as well
export const MAX_DGRAM_QLEN = 10 // messages that wait in a Unix socket, but for its peer's: what the sysctl begins with
export const CONSOLE_RING = 1 << 15 // bytes that programs have written and the host has not taken out
export const CONSOLE_CHUNK = 4096 // of one write that stay together
export const MAX_PROCESSES = 64 // programs that init starts
export const MAX_ARG_BYTES = 1 << 15 // of a program's arguments

export const MAX_FIB_NODES = 65536
export const MAX_FIB_INFOS = 8192
export const MAX_INET_PEERS = 8192 // hosts that this machine remembers sending to
export const INET_PEER_THRESHOLD = 4096 + 128 // from here on unused ones go sooner
export const MAX_FIB_TABLES = 64 // beside local and main, and those two
export const MAX_FIB_RULES = 256
export const MAX_IFADDRS = 256
export const MAX_MC_GROUPS = 1024 // of all interfaces, and memberships of all sockets
export const IGMP_MAX_MEMBERSHIPS = 20 // of one socket
export const MAX_IPQS = 512 // datagrams that are being put together

/** Frames that a panic has a look at: those of the panic itself do not count. */
export const PANIC_FRAMES = 20
