/* splitbrain-wire: holds, drops, repeats, reorders, damages and paces the frames of link directions, in user space.
 *
 * Each direction is two file descriptors that the controller (wire.py) opened: a TAP device, to which a tc filter
 * redirects whatever a network interface is about to send, and a packet socket on that interface which bypasses the
 * filter (PACKET_QDISC_BYPASS, packet(7)). A frame read from the TAP is given its fate and its time at once, waits in a
 * heap, and is written to the socket. Both ends carry a virtio-net header, so frames that the kernel has not segmented
 * or checksummed yet (GSO) pass whole.
 *
 * Commands arrive on a SOCK_SEQPACKET unix socket, whose descriptor is the one argument, one datagram each, and are
 * answered one by one; when its other end closes, the process exits. `struct command` and `struct reply` are mirrored in wire.py.
 *
 * A frame's fate depends on (seed, number of the frame in its direction) alone: draw k of frame n is output 8n + k of
 * SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014), which can be computed
 * from its position. The one exception is the state of bursty loss, which depends on the draws of all frames before.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/virtio_net.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum {
    ETHERNET_HEADER = 14,
    VNET_HEADER = 10,                /* sizeof(struct virtio_net_hdr), the form without num_buffers */
    FRAME_MAX = VNET_HEADER + ETHERNET_HEADER + 65535 + 64,
    FRAME_HEAD = 1984,               /* what an MTU-sized frame needs is kept in the frame's own memory */
    READ_BATCH = 32,                 /* frames read from one TAP before the heap is looked at again */
    TABLE_STEPS = 4096,
    TABLE_SCALE_BITS = 16,           /* table entries are multiples of the jitter, times 2^16 */
    OCTAVES = 33,                    /* the delay histogram: 128 linear steps an octave of nanoseconds, up to 2^39 */
    STEPS = 128,
    SPIN_NS = 30000,                 /* nearer to a deadline than this, poll instead of sleeping … */
    SPIN_SHARE = 10,                 /* … for a tenth of all time at most: the machine has other things to do */
    SPIN_SAVED_NS = 1000000,         /* how much of that share may be saved up */
    LATE_NS = 1000000,               /* a frame sent this long after its time is counted as late */
};
#define HELD_BYTES_MAX ((size_t)256 << 20)

enum verb { ADD = 1, SET = 2, FLUSH = 3, STAT = 4 };

/* Probabilities are thresholds: p * 2^32. Times are nanoseconds. */
struct settings {
    int64_t delay, jitter;
    uint64_t rate;                   /* bits per second, 0: unlimited */
    uint64_t queue;                  /* frames that may wait for the rate */
    uint64_t seed;
    uint64_t loss;
    uint64_t burst_start, burst_end; /* bursty loss when burst_end is not 0: good -> bad and bad -> good */
    uint64_t duplicate, reorder, corrupt;
    int32_t table[TABLE_STEPS + 2];  /* the quantile function of the jitter; the last entry is padding */
};

struct command {
    uint32_t verb, id;
    struct settings settings;        /* ADD and SET only */
};

struct counters {
    uint64_t packets, bytes;         /* on the wire: a GSO frame counts as its segments */
    uint64_t sent;                   /* frames written, copies included */
    uint64_t lost, queue_full, memory_full, send_failed;
    uint64_t duplicated, reordered, corrupted;
    uint64_t held;                   /* frames waiting now */
    int64_t delay_sum;               /* over the frames sent: from reading to writing */
    int64_t late_sum, late_max;      /* from their time to writing */
    uint64_t late;
};

struct reply {
    int32_t error;                   /* an errno */
    uint32_t realtime;               /* 1: runs under SCHED_FIFO */
    struct counters counters;
    uint32_t delays[OCTAVES * STEPS]; /* STAT only */
};

struct direction {
    int tap, out;
    struct settings settings;
    uint64_t number;                 /* of the next frame */
    bool bursting;
    int64_t idle_at;                 /* when the rate-limited link will have sent all it accepted */
    int64_t *finish;                 /* ring of the times at which the waiting frames will have been sent */
    uint64_t finish_size, finish_head, finish_count;
    struct counters counters;
    uint32_t delays[OCTAVES * STEPS];
};

struct frame {
    struct frame *next;              /* in the free list */
    struct direction *direction;
    int64_t arrived;
    uint8_t *tail;                   /* what does not fit into head, or NULL */
    uint32_t length;                 /* virtio-net header included */
    uint8_t head[FRAME_HEAD];
};

