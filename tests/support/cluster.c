/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/cluster.h"

#include <inttypes.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "storage/table.h"
#include "tests/support/sim_disk.h"
#include "tests/support/sim_kv.h"

enum { TURNS_WITHOUT_TIME_MAX = 100000, CHANGES_MAX = 256 };

/* A replica's memory: which proposal stands at which position. */
struct replica {
    struct member *member;
    uint32_t *numbers;
    uint64_t count, room;
    bool closed; /* it may still be looked at */
};

struct member {
    struct cluster *cluster;
    unsigned i;
    struct node *node;
    struct sim_disk *disk;
    struct sim_kv *kv;
    bool paused;
    uint64_t election_timeout_ns;    /* from the next start on; 0 = as the options say */
    int64_t clock_ppm;               /* its clock runs so much faster than time */
    uint64_t clock_ns, clock_set_ns; /* what it showed when that was set, and when that was */
    bool due[NODE_PARTS];
    uint64_t work_ns[NODE_PARTS]; /* when a part wants to run though nobody woke it */
    uint64_t flush_ns;
    bool writes, writer_ends; /* a snapshot, at this moment */
    uint64_t writer_works_ns, writer_ns, writer_rested_ns;
    uint64_t journal_busy_until_ns;
    struct replica *replica; /* the node's; the one before it, until that is closed */
    struct replica
        *newest; /* opened last: a snapshot is read into one of its own, which takes the other's place or goes */
    /* A machine that hangs stands in a thread of its own, in the middle of apply; nothing runs beside it. */
    bool hang_wanted, hangs;
    pthread_t hung_thread;
    uint64_t hung_again; /* what its node_work returned */
    sem_t hung_stopped, hung_goes_on;
};

struct cluster {
    struct cluster_options options;
    struct random random;
    uint64_t now_ns;
    struct sim_net *net;
    struct plugin plugin;
    struct member members[CLUSTER_NODES_MAX];
    struct cluster_proposal *proposals;
    uint32_t proposal_count, proposal_room;
    struct cluster_query *queries;
    uint32_t query_count, query_room;
    struct cluster_change changes[CHANGES_MAX];
    uint32_t change_count;
    int transfer_result;      /* 1: it runs */
    uint64_t *leader_of_term; /* by term: member id, 0 = not seen */
    uint64_t terms_room, cluster_id;
    char why[NODE_WHY_BYTES_MAX];
};

static _Noreturn void violated(const struct cluster *cluster, const char *what)
{
    fprintf(stderr, "seed 0x%" PRIx64 " at %" PRIu64 " ms: %s\n", cluster->options.seed, cluster->now_ns / CLUSTER_MS,
            what);
    abort();
}

/* An assertion in the code under test knows no seed: this prints it. */
static uint64_t running_seed;

static void print_seed(int number)
{
    (void)number;
    dprintf(STDERR_FILENO, "seed 0x%" PRIx64 "\n", running_seed);
}

/* --- the machine ---------------------------------------------------------------------------------------------- */

static struct member *opening; /* whose machine is being opened: a plugin's open knows no node */

static void replica_free(struct replica *replica)
{
    if (replica == NULL) return;
    free(replica->numbers);
    free(replica);
}

static int machine_open(const struct lockstep_host *host, void **ret_machine)
{
    (void)host;
    struct replica *replica = calloc(1, sizeof *replica);
    lk_assert(replica != NULL);
    replica->member = opening;
    if (opening->replica != NULL && opening->replica->closed) {
        replica_free(opening->replica);
        opening->replica = NULL;
    }
    if (opening->replica == NULL) opening->replica = replica;
    opening->newest = replica;
    *ret_machine = replica;
    return 0;
}

/* What member i applied; nothing before it ever ran. */
static const struct replica *replica_of(const struct cluster *cluster, unsigned i)
{
    static const struct replica none;
    return cluster->members[i].replica != NULL ? cluster->members[i].replica : &none;
}

static void machine_close(void *machine)
{
    struct replica *replica = machine;
    struct member *m = replica->member;
    if (replica != m->replica) { /* a snapshot's that was given up */
        m->newest = m->replica;
        replica_free(replica);
    } else if (m->newest != replica) {
        m->replica = m->newest;
        replica_free(replica);
    } else {
        replica->closed = true;
    }
}

static void remember(struct replica *replica, uint32_t number)
{
    if (replica->count == replica->room) {
        replica->room = replica->room == 0 ? 1024 : 2 * replica->room;
        replica->numbers = realloc(replica->numbers, replica->room * sizeof *replica->numbers);
        lk_assert(replica->numbers != NULL);
    }
    replica->numbers[replica->count++] = number;
}