struct entry {
    int64_t due;
    uint64_t order;                  /* frames due at the same time leave in the order they came */
    struct frame *frame;
};

static struct direction **directions;
static uint32_t direction_slots;
static struct entry *heap;
static size_t heap_used, heap_size;
static uint64_t next_order;
static struct frame *free_frames;
static uint8_t *spare_tail;
static size_t held_bytes;
static int poller, control;
static uint32_t realtime;

static void die(const char *what)
{
    fprintf(stderr, "splitbrain-wire: %s: %s\n", what, strerror(errno));
    exit(71); /* EX_OSERR */
}

static void *allocate(size_t size)
{
    void *memory = malloc(size);
    if (!memory)
        die("memory");
    return memory;
}

static int64_t clock_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* -- the heap: earliest time first ------------------------------------------------------------------------------ */

static bool before(const struct entry *a, const struct entry *b)
{
    return a->due != b->due ? a->due < b->due : a->order < b->order;
}

static void sift_down(size_t i)
{
    struct entry moving = heap[i];
    for (size_t child; (child = 2 * i + 1) < heap_used; i = child) {
        if (child + 1 < heap_used && before(&heap[child + 1], &heap[child]))
            child++;
        if (!before(&heap[child], &moving))
            break;
        heap[i] = heap[child];
    }
    heap[i] = moving;
}

static void push(int64_t due, struct frame *frame)
{
    if (heap_used == heap_size) {
        heap_size = heap_size ? 2 * heap_size : 1024;
        heap = realloc(heap, heap_size * sizeof *heap);
        if (!heap)
            die("memory");
    }
    struct entry added = {due, next_order++, frame};
    size_t i = heap_used++;
    for (size_t parent; i && before(&added, &heap[parent = (i - 1) / 2]); i = parent)
        heap[i] = heap[parent];
    heap[i] = added;
}

static struct frame *pop(void)
{
    struct frame *frame = heap[0].frame;
    heap[0] = heap[--heap_used];
    if (heap_used)
        sift_down(0);
    return frame;
}

/* -- frames ----------------------------------------------------------------------------------------------------- */

static size_t frame_cost(const struct frame *frame)
{
    return sizeof *frame + (frame->tail ? FRAME_MAX : 0);
}

static struct frame *frame_new(void)
{
    struct frame *frame = free_frames;
    if (frame)
        free_frames = frame->next;
    else
        frame = allocate(sizeof *frame);
    frame->tail = NULL;
    return frame;
}

static void frame_free(struct frame *frame)
{
    free(frame->tail);
    frame->next = free_frames;
    free_frames = frame;
}

static struct frame *frame_copy(const struct frame *frame)
{
    struct frame *copy = frame_new();
    copy->direction = frame->direction;
    copy->arrived = frame->arrived;
    copy->length = frame->length;
    memcpy(copy->head, frame->head, frame->length < FRAME_HEAD ? frame->length : FRAME_HEAD);
    if (frame->tail) {
        copy->tail = allocate(FRAME_MAX);
        memcpy(copy->tail, frame->tail, frame->length - FRAME_HEAD);
    }
    return copy;
}

static void hold(int64_t due, struct frame *frame)
{
    held_bytes += frame_cost(frame);
    frame->direction->counters.held++;
    push(due, frame);
}

static uint32_t histogram_index(int64_t ns)
{
    uint64_t value = ns > 0 ? (uint64_t)ns : 0;
    int octave = value < STEPS ? 0 : 63 - __builtin_clzll(value) - 6;
    uint32_t index = octave ? (uint32_t)octave * STEPS + (uint32_t)((value >> (octave - 1)) - STEPS) : (uint32_t)value;
    return index < OCTAVES * STEPS ? index : OCTAVES * STEPS - 1;
}

static void transmit(int64_t due, struct frame *frame)
{
    struct direction *d = frame->direction;
    struct counters *c = &d->counters;
    int64_t now = clock_now();
    ssize_t sent;
    if (frame->tail) {
        struct iovec parts[2] = {{frame->head, FRAME_HEAD}, {frame->tail, frame->length - FRAME_HEAD}};
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
        sent = sendmsg(d->out, &message, MSG_DONTWAIT);
    } else {
        sent = send(d->out, frame->head, frame->length, MSG_DONTWAIT);
    }
    if (sent < 0) {
        c->send_failed++;
    } else {
        int64_t delay = now - frame->arrived, late = now > due ? now - due : 0;
        c->sent++;
        c->delay_sum += delay;
        c->late_sum += late;
        c->late += late > LATE_NS;
        if (late > c->late_max)
            c->late_max = late;
        d->delays[histogram_index(delay)]++;
    }
    c->held--;
    held_bytes -= frame_cost(frame);
    frame_free(frame);
}