static int machine_apply(void *machine, struct lockstep_batch *batch, struct lockstep_replies *replies)
{
    struct replica *replica = machine;
    struct member *m = replica->member;
    const struct lockstep_command *command;
    while ((command = batch->next(batch)) != NULL) {
        if (m->hang_wanted) {
            m->hang_wanted = false;
            m->hangs = true;
            sem_post(&m->hung_stopped);
            sem_wait(&m->hung_goes_on);
        }
        lk_assert(command->position > replica->count);
        lk_assert(command->payload_bytes >= 8);
        uint64_t number;
        memcpy(&number, command->payload, sizeof number);
        while (replica->count + 1 < command->position) remember(replica, CLUSTER_NOTHING);
        remember(replica, (uint32_t)number);
        replies->answer(replies, LOCKSTEP_OK, 0, &number, sizeof number);
    }
    return 0;
}

static int machine_query(void *machine, uint64_t entity, const uint8_t *query, size_t query_bytes,
                         struct lockstep_replies *replies)
{
    (void)entity;
    (void)query;
    (void)query_bytes;
    struct replica *replica = machine;
    replies->answer(replies, LOCKSTEP_OK, 0, &replica->count, sizeof replica->count);
    return 0;
}

static struct lockstep_hash machine_hash(void *machine)
{
    struct replica *replica = machine;
    struct lockstep_hash hash = {.low = replica->count};
    if (replica->count > 0) hash.high = replica->numbers[replica->count - 1];
    return hash;
}

struct frozen {
    uint64_t count;
    uint32_t numbers[];
};

static int machine_snapshot_begin(void *machine, void **ret_snapshot)
{
    const struct replica *replica = machine;
    struct frozen *frozen = malloc(sizeof *frozen + replica->count * sizeof frozen->numbers[0]);
    lk_assert(frozen != NULL);
    frozen->count = replica->count;
    if (replica->count > 0) memcpy(frozen->numbers, replica->numbers, replica->count * sizeof frozen->numbers[0]);
    *ret_snapshot = frozen;
    return 0;
}

static int machine_snapshot_write(void *machine, void *snapshot, struct lockstep_writer *writer)
{
    (void)machine;
    const struct frozen *frozen = snapshot;
    return writer->write(writer, frozen->numbers, frozen->count * sizeof frozen->numbers[0]);
}

static void machine_snapshot_end(void *machine, void *snapshot)
{
    (void)machine;
    free(snapshot);
}

static int machine_restore(void *machine, struct lockstep_reader *reader)
{
    uint8_t bytes[sizeof(uint32_t)];
    size_t held = 0, count = 0;
    do {
        int rc = reader->read(reader, bytes + held, sizeof bytes - held, &count);
        if (rc != 0) return rc;
        held += count;
        if (held < sizeof bytes) continue;
        uint32_t number;
        memcpy(&number, bytes, sizeof number);
        remember(machine, number);
        held = 0;
    } while (count > 0);
    return held == 0 ? 0 : -1;
}

/* --- clocks: each node's own; time is cluster->now_ns -------------------------------------------------------------- */

#define MILLION UINT64_C(1000000)

static uint64_t clock_rate(const struct member *m) /* in a million ns */
{
    return (uint64_t)((int64_t)MILLION + m->clock_ppm);
}

static uint64_t clock_shows(const struct member *m)
{
    return m->clock_ns + (m->cluster->now_ns - m->clock_set_ns) * clock_rate(m) / MILLION;
}

/* The first moment at which its clock shows that. */
static uint64_t time_of_clock(const struct member *m, uint64_t shown_ns)
{
    if (shown_ns <= m->clock_ns) return m->clock_set_ns;
    uint64_t ns = shown_ns - m->clock_ns;
    if (ns > UINT64_MAX / MILLION - MILLION) return UINT64_MAX; /* hours away */
    return m->clock_set_ns + (ns * MILLION + clock_rate(m) - 1) / clock_rate(m);
}

void cluster_clock_drift(struct cluster *cluster, unsigned i, int64_t ppm)
{
    struct member *m = &cluster->members[i];
    lk_assert(ppm > -(int64_t)MILLION && ppm < (int64_t)MILLION);
    m->clock_ns = clock_shows(m);
    m->clock_set_ns = cluster->now_ns;
    m->clock_ppm = ppm;
}

/* --- the doors ------------------------------------------------------------------------------------------------ */

static uint64_t env_now(void *context)
{
    struct member *m = context;
    if (!m->writes) return clock_shows(m);
    m->writer_ns += m->writer_works_ns;
    return clock_shows(m) + m->writer_ns;
}

static bool env_pause(void *context, uint64_t ns)
{
    struct member *m = context;
    lk_assert(m->writes);
    m->writer_rested_ns += ns;
    return !m->writer_ends;
}

void cluster_writer_works(struct cluster *cluster, unsigned i, uint64_t ns, bool ends)
{
    cluster->members[i].writer_works_ns = ns;
    cluster->members[i].writer_ends = ends;
}

uint64_t cluster_writer_rested_ns(const struct cluster *cluster, unsigned i)
{
    return cluster->members[i].writer_rested_ns;
}

static uint64_t env_wall(void *context)
{
    struct member *m = context;
    return UINT64_C(1700000000) * 1000 * CLUSTER_MS + m->cluster->now_ns;
}