/* -- fate ------------------------------------------------------------------------------------------------------- */

enum draw { DRAW_LOSS, DRAW_JITTER, DRAW_REORDER, DRAW_DUPLICATE, DRAW_COPY_JITTER, DRAW_CORRUPT, DRAW_BIT, DRAWS = 8 };

/* The upper half of a SplitMix64 output: uniform in [0, 2^32). */
static uint32_t draw(const struct direction *d, enum draw which)
{
    uint64_t z = d->settings.seed + (d->number * DRAWS + which + 1) * UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return (uint32_t)((z ^ (z >> 31)) >> 32);
}

static bool is_lost(struct direction *d)
{
    const struct settings *s = &d->settings;
    uint32_t u = draw(d, DRAW_LOSS);
    if (!s->burst_end)
        return u < s->loss;
    if (d->bursting ? u < s->burst_end : u < s->burst_start)
        d->bursting = !d->bursting;
    return d->bursting;
}

static int64_t jittered(const struct direction *d, enum draw which)
{
    const struct settings *s = &d->settings;
    if (!s->jitter)
        return s->delay;
    uint32_t u = draw(d, which), step = u >> 20;
    int64_t low = s->table[step], high = s->table[step + 1];
    int64_t quantile = low + (((high - low) * (u & 0xFFFFF)) >> 20);
    int64_t delay = s->delay + ((s->jitter * quantile) >> TABLE_SCALE_BITS);
    return delay > 0 ? delay : 0;
}

/* How many frames of how many bytes in all the virtio-net header says this one will be on the wire. */
static void count_segments(const struct frame *frame, uint64_t *packets, uint64_t *bytes)
{
    struct virtio_net_hdr header;
    memcpy(&header, frame->head, VNET_HEADER);
    uint64_t length = frame->length - VNET_HEADER;
    *packets = 1;
    *bytes = length;
    unsigned type = header.gso_type & ~(unsigned)VIRTIO_NET_HDR_GSO_ECN;
    if ((type != VIRTIO_NET_HDR_GSO_TCPV4 && type != VIRTIO_NET_HDR_GSO_TCPV6) || !header.gso_size)
        return;
    size_t offset = VNET_HEADER + header.csum_start + 12u; /* the TCP header's data offset, RFC 9293 3.1 */
    if (offset >= FRAME_HEAD)
        return;
    uint64_t headers = header.csum_start + (frame->head[offset] >> 4) * 4u;
    if (length > headers) {
        *packets = (length - headers + header.gso_size - 1) / header.gso_size;
        *bytes = length + (*packets - 1) * headers;
    }
}

/* When a frame of `bytes` that comes at `now` has been sent at the rate; -1 when the queue is full. */
static int64_t serialised(struct direction *d, int64_t now, uint64_t bytes)
{
    const struct settings *s = &d->settings;
    if (!s->rate)
        return now;
    for (; d->finish_count && d->finish[d->finish_head] <= now; d->finish_count--)
        d->finish_head = (d->finish_head + 1) % d->finish_size;
    if (d->finish_count == d->finish_size)
        return -1;
    if (d->idle_at < now)
        d->idle_at = now;
    d->idle_at += (int64_t)(bytes * UINT64_C(8000000000) / s->rate);
    d->finish[(d->finish_head + d->finish_count++) % d->finish_size] = d->idle_at;
    return d->idle_at;
}

static void corrupt(struct direction *d, struct frame *frame)
{
    uint32_t first = VNET_HEADER + ETHERNET_HEADER;
    if (frame->length <= first)
        return;
    uint32_t bit = (uint32_t)(((uint64_t)draw(d, DRAW_BIT) * ((frame->length - first) * 8u)) >> 32);
    uint32_t byte = first + bit / 8;
    uint8_t *place = byte < FRAME_HEAD ? &frame->head[byte] : &frame->tail[byte - FRAME_HEAD];
    *place ^= (uint8_t)(1u << bit % 8);
    d->counters.corrupted++;
}