static uint64_t env_random(void *context)
{
    struct member *m = context;
    return random_u64(&m->cluster->random);
}

static void env_wake(void *context, enum node_part part)
{
    struct member *m = context;
    m->due[part] = true;
}

static void env_log(void *context, enum node_log_level level, const char *part, const char *text)
{
    struct member *m = context;
    (void)level;
    if (getenv("LOCKSTEP_SIM_LOG") != NULL)
        fprintf(stderr, "%8" PRIu64 " us n%u %s: %s\n", m->cluster->now_ns / 1000, m->i + 1, part, text);
}

static void owner_proposed(void *context, uint64_t tag, const struct node_outcome *outcome)
{
    struct member *m = context;
    struct cluster_proposal *p = &m->cluster->proposals[tag];
    if (p->state != PROPOSAL_WAITING) violated(m->cluster, "a proposal was answered twice");
    p->error = outcome->error;
    p->position = outcome->position;
    if (outcome->error == 0 && p->command.kind == COMMAND_MACHINE) {
        uint64_t number;
        if (outcome->reply_bytes != sizeof number) violated(m->cluster, "a reply is not the machine's");
        memcpy(&number, outcome->reply, sizeof number);
        if (number != p->number) violated(m->cluster, "a reply belongs to another proposal");
    }
    switch (outcome->error) {
    case 0: p->state = PROPOSAL_APPLIED; break;
    case LOCKSTEP_EUNKNOWN:
    case LOCKSTEP_ENOTFOUND: /* of a session: an earlier copy may have been applied, or is this one's first */
    case LOCKSTEP_EWINDOW:
    case LOCKSTEP_EREPLIED: p->state = PROPOSAL_UNKNOWN; break;
    default: p->state = PROPOSAL_NOT_APPENDED; break;
    }
}

static void owner_queried(void *context, uint64_t tag, const struct node_answer *answer)
{
    struct member *m = context;
    struct cluster_query *q = &m->cluster->queries[tag];
    if (q->done) violated(m->cluster, "a query was answered twice");
    q->done = true;
    q->error = answer->error;
    q->index = answer->index;
    if (answer->error == 0 && q->of_command)
        q->applied_count = answer->position;
    else if (answer->error == 0)
        memcpy(&q->applied_count, answer->reply, sizeof q->applied_count);
}

static void owner_transferred(void *context, uint64_t tag, int error)
{
    struct member *m = context;
    (void)tag;
    m->cluster->transfer_result = error;
}

static void owner_member_changed(void *context, uint64_t tag, const struct node_change_result *result)
{
    struct member *m = context;
    struct cluster_change *change = &m->cluster->changes[tag];
    if (change->done) violated(m->cluster, "a change of members was answered twice");
    change->done = true;
    change->result = *result;
}

static void owner_changed(void *context)
{
    (void)context;
}

/* --- life ----------------------------------------------------------------------------------------------------- */

struct cluster *cluster_open(const struct cluster_options *options)
{
    struct cluster *cluster = calloc(1, sizeof *cluster);
    running_seed = options->seed;
    signal(SIGABRT, print_seed); /* and the abort goes on */
    lk_assert(cluster != NULL && options->nodes >= 1 && options->nodes <= CLUSTER_NODES_MAX);
    cluster->options = *options;
    if (cluster->options.listed == 0) cluster->options.listed = options->nodes;
    if (cluster->options.ring_bytes == 0) cluster->options.ring_bytes = 4 << 20;
    if (cluster->options.payload_bytes < 8) cluster->options.payload_bytes = 8;
    random_seed(&cluster->random, options->seed);
    cluster->now_ns = 1000 * CLUSTER_MS;
    cluster->net = sim_net_open(&cluster->random, &cluster->now_ns);
    sim_net_faults_set(cluster->net, &(struct sim_net_faults){.delay_ns_min = 20000, .delay_ns_max = 200000});
    cluster->plugin = (struct plugin){
        .machine = {.size = sizeof(struct lockstep_machine),
                    .abi = LOCKSTEP_MACHINE_ABI,
                    .name = "witness",
                    .version = "1",
                    .open = machine_open,
                    .close = machine_close,
                    .apply = machine_apply,
                    .query = machine_query,
                    .hash = machine_hash,
                    .snapshot_begin = machine_snapshot_begin,
                    .snapshot_write = machine_snapshot_write,
                    .snapshot_end = machine_snapshot_end,
                    .restore = machine_restore},
        .name = "witness",
        .version = "1",
    };
    for (unsigned i = 0; i < options->nodes; i++) {
        struct member *m = &cluster->members[i];
        m->cluster = cluster;
        m->i = i;
        m->flush_ns = 100000;
        sem_init(&m->hung_stopped, 0, 0);
        sem_init(&m->hung_goes_on, 0, 0);
        m->disk = sim_disk_open(random_u64(&cluster->random));
        m->kv = sim_kv_open(m->disk);
    }
    return cluster;
}

void cluster_close(struct cluster *cluster)
{
    if (cluster == NULL) return;
    for (unsigned i = 0; i < cluster->options.nodes; i++) {
        struct member *m = &cluster->members[i];
        if (m->node != NULL) sim_net_detach(cluster->net, i);
        cluster_machine_hang(cluster, i, false);
        node_close(m->node);
        sim_kv_close(m->kv);
        sim_disk_close(m->disk);
        replica_free(m->replica);
    }
    sim_net_close(cluster->net);
    free(cluster->proposals);
    free(cluster->queries);
    free(cluster->leader_of_term);
    free(cluster);
}

/* As a configuration file does. */
static void member_describe(struct node_member_options *member, unsigned i)
{
    snprintf(member->name, sizeof member->name, "n%u", i + 1);
    snprintf(member->client, sizeof member->client, "n%u:1", i + 1);
    snprintf(member->peer, sizeof member->peer, "%u:2", i);
}

void cluster_election_timeout(struct cluster *cluster, unsigned i, uint64_t ns)
{
    cluster->members[i].election_timeout_ns = ns;
}

bool cluster_start(struct cluster *cluster, unsigned i)
{
    struct member *m = &cluster->members[i];
    lk_assert(m->node == NULL);
    struct node_options options = {
        .cluster = "test",
        .member_count = cluster->options.listed,
        .self = i < cluster->options.listed ? i : cluster->options.listed,
        .election_timeout_ns = m->election_timeout_ns != 0
                                   ? m->election_timeout_ns
                                   : ((cluster->options.longer_timeouts >> i & 1) != 0 ? 500 : 300) * CLUSTER_MS,
        .heartbeat_ns = 60 * CLUSTER_MS,
        .lease_reads = (cluster->options.lease_reads >> i & 1) != 0,
        .command_bytes_max = 64 << 10,
        .block_bytes_max = 128 << 10,
        .ring_bytes = cluster->options.ring_bytes,
        .journal_bytes = 4 * cluster->options.ring_bytes,
        .map_bytes = 1 << 30,
        .snapshot_after_bytes = cluster->options.snapshot_after_bytes,
        .piece_bytes = 256,
        .append_inflight_bytes_max = cluster->options.ring_bytes / 4,
        .proposals_max = 65536,
        .queries_max = 1024,
        .level = cluster->options.level != 0 ? cluster->options.level : DURABILITY_LEVEL_FSYNC,
        .sessions = cluster->options.sessions,
        .plugin = &cluster->plugin,
        .disk = sim_disk(m->disk),
        .kv = sim_kv(m->kv),
    };
    snprintf(options.data_directory, sizeof options.data_directory, "n%u", i + 1);
    for (unsigned k = 0; k < cluster->options.listed; k++) member_describe(&options.members[k], k);
    if (i >= cluster->options.listed) member_describe(&options.members[options.member_count++], i);
    struct node_env env = {.context = m,
                           .now_ns = env_now,
                           .wall_ns = env_wall,
                           .random = env_random,
                           .wake = env_wake,
                           .pause = env_pause,
                           .log = env_log};
    struct node_owner owner = {.context = m,
                               .proposed = owner_proposed,
                               .queried = owner_queried,
                               .transferred = owner_transferred,
                               .member_changed = owner_member_changed,
                               .changed = owner_changed};
    opening = m;
    memset(m->due, 0, sizeof m->due);
    for (int part = 0; part < NODE_PARTS; part++) m->work_ns[part] = UINT64_MAX;
    m->paused = false;
    int rc = node_open(&options, &env, &owner, &m->node, cluster->why, sizeof cluster->why);
    if (rc != 0) {
        m->node = NULL;
        return false;
    }
    struct transport_owner transport_owner = node_transport_owner(m->node);
    struct transport_hello hello;
    node_transport_hello(m->node, &hello);
    node_attach(m->node, sim_net_attach(cluster->net, i, &transport_owner, &hello));
    m->due[NODE_LOOP] = true;
    return true;
}

static void forget(struct cluster *cluster, unsigned i)
{
    for (uint32_t c = 0; c < cluster->change_count; c++) {
        if (cluster->changes[c].done || cluster->changes[c].node != i) continue;
        cluster->changes[c].done = true;
        cluster->changes[c].result.error = LOCKSTEP_EUNKNOWN;
    }
    for (uint32_t p = 0; p < cluster->proposal_count; p++)
        if (cluster->proposals[p].state == PROPOSAL_WAITING && cluster->proposals[p].node == i) {
            cluster->proposals[p].state = PROPOSAL_UNKNOWN;
            cluster->proposals[p].error = LOCKSTEP_EUNKNOWN;
        }
    for (uint32_t q = 0; q < cluster->query_count; q++) cluster->queries[q].done = true;
}

void cluster_crash(struct cluster *cluster, unsigned i)
{
    struct member *m = &cluster->members[i];
    lk_assert(m->node != NULL);
    cluster_machine_hang(cluster, i, false);
    sim_net_detach(cluster->net, i);
    sim_disk_power_cut(m->disk); /* before close: nothing that close does reaches the disk */
    node_close(m->node);
    m->node = NULL;
    sim_disk_power_on(m->disk);
    forget(cluster, i);
}