/* Take over a frame that was read at `frame->arrived`: count it, decide what becomes of it, and when. */
static void accept_frame(struct direction *d, struct frame *frame)
{
    const struct settings *s = &d->settings;
    struct counters *c = &d->counters;
    uint64_t packets, bytes;
    int64_t at = 0;
    count_segments(frame, &packets, &bytes);
    c->packets += packets;
    c->bytes += bytes;
    if (is_lost(d))
        c->lost += packets;
    else if (held_bytes > HELD_BYTES_MAX)
        c->memory_full += packets;
    else if ((at = serialised(d, frame->arrived, bytes)) < 0)
        c->queue_full += packets;
    else {
        if (s->corrupt && draw(d, DRAW_CORRUPT) < s->corrupt)
            corrupt(d, frame);
        bool jumps = s->reorder && draw(d, DRAW_REORDER) < s->reorder;
        c->reordered += jumps;
        struct frame *copy = NULL;
        if (s->duplicate && draw(d, DRAW_DUPLICATE) < s->duplicate)
            copy = frame_copy(frame);
        hold(at + (jumps ? 0 : jittered(d, DRAW_JITTER)), frame);
        if (copy) {
            c->duplicated++;
            hold(at + jittered(d, DRAW_COPY_JITTER), copy);
        }
        frame = NULL;
    }
    d->number++;
    if (frame)
        frame_free(frame);
}

/* Read up to `limit` frames that wait in the TAP; false once there are none. */
static bool receive(struct direction *d, int limit)
{
    for (int i = 0; i < limit; i++) {
        if (!spare_tail)
            spare_tail = allocate(FRAME_MAX);
        struct frame *frame = frame_new();
        struct iovec parts[2] = {{frame->head, FRAME_HEAD}, {spare_tail, FRAME_MAX}};
        frame->direction = d;
        frame->arrived = clock_now();
        ssize_t length = readv(d->tap, parts, 2);
        if (length < VNET_HEADER + ETHERNET_HEADER) {
            frame_free(frame);
            if (length < 0 && errno != EAGAIN && errno != EINTR) /* the device is gone: do not be woken by it again */
                epoll_ctl(poller, EPOLL_CTL_DEL, d->tap, NULL);
            return false;
        }
        frame->length = (uint32_t)length;
        if (length > FRAME_HEAD) {
            frame->tail = spare_tail;
            spare_tail = NULL;
        }
        accept_frame(d, frame);
    }
    return true;
}

/* -- commands --------------------------------------------------------------------------------------------------- */

static struct direction *find(uint32_t id)
{
    return id < direction_slots ? directions[id] : NULL;
}

static int set(struct direction *d, const struct settings *settings)
{
    if (settings->rate && (!settings->queue || settings->queue > 1 << 24))
        return EINVAL;
    if (settings->rate && settings->queue != d->finish_size) {
        free(d->finish);
        d->finish = allocate(settings->queue * sizeof *d->finish);
        d->finish_size = settings->queue;
        d->finish_head = d->finish_count = 0;
    }
    d->settings = *settings;
    return 0;
}

static int add(uint32_t id, const struct settings *settings, int tap, int out)
{
    if (tap < 0 || out < 0 || find(id) || id > 1 << 16)
        return EINVAL;
    struct direction *d = allocate(sizeof *d);
    memset(d, 0, sizeof *d);
    d->tap = tap;
    d->out = out;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = d};
    if (set(d, settings) || epoll_ctl(poller, EPOLL_CTL_ADD, tap, &event) < 0) {
        free(d->finish);
        free(d);
        return EINVAL;
    }
    if (id >= direction_slots) {
        directions = realloc(directions, (id + 1) * sizeof *directions);
        if (!directions)
            die("memory");
        memset(directions + direction_slots, 0, (id + 1 - direction_slots) * sizeof *directions);
        direction_slots = id + 1;
    }
    directions[id] = d;
    return 0;
}

static int by_due(const void *a, const void *b)
{
    return before(a, b) ? -1 : 1;
}

/* Send all that is held at once, in the order it was due, and start anew: lifting an impairment loses nothing. */
static void flush(struct direction *d)
{
    while (receive(d, READ_BATCH))
        ;
    size_t kept = 0, mine = 0;
    struct entry *leaving = allocate(heap_used * sizeof *leaving + 1);
    for (size_t i = 0; i < heap_used; i++) {
        if (heap[i].frame->direction == d)
            leaving[mine++] = heap[i];
        else
            heap[kept++] = heap[i];
    }
    heap_used = kept;
    for (size_t i = kept / 2; i-- > 0;)
        sift_down(i);
    qsort(leaving, mine, sizeof *leaving, by_due);
    for (size_t i = 0; i < mine; i++)
        transmit(leaving[i].due, leaving[i].frame);
    free(leaving);
    memset(&d->counters, 0, sizeof d->counters);
    memset(d->delays, 0, sizeof d->delays);
    d->number = d->finish_count = 0;
    d->idle_at = 0;
    d->bursting = false;
}