void cluster_wipe(struct cluster *cluster, unsigned i)
{
    struct member *m = &cluster->members[i];
    lk_assert(m->node == NULL);
    sim_kv_close(m->kv);
    sim_disk_close(m->disk);
    m->disk = sim_disk_open(random_u64(&cluster->random));
    m->kv = sim_kv_open(m->disk);
}

const char *cluster_why(const struct cluster *cluster)
{
    return cluster->why;
}

bool cluster_runs(const struct cluster *cluster, unsigned i)
{
    return cluster->members[i].node != NULL;
}

void cluster_pause(struct cluster *cluster, unsigned i, bool paused)
{
    cluster->members[i].paused = paused;
}

struct node *cluster_node(struct cluster *cluster, unsigned i)
{
    return cluster->members[i].node;
}

struct sim_net *cluster_net(struct cluster *cluster)
{
    return cluster->net;
}

struct random *cluster_random(struct cluster *cluster)
{
    return &cluster->random;
}

void cluster_damage(struct cluster *cluster, unsigned i, raft_index index)
{
    size_t bytes;
    uint8_t *block = sim_kv_value(cluster->members[i].kv, TABLE_BLOCKS, index, &bytes);
    lk_assert(block != NULL);
    block[bytes - 1] ^= 0x10;
}

uint8_t *cluster_file(struct cluster *cluster, unsigned i, const char *name, uint64_t *ret_bytes)
{
    char path[64];
    snprintf(path, sizeof path, "n%u/%s", i + 1, name);
    return sim_disk_bytes(cluster->members[i].disk, path, ret_bytes);
}

void cluster_readers_left(struct cluster *cluster, unsigned i, uint32_t count)
{
    sim_kv_readers_left(cluster->members[i].kv, count);
}

void cluster_log_full(struct cluster *cluster, unsigned i, bool full)
{
    enum { ROOM_TO_START = 1 << 20 }; /* no less than a start asks for; what is kept back is more */
    sim_kv_capacity(cluster->members[i].kv, full ? sim_kv_bytes(cluster->members[i].kv) + ROOM_TO_START : UINT64_MAX);
}

void cluster_disk_delay(struct cluster *cluster, unsigned i, uint64_t ns)
{
    cluster->members[i].flush_ns = ns;
}

static void *hanging_work(void *argument)
{
    struct member *m = argument;
    m->hung_again = node_work(m->node, NODE_MACHINE);
    sem_post(&m->hung_stopped);
    return NULL;
}

/* A step that hangs in apply, or ends without one. */
static uint64_t machine_work_or_hang(struct member *m)
{
    int rc = pthread_create(&m->hung_thread, NULL, hanging_work, m);
    lk_assert(rc == 0);
    sem_wait(&m->hung_stopped);
    if (m->hangs) return UINT64_MAX;
    pthread_join(m->hung_thread, NULL);
    return m->hung_again;
}

void cluster_machine_hang(struct cluster *cluster, unsigned i, bool hangs)
{
    struct member *m = &cluster->members[i];
    m->hang_wanted = hangs;
    if (hangs || !m->hangs) return;
    sem_post(&m->hung_goes_on);
    pthread_join(m->hung_thread, NULL);
    sem_wait(&m->hung_stopped);
    m->hangs = false;
    m->due[NODE_MACHINE] = true;
}

/* --- time ----------------------------------------------------------------------------------------------------- */

/* When a part of a node is ready by itself; UINT64_MAX = only when woken. */
static uint64_t part_ready_ns(const struct member *m, enum node_part part)
{
    if (part == NODE_MACHINE && m->hangs) return UINT64_MAX;
    uint64_t at = m->work_ns[part];
    if (part == NODE_LOOP) at = time_of_clock(m, node_deadline_ns(m->node));
    if (m->due[part]) at = 0;
    if (part == NODE_JOURNAL && at < m->journal_busy_until_ns) at = m->journal_busy_until_ns;
    return at;
}

static bool part_ready(const struct member *m, enum node_part part)
{
    if (part == NODE_LOOP && sim_net_due(m->cluster->net, m->i)) return true;
    return part_ready_ns(m, part) <= m->cluster->now_ns;
}

static void part_run(struct member *m, enum node_part part)
{
    struct cluster *cluster = m->cluster;
    m->due[part] = false;
    opening = m; /* birth opens the machine in the middle of a turn */
    if (part == NODE_LOOP) {
        node_drain(m->node);
        const char *why;
        if (node_failed(m->node, &why) != 0) {
            snprintf(cluster->why, sizeof cluster->why, "%s", why);
            cluster_crash(cluster, m->i);
        } else if (node_removed(m->node)) {
            snprintf(cluster->why, sizeof cluster->why, "n%u was removed", m->i + 1);
            cluster_crash(cluster, m->i);
        }
        return;
    }
    bool may_hang = part == NODE_MACHINE && m->hang_wanted;
    m->writes = part == NODE_SNAPSHOTS;
    uint64_t again = may_hang ? machine_work_or_hang(m) : node_work(m->node, part);
    m->writes = false;
    m->work_ns[part] = again == UINT64_MAX ? UINT64_MAX : cluster->now_ns + again;
    /* A flush takes its time; what is submitted meanwhile shares the next one. */
    if (part == NODE_JOURNAL) m->journal_busy_until_ns = cluster->now_ns + m->flush_ns;
}

/* Run one ready part of one node, chosen by the seed. False: nobody is ready now. */
static bool step(struct cluster *cluster)
{
    unsigned nodes = cluster->options.nodes;
    uint64_t start = random_below(&cluster->random, nodes * NODE_PARTS);
    for (unsigned k = 0; k < nodes * NODE_PARTS; k++) {
        uint64_t pick = (start + k) % (nodes * NODE_PARTS);
        struct member *m = &cluster->members[pick / NODE_PARTS];
        enum node_part part = (enum node_part)(pick % NODE_PARTS);
        if (m->node == NULL || m->paused || !part_ready(m, part)) continue;
        part_run(m, part);
        return true;
    }
    return false;
}

static uint64_t next_event_ns(const struct cluster *cluster)
{
    uint64_t next = sim_net_next_ns(cluster->net);
    for (unsigned i = 0; i < cluster->options.nodes; i++) {
        const struct member *m = &cluster->members[i];
        if (m->node == NULL || m->paused) continue;
        for (enum node_part part = NODE_LOOP; part < NODE_PARTS; part++) {
            uint64_t at = part_ready_ns(m, part);
            if (at > cluster->now_ns && at < next) next = at;
        }
    }
    return next;
}

static void run_to(struct cluster *cluster, uint64_t end_ns)
{
    for (;;) {
        unsigned turns = 0;
        while (step(cluster))
            if (++turns > TURNS_WITHOUT_TIME_MAX) violated(cluster, "nodes turn without end while no time passes");
        uint64_t next = next_event_ns(cluster);
        if (next > end_ns) break;
        cluster->now_ns = next;
    }
    cluster->now_ns = end_ns;
}

void cluster_run(struct cluster *cluster, uint64_t ns)
{
    run_to(cluster, cluster->now_ns + ns);
    cluster_check(cluster);
}

static int writable(struct cluster *cluster)
{
    for (unsigned i = 0; i < cluster->options.nodes; i++) {
        struct member *m = &cluster->members[i];
        if (m->node == NULL || m->paused) continue;
        struct node_status status;
        node_status_read(m->node, &status);
        if (status.born && status.raft.role == RAFT_LEADER && status.raft.writable) return (int)i;
    }
    return -1;
}

int cluster_run_until_writable(struct cluster *cluster, uint64_t ns)
{
    uint64_t end = cluster->now_ns + ns;
    int leader;
    while ((leader = writable(cluster)) < 0 && cluster->now_ns < end) cluster_run(cluster, CLUSTER_MS);
    return leader;
}

static bool level(struct cluster *cluster)
{
    int leader = writable(cluster);
    if (leader < 0) return false;
    struct node_status status;
    node_status_read(cluster->members[leader].node, &status);
    raft_index last = status.raft.last_index;
    for (unsigned i = 0; i < cluster->options.nodes; i++) {
        if (cluster->members[i].node == NULL) continue;
        node_status_read(cluster->members[i].node, &status);
        if (!status.born && strstr(status.not_ready, "lockstep member") != NULL) continue; /* waits to be admitted */
        if (!status.born || status.host.applied_index != last) return false;
    }
    return true;
}

bool cluster_run_until_level(struct cluster *cluster, uint64_t ns)
{
    uint64_t end = cluster->now_ns + ns;
    while (!level(cluster) && cluster->now_ns < end) cluster_run(cluster, 5 * CLUSTER_MS);
    return level(cluster);
}

/* --- members -------------------------------------------------------------------------------------------------- */

int cluster_transfer(struct cluster *cluster, unsigned i, const char *target)
{
    struct member *m = &cluster->members[i];
    cluster->transfer_result = 1;
    m->due[NODE_LOOP] = true;
    return node_transfer(m->node, target, 0);
}

int cluster_transfer_result(const struct cluster *cluster)
{
    return cluster->transfer_result;
}

int cluster_change(struct cluster *cluster, unsigned i, const struct node_change_request *request)
{
    struct member *m = &cluster->members[i];
    lk_assert(cluster->change_count < CHANGES_MAX);
    int number = (int)cluster->change_count;
    cluster->changes[number] = (struct cluster_change){.node = i};
    if (m->node == NULL) return LOCKSTEP_EUNREACHABLE;
    int rc = node_change_members(m->node, request, (uint64_t)number);
    m->due[NODE_LOOP] = true;
    if (rc != 0) return rc;
    cluster->change_count++;
    return number;
}