/* One command, answered. False when the controller has gone. */
static bool obey(void)
{
    static struct command command;
    static struct reply reply;
    union { struct cmsghdr align; char space[CMSG_SPACE(2 * sizeof(int))]; } ancillary;
    struct iovec part = {&command, sizeof command};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &ancillary,
                             .msg_controllen = sizeof ancillary};
    ssize_t length = recvmsg(control, &message, MSG_CMSG_CLOEXEC);
    if (length <= 0)
        return length < 0 && errno == EINTR;
    int fds[2] = {-1, -1};
    struct cmsghdr *attached = CMSG_FIRSTHDR(&message);
    if (attached && attached->cmsg_type == SCM_RIGHTS && attached->cmsg_len == CMSG_LEN(sizeof fds))
        memcpy(fds, CMSG_DATA(attached), sizeof fds);

    struct direction *d = find(command.id);
    bool whole = length == sizeof command;
    size_t answer = offsetof(struct reply, delays);
    memset(&reply, 0, answer);
    reply.realtime = realtime;
    if (length < (ssize_t)offsetof(struct command, settings))
        reply.error = EPROTO;
    else if (command.verb == ADD && whole)
        reply.error = add(command.id, &command.settings, fds[0], fds[1]);
    else if (!d)
        reply.error = ENOENT;
    else if (command.verb == SET && whole)
        reply.error = set(d, &command.settings);
    else if (command.verb == STAT) {
        reply.counters = d->counters;
        memcpy(reply.delays, d->delays, sizeof reply.delays);
        answer = sizeof reply;
    } else if (command.verb == FLUSH)
        flush(d);
    else
        reply.error = EPROTO;
    for (int i = 0; reply.error && i < 2; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    return send(control, &reply, answer, MSG_NOSIGNAL) >= 0;
}

/* What keeps a sleeping process from being late; each is a privilege that may be refused, and is then done without. */
static void hurry(void)
{
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
    struct sched_param parameters = {.sched_priority = 1};
    realtime = sched_setscheduler(0, SCHED_FIFO, &parameters) == 0;
    struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
    if (setrlimit(RLIMIT_MEMLOCK, &unlimited) == 0) /* else a lock on future pages would make malloc fail */
        mlockall(MCL_CURRENT | MCL_FUTURE);
}

int main(int count, char **arguments)
{
    if (count != 2) {
        fputs("splitbrain-wire FD: impairs links for splitbrain, which starts it; FD is its command socket\n", stderr);
        return 64; /* EX_USAGE */
    }
    control = atoi(arguments[1]);
    hurry();
    poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (poller < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, control, &event) < 0)
        die("the command socket");
    int64_t allowance = 0, before = clock_now();
    bool spinning = false;
    for (;;) {
        int64_t now = clock_now();
        allowance += (now - before) / SPIN_SHARE - (spinning ? now - before : 0);
        if (allowance > SPIN_SAVED_NS || allowance < -SPIN_SAVED_NS)
            allowance = allowance > 0 ? SPIN_SAVED_NS : -SPIN_SAVED_NS;
        before = now;
        for (int i = 0; i < READ_BATCH && heap_used && heap[0].due <= now; i++) {
            int64_t due = heap[0].due;
            transmit(due, pop());
            now = clock_now();
        }
        struct timespec timeout = {0, 0}, *until = heap_used ? &timeout : NULL;
        int64_t sleep = heap_used ? heap[0].due - now - (allowance > SPIN_NS ? SPIN_NS : 0) : 0;
        if (sleep > 0) {
            timeout.tv_sec = sleep / 1000000000;
            timeout.tv_nsec = sleep % 1000000000;
        }
        spinning = heap_used && sleep <= 0 && heap[0].due > now;
        struct epoll_event events[64];
        int ready = epoll_pwait2(poller, events, 64, until, NULL);
        if (ready < 0 && errno != EINTR)
            die("epoll_pwait2 (Linux 5.11 or later)");
        for (int i = 0; i < ready; i++) {
            if (events[i].data.ptr)
                receive(events[i].data.ptr, READ_BATCH);
            else if (!obey())
                return 0;
        }
    }
}