int cluster_change_kind(struct cluster *cluster, unsigned i, enum node_change_kind kind, unsigned member, uint64_t ns)
{
    struct node_change_request request = {.kind = kind, .timeout_ns = ns};
    struct node_member_options options;
    member_describe(&options, member);
    memcpy(request.name, options.name, sizeof request.name);
    if (kind == NODE_CHANGE_REPLACE) memcpy(request.old_name, options.name, sizeof request.old_name);
    if (kind == NODE_CHANGE_ADD) {
        memcpy(request.client, options.client, sizeof request.client);
        memcpy(request.peer, options.peer, sizeof request.peer);
    }
    return cluster_change(cluster, i, &request);
}

const struct cluster_change *cluster_change_result(const struct cluster *cluster, int number)
{
    return &cluster->changes[number];
}

int cluster_change_wait(struct cluster *cluster, int number, uint64_t ns)
{
    uint64_t end = cluster->now_ns + ns;
    if (number < 0) return number;
    while (!cluster->changes[number].done && cluster->now_ns < end) cluster_run(cluster, CLUSTER_MS);
    return cluster->changes[number].done ? cluster->changes[number].result.error : LOCKSTEP_ETIMEDOUT;
}

/* --- load ----------------------------------------------------------------------------------------------------- */

static struct cluster_proposal *proposal_add(struct cluster *cluster)
{
    if (cluster->proposal_count == cluster->proposal_room) {
        cluster->proposal_room = cluster->proposal_room == 0 ? 1024 : 2 * cluster->proposal_room;
        cluster->proposals = realloc(cluster->proposals, cluster->proposal_room * sizeof *cluster->proposals);
        lk_assert(cluster->proposals != NULL);
    }
    struct cluster_proposal *p = &cluster->proposals[cluster->proposal_count];
    *p = (struct cluster_proposal){.number = cluster->proposal_count++};
    return p;
}

static uint32_t propose(struct cluster *cluster, struct cluster_proposal *p, unsigned i, bool may_forward)
{
    uint32_t tag = (uint32_t)(p - cluster->proposals);
    struct node_command command = p->command;
    uint64_t wide = p->number;
    uint8_t *payload = calloc(1, cluster->options.payload_bytes);
    lk_assert(payload != NULL);
    memcpy(payload, &wide, sizeof wide);
    command.payload = payload;
    command.payload_bytes = command.kind == COMMAND_MACHINE ? cluster->options.payload_bytes : 0;
    p->state = PROPOSAL_WAITING;
    p->node = (uint8_t)i;
    int rc = LOCKSTEP_EUNAVAILABLE;
    struct member *m = &cluster->members[i];
    if (m->node != NULL && !m->paused) {
        rc = node_propose(m->node, &command, may_forward, tag);
        m->due[NODE_LOOP] = true;
    }
    if (rc != 0) {
        p->state = PROPOSAL_NOT_APPENDED;
        p->error = rc;
    }
    free(payload);
    return tag;
}

uint32_t cluster_propose(struct cluster *cluster, unsigned i, bool may_forward)
{
    return propose(cluster, proposal_add(cluster), i, may_forward);
}

uint32_t cluster_propose_in(struct cluster *cluster, unsigned i, bool may_forward, uint64_t session, uint64_t seq)
{
    struct cluster_proposal *p = proposal_add(cluster);
    p->command.session = session;
    p->command.seq = seq;
    return propose(cluster, p, i, may_forward);
}

uint32_t cluster_propose_kind(struct cluster *cluster, unsigned i, enum command_kind kind, uint64_t session)
{
    struct cluster_proposal *p = proposal_add(cluster);
    p->command.kind = (uint16_t)kind;
    p->command.session = session;
    return propose(cluster, p, i, false);
}

uint32_t cluster_propose_again(struct cluster *cluster, uint32_t number, unsigned i, bool may_forward)
{
    struct cluster_proposal *p = proposal_add(cluster);
    p->command = cluster->proposals[number].command;
    p->number = cluster->proposals[number].number;
    return propose(cluster, p, i, may_forward);
}

uint32_t cluster_proposal_count(const struct cluster *cluster)
{
    return cluster->proposal_count;
}

const struct cluster_proposal *cluster_proposal(const struct cluster *cluster, uint32_t number)
{
    lk_assert(number < cluster->proposal_count);
    return &cluster->proposals[number];
}

static uint32_t ask(struct cluster *cluster, unsigned i, const struct node_query *query, bool may_forward)
{
    if (cluster->query_count == cluster->query_room) {
        cluster->query_room = cluster->query_room == 0 ? 1024 : 2 * cluster->query_room;
        cluster->queries = realloc(cluster->queries, cluster->query_room * sizeof *cluster->queries);
        lk_assert(cluster->queries != NULL);
    }
    uint32_t number = cluster->query_count++;
    cluster->queries[number] = (struct cluster_query){.of_command = query->session != 0};
    struct member *m = &cluster->members[i];
    int rc = m->node != NULL ? node_query(m->node, query, may_forward, number) : LOCKSTEP_EUNAVAILABLE;
    m->due[NODE_LOOP] = true;
    if (rc != 0) cluster->queries[number] = (struct cluster_query){.done = true, .error = rc};
    return number;
}

uint32_t cluster_query(struct cluster *cluster, unsigned i, enum node_consistency consistency, bool may_forward)
{
    return ask(cluster, i, &(struct node_query){.consistency = consistency}, may_forward);
}

uint32_t cluster_query_with(struct cluster *cluster, unsigned i, const struct node_query *query, bool may_forward)
{
    return ask(cluster, i, query, may_forward);
}

uint32_t cluster_query_outcome(struct cluster *cluster, unsigned i, uint32_t number)
{
    const struct node_command *command = &cluster->proposals[number].command;
    return ask(cluster, i, &(struct node_query){.session = command->session, .seq = command->seq}, true);
}

const struct cluster_query *cluster_query_result(const struct cluster *cluster, uint32_t query)
{
    lk_assert(query < cluster->query_count);
    return &cluster->queries[query];
}

uint64_t cluster_applied_count(const struct cluster *cluster, unsigned i)
{
    return replica_of(cluster, i)->count;
}

uint32_t cluster_applied(const struct cluster *cluster, unsigned i, log_position position)
{
    lk_assert(position >= 1 && position <= replica_of(cluster, i)->count);
    return replica_of(cluster, i)->numbers[position - 1];
}

/* --- what must hold ------------------------------------------------------------------------------------------- */

static void check_leaders(struct cluster *cluster)
{
    for (unsigned i = 0; i < cluster->options.nodes; i++) {
        if (cluster->members[i].node == NULL) continue;
        struct node_status status;
        node_status_read(cluster->members[i].node, &status);
        if (!status.born || status.raft.role != RAFT_LEADER) continue;
        raft_term term = status.raft.term;
        if (cluster->options.level == DURABILITY_LEVEL_MEMORY &&
            cluster->cluster_id != status.identity.birth.cluster_id &&
            cluster->terms_room > 0) /* all were started anew: another cluster, with terms of its own */
            memset(cluster->leader_of_term, 0, cluster->terms_room * sizeof *cluster->leader_of_term);
        cluster->cluster_id = status.identity.birth.cluster_id;
        if (term >= cluster->terms_room) {
            uint64_t room = 2 * term + 16;
            cluster->leader_of_term = realloc(cluster->leader_of_term, room * sizeof *cluster->leader_of_term);
            lk_assert(cluster->leader_of_term != NULL);
            memset(cluster->leader_of_term + cluster->terms_room, 0,
                   (room - cluster->terms_room) * sizeof *cluster->leader_of_term);
            cluster->terms_room = room;
        }
        uint64_t id = status.identity.member_id;
        if (cluster->leader_of_term[term] != 0 && cluster->leader_of_term[term] != id)
            violated(cluster, "two leaders in one term");
        cluster->leader_of_term[term] = id;
    }
}

void cluster_check(struct cluster *cluster)
{
    const struct replica *longest = replica_of(cluster, 0);
    check_leaders(cluster);
    for (unsigned i = 1; i < cluster->options.nodes; i++)
        if (replica_of(cluster, i)->count > longest->count) longest = replica_of(cluster, i);
    for (unsigned i = 0; i < cluster->options.nodes; i++) {
        const struct replica *replica = replica_of(cluster, i);
        if (replica->count > 0 &&
            memcmp(replica->numbers, longest->numbers, replica->count * sizeof *replica->numbers) != 0)
            violated(cluster, "two replicas applied different commands at one position");
    }
    /* By command, for it may have been proposed more than once: was it applied, and may it have been? */
    uint8_t *seen = calloc(cluster->proposal_count + 1, 1), *may = calloc(cluster->proposal_count + 1, 1);
    lk_assert(seen != NULL && may != NULL);
    for (uint32_t i = 0; i < cluster->proposal_count; i++)
        if (cluster->proposals[i].state != PROPOSAL_NOT_APPENDED) may[cluster->proposals[i].number] = 1;
    for (uint64_t k = 0; k < longest->count; k++) {
        uint32_t number = longest->numbers[k];
        if (number == CLUSTER_NOTHING) continue;
        if (number >= cluster->proposal_count || seen[number])
            violated(cluster, "a command was applied twice, or made up");
        seen[number] = 1;
        if (!may[number]) violated(cluster, "a command was applied that was said to be surely not appended");
    }
    for (uint32_t i = 0; i < cluster->proposal_count; i++) {
        const struct cluster_proposal *p = &cluster->proposals[i];
        if (p->state != PROPOSAL_APPLIED || p->command.kind != COMMAND_MACHINE) continue;
        /* A replica that restarted may not have replayed it yet: what the longest has not reached is looked at later. */
        if (p->position <= longest->count && longest->numbers[p->position - 1] != p->number)
            violated(cluster, "an acknowledged command is not at its position");
    }
    free(may);
    free(seen);
}
