/* SPDX-License-Identifier: Apache-2.0 */
/* scenario.c - drives several cores by a small text language and prints everything visible.
 *   scenario FILE...            compare each transcript with what happens now; 1 if one differs
 *   scenario --rewrite FILE...  write what happens now, to be reviewed as a diff
 * A transcript has lines `# comment`, `> command` and, below each command, what it made visible. The words of a command:
 *
 *   cores N [learners L] [outside M]   N cores, the last L learn, or the last M are no members yet; not started
 *   lay ID TERMS [commit C] [term T] [vote V]   durable log of a core not started: "1 1 2", or "1x3 2"
 *   start [ID]                      all, or one (again, after a crash)
 *   first-block on|off              whether new leaders propose by themselves
 *   option NAME VALUE               inflight, append, uncommitted: bytes; lease: ms; before start
 *   timeout ID                      time moves to the core's deadline, and it is told
 *   pass MS                         time passes; cores whose deadline comes are told
 *   deliver [A>B] [TYPE] [N]        what is on its way now and matches, in order, at most N
 *   drop [A>B] [TYPE] [N]           the same, lost
 *   repeat [A>B] [TYPE] [N]         the same, delivered and still on its way
 *   disk ID [N]                     the oldest N persists are durable; all if not given
 *   load ID                         blocks asked for are read
 *   settle                          deliver and complete until nothing is on its way
 *   run MS                          time passes, everything settles at once
 *   cut A>B | heal                  what is sent from A to B is lost; all links work again
 *   elect ID                        quietly: the core times out and wins, all settled
 *   propose ID [N] [BYTES]          N blocks, in one turn
 *   read ID | transfer ID TARGET | crash ID [PERSISTS DONE] | room ID BYTES | ring ID FIRST | fail-disk ID
 *   contact ID LEADER TERM          the header of a large append came
 *   hangup ID FROM                  the connection from FROM has ended
 *   stand-back ID on|off            it can apply no more, or again (M5)
 *   change ID LETTERS [forced]      to a letter for each core: V voter, L learner, - no member
 *   leave at-once|later | leave ID  whether leaders leave joint configurations by themselves; it does so now
 *   compact ID INDEX                the log up to there is only in a snapshot
 *   piece ID [unreadable] | install ID   the piece asked for is read; a complete snapshot goes one step on
 *   inject A>B TYPE TERM [...]      APPEND PREV/TERM TERMS commit C; HEARTBEAT MATCH/TERM commit C; VOTE, PREVOTE LAST/TERM;
 *                                   INSTALL INDEX/TERM, a first piece; ACK DURABLE; TIMEOUT_NOW
 *   state | network                 show it
 *   quiet COMMAND                   the same, showing nothing */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "lockstep/errors.h"
#include "tests/scenario/show.h"
#include "tests/unit/raft/cluster.h"

static const uint64_t MS = 1000000;

static FILE *out;
static struct cluster *c;
static bool quiet;
static const char *where; /* file:line, for errors in a transcript */

_Noreturn static void wrong(const char *what)
{
    fprintf(stderr, "%s: %s\n", where, what);
    exit(2);
}

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *format, ...)
{
    if (quiet) return;
    va_list arguments;
    va_start(arguments, format);
    vfprintf(out, format, arguments);
    va_end(arguments);
}

#define U PRIu64

/* ---- showing ---- */

static void say_message(const struct raft_message *m)
{
    if (!quiet) show_message(out, m);
}

static struct show_before shown[CLUSTER_CORES_MAX + 1];

static void watch(struct cluster_core *core, const struct raft_result *result, const struct raft_effects *fx)
{
    show_step(quiet ? NULL : out, core->id, core->raft, result, fx, &shown[core->id]);
}

static void show_terms(const struct cluster_block *log, raft_index last)
{
    if (last == 0) say(" empty");
    for (raft_index i = 1; i <= last;) {
        raft_index first = i;
        while (i <= last && log[i].term == log[first].term) i++;
        say(" %" U "x%" U, log[first].term, i - first);
    }
}

static void show_state(void)
{
    static const char *const states[] = {[RAFT_PROGRESS_PROBE] = "probe",
                                         [RAFT_PROGRESS_REPLICATE] = "replicate",
                                         [RAFT_PROGRESS_SNAPSHOT] = "snapshot"};
    for (uint32_t i = 0; i < c->count; i++) {
        const struct cluster_core *core = &c->cores[i];
        if (!core->up) {
            say("  %" U " down, term %" U " vote %" U ", durable log", core->id, core->disk_hard.term,
                core->disk_hard.vote);
            show_terms(core->disk, core->disk_last);
            say("\n");
            continue;
        }
        struct raft_status s = cluster_status(c, core->id);
        say("  %" U " %s term %" U " vote %" U " leader %" U ", last %" U " commit %" U " durable %" U " validated %" U
            "%s%s, log",
            core->id, show_role(s.role), s.term, s.vote, s.leader, s.last_index, s.commit, s.durable_index,
            s.validated_index, s.writable ? ", writable" : "", s.transferring ? ", transferring" : "");
        show_terms(core->log, core->last);
        say("\n");
        struct raft_configuration in_force;
        raft_configuration_read(core->raft, false, &in_force);
        if (s.configuration_index != 0 || s.joint) {
            say("    goes by ");
            if (!quiet) show_configuration(out, &in_force);
            say(" of block %" U "\n", s.configuration_index);
        }
        for (uint32_t k = 0; k < s.peer_count; k++)
            say("    peer %" U " %s, match %" U " next %" U ", in flight %u appends, %" U " bytes\n", s.peers[k].id,
                states[s.peers[k].state], s.peers[k].match, s.peers[k].next, s.peers[k].inflight_appends,
                s.peers[k].inflight_bytes);
    }
}

/* ---- the language ---- */

enum { WORDS_MAX = 64 };
static char *words[WORDS_MAX];
static uint32_t word_count, at;

static const char *next_word(void)
{
    if (at == word_count) wrong("a word is missing");
    return words[at++];
}

static bool is_next(const char *word)
{
    if (at == word_count || strcmp(words[at], word) != 0) return false;
    at++;
    return true;
}

static uint64_t number_of(const char *text)
{
    char *end;
    uint64_t number = strtoull(text, &end, 10);
    if (end == text || *end != '\0') wrong("this is no number");
    return number;
}

static uint64_t next_number(void)
{
    return number_of(next_word());
}

static bool is_number_next(void)
{
    return at < word_count && words[at][0] >= '0' && words[at][0] <= '9' && strchr(words[at], '>') == NULL;
}

static uint64_t number_or(uint64_t usual)
{
    return is_number_next() ? next_number() : usual;
}

static struct cluster_core *next_core(void)
{
    uint64_t id = next_number();
    if (c == NULL || id < 1 || id > c->count) wrong("there is no such core");
    return cluster_core(c, id);
}

static struct cluster_core *next_running_core(void)
{
    struct cluster_core *core = next_core();
    if (!core->up) wrong("this core does not run");
    return core;
}

/* "A/B" */
static void next_pair(char separator, uint64_t *ret_a, uint64_t *ret_b)
{
    char *text = words[at < word_count ? at : 0], *middle = strchr(text, separator);
    (void)next_word();
    if (middle == NULL) wrong("two numbers are missing");
    *middle = '\0';
    *ret_a = number_of(text);
    *ret_b = number_of(middle + 1);
}

/* "1 1 2" or "1x2 2", as long as there are numbers. */
static uint32_t next_terms(raft_term *ret)
{
    uint32_t count = 0;
    while (is_number_next()) {
        uint64_t term, times = 1;
        if (strchr(words[at], 'x') != NULL)
            next_pair('x', &term, &times);
        else
            term = next_number();
        for (; times > 0 && count < CLUSTER_BLOCKS_MAX; times--) ret[count++] = term;
    }
    return count;
}

static uint8_t type_of(const char *name)
{
    for (uint8_t type = 1; type < RAFT_MESSAGE_TYPES; type++)
        if (strcmp(show_type(type), name) == 0) return type;
    return 0;
}

/* deliver, drop, repeat: [A>B] [TYPE] [N] */
static void on_network(const char *verb)
{
    uint64_t from = 0, to = 0, most = UINT64_MAX;
    uint8_t type = 0;
    while (at < word_count) {
        if (strchr(words[at], '>') != NULL)
            next_pair('>', &from, &to);
        else if (is_number_next())
            most = next_number();
        else if ((type = type_of(next_word())) == 0)
            wrong("there is no such message");
    }
    uint32_t present = c->message_count;
    for (uint32_t i = 0; present > 0 && most > 0; present--) {
        const struct raft_message *m = &c->messages[i]->message;
        if ((from != 0 && (m->from != from || m->to != to)) || (type != 0 && m->type != type)) {
            i++;
            continue;
        }
        most--;
        say("%s %" U ">%" U " ", verb, m->from, m->to);
        say_message(m);
        if (strcmp(verb, "drop") == 0)
            cluster_drop(c, i);
        else
            cluster_deliver(c, i, strcmp(verb, "repeat") == 0, false);
        if (strcmp(verb, "repeat") == 0) i++;
    }
}

static void inject(void)
{
    uint64_t from, to;
    static struct raft_entry entries[CLUSTER_ENTRIES_MAX];
    uint32_t count = 0;
    next_pair('>', &from, &to);
    struct raft_message m = {.from = from, .to = to, .type = type_of(next_word())};
    m.term = next_number();
    switch ((enum raft_message_type)m.type) {
    case RAFT_APPEND: {
        static raft_term terms[CLUSTER_BLOCKS_MAX];
        next_pair('/', &m.as.append.previous_index, &m.as.append.previous_term);
        count = next_terms(terms);
        if (count > CLUSTER_ENTRIES_MAX) wrong("too many blocks");
        m.as.append.last_index = m.as.append.previous_index + count;
        for (uint32_t i = 0; i < count; i++)
            entries[i] = (struct raft_entry){m.as.append.previous_index + 1 + i, terms[i], 100, NULL};
        if (is_next("commit")) m.as.append.commit = next_number();
        break;
    }
    case RAFT_HEARTBEAT:
        next_pair('/', &m.as.heartbeat.match_index, &m.as.heartbeat.match_term);
        if (is_next("commit")) m.as.heartbeat.commit = next_number();
        break;
    case RAFT_VOTE:
    case RAFT_PREVOTE:
        next_pair('/', &m.as.vote.last_index, &m.as.vote.last_term);
        m.as.vote.campaign_term = m.term + (m.type == RAFT_PREVOTE);
        m.as.vote.transfer = is_next("transfer");
        break;
    case RAFT_INSTALL:
        next_pair('/', &m.as.install.snapshot.index, &m.as.install.snapshot.term);
        m.as.install.snapshot.bytes = CLUSTER_SNAPSHOT_PIECES;
        break;
    case RAFT_ACK: m.as.ack.durable_index = m.as.ack.validated_index = next_number(); break;
    case RAFT_TIMEOUT_NOW: break;
    default: wrong("this message cannot be injected");
    }
    cluster_inject(cluster_core(c, to), &m, entries, count);
}

static void lay(void)
{
    static raft_term terms[CLUSTER_BLOCKS_MAX];
    struct cluster_core *core = next_core();
    uint32_t count = next_terms(terms);
    raft_index commit = is_next("commit") ? next_number() : 0;
    struct raft_hard_state hard = {.term = count > 0 ? terms[count - 1] : 0};
    if (is_next("term")) hard.term = next_number();
    if (is_next("vote")) hard.vote = next_number();
    cluster_lay_log(c, core->id, terms, count, commit, hard);
    for (raft_index i = c->committed_last + 1; i <= commit; i++) c->committed[c->committed_last = i] = core->disk[i];
}

static void option(void)
{
    const char *name = next_word();
    uint64_t value = next_number();
    if (strcmp(name, "inflight") == 0)
        c->options.append_inflight_bytes_max = value;
    else if (strcmp(name, "append") == 0)
        c->options.append_bytes_max = value;
    else if (strcmp(name, "uncommitted") == 0)
        c->options.uncommitted_bytes_max = value;
    else if (strcmp(name, "lease") == 0)
        c->options.lease_ns = value * MS;
    else
        wrong("there is no such option");
}

static void propose(void)
{
    struct cluster_core *core = next_running_core();
    uint64_t count = number_or(1), bytes = number_or(100);
    for (uint64_t i = 0; i < count; i++) {
        int rc = cluster_propose(core, (uint32_t)bytes, true);
        if (rc != 0) say("  %" U " refuses: %s\n", core->id, lockstep_error_text(rc));
    }
    cluster_take(core);
}

static void change(void)
{
    static const char *const answers[] = {
        [RAFT_CHANGE_NOT_LEADER] = "it does not lead",
        [RAFT_CHANGE_NOT_YET] = "not yet",
        [RAFT_CHANGE_RUNS] = "another change runs",
        [RAFT_CHANGE_SAME] = "it is so already",
        [RAFT_CHANGE_INVALID] = "no such configuration can be",
        [RAFT_CHANGE_NO_LEARNER] = "who would vote is no learner",
        [RAFT_CHANGE_LAGS] = "who would vote is silent or behind",
        [RAFT_CHANGE_LOSES_QUORUM] = "the quorum would be lost",
    };
    struct cluster_core *core = next_running_core();
    const char *letters = next_word();
    struct raft_configuration target = {0};
    for (uint32_t i = 0; letters[i] != '\0'; i++) {
        if (i == c->count || strchr("VL-", letters[i]) == NULL) wrong("a letter for each core: V, L or -");
        if (letters[i] == '-') continue;
        target.members[target.count].id = i + 1;
        target.members[target.count++].role = letters[i] == 'V' ? RAFT_VOTER : RAFT_LEARNER;
    }
    enum raft_change may = cluster_change(core, &target, is_next("forced"));
    if (may != RAFT_CHANGE_MAY) say("  %" U " refuses: %s\n", core->id, answers[may]);
}

static void leave(void)
{
    if (is_next("at-once"))
        c->leave_at_once = true;
    else if (is_next("later"))
        c->leave_at_once = false;
    else
        cluster_leave_joint(next_running_core());
}

static void start(struct cluster_core *core)
{
    if (core->up) wrong("this core runs");
    shown[core->id] = (struct show_before){.commit = core->disk_commit};
    cluster_start(c, core->id);
}

static void run_command(void)
{
    quiet = is_next("quiet");
    const char *verb = next_word();
    if (strcmp(verb, "cores") == 0) {
        uint64_t count = next_number();
        cluster_close(c);
        c = cluster_open((uint32_t)count, is_next("learners") ? (uint32_t)next_number() : 0, 1);
        if (is_next("outside")) cluster_leave_out(c, (uint32_t)next_number());
        c->watch = watch;
        memset(shown, 0, sizeof shown);
    } else if (c == NULL) {
        wrong("`cores` comes first");
    } else if (strcmp(verb, "lay") == 0) {
        lay();
    } else if (strcmp(verb, "option") == 0) {
        option();
    } else if (strcmp(verb, "first-block") == 0) {
        c->propose_at_once = is_next("on");
        if (!c->propose_at_once && !is_next("off")) wrong("on or off?");
    } else if (strcmp(verb, "start") == 0) {
        if (is_number_next())
            start(next_core());
        else
            for (uint32_t i = 0; i < c->count; i++) start(&c->cores[i]);
    } else if (strcmp(verb, "timeout") == 0) {
        struct cluster_core *core = next_running_core();
        if (c->now_ns < core->deadline_ns) c->now_ns = core->deadline_ns;
        cluster_time(core);
    } else if (strcmp(verb, "pass") == 0) {
        cluster_pass(c, next_number() * MS, false);
    } else if (strcmp(verb, "deliver") == 0 || strcmp(verb, "drop") == 0 || strcmp(verb, "repeat") == 0) {
        on_network(verb);
    } else if (strcmp(verb, "disk") == 0) {
        struct cluster_core *core = next_running_core();
        for (uint64_t n = number_or(UINT64_MAX); n > 0 && core->pending_count > 0; n--) cluster_disk_done(core, false);
    } else if (strcmp(verb, "load") == 0) {
        if (!cluster_load_done(next_running_core(), true, false)) wrong("nothing was asked for");
    } else if (strcmp(verb, "settle") == 0) {
        cluster_settle(c);
    } else if (strcmp(verb, "run") == 0) {
        cluster_pass(c, next_number() * MS, true);
    } else if (strcmp(verb, "cut") == 0) {
        uint64_t from, to;
        next_pair('>', &from, &to);
        if (from < 1 || from > c->count || to < 1 || to > c->count) wrong("there is no such link");
        c->cut[from - 1][to - 1] = true;
    } else if (strcmp(verb, "heal") == 0) {
        memset(c->cut, 0, sizeof c->cut);
    } else if (strcmp(verb, "elect") == 0) {
        quiet = true;
        cluster_elect(c, next_running_core()->id);
    } else if (strcmp(verb, "propose") == 0) {
        propose();
    } else if (strcmp(verb, "read") == 0) {
        uint64_t ticket;
        int rc = cluster_read(next_running_core(), &ticket);
        say(rc == 0 ? "  ticket %" U "\n" : "  refused\n", ticket);
    } else if (strcmp(verb, "transfer") == 0) {
        struct cluster_core *core = next_running_core();
        cluster_transfer(core, next_number());
    } else if (strcmp(verb, "crash") == 0) {
        struct cluster_core *core = next_running_core();
        cluster_crash(c, core->id, (uint32_t)number_or(0));
    } else if (strcmp(verb, "room") == 0) {
        struct cluster_core *core = next_core();
        core->room_bytes = next_number();
    } else if (strcmp(verb, "ring") == 0) {
        struct cluster_core *core = next_running_core();
        core->ring_first = next_number();
    } else if (strcmp(verb, "fail-disk") == 0) {
        cluster_step(next_running_core(), &(struct raft_event){.type = RAFT_EVENT_DISK_FAILED}, false);
    } else if (strcmp(verb, "contact") == 0) {
        struct cluster_core *core = next_running_core();
        struct raft_event event = {.type = RAFT_EVENT_CONTACT};
        event.as.contact.from = next_number();
        event.as.contact.term = next_number();
        cluster_step(core, &event, false);
    } else if (strcmp(verb, "hangup") == 0) {
        struct cluster_core *core = next_running_core();
        struct raft_event event = {.type = RAFT_EVENT_HANGUP, .as.hangup = {.from = next_number()}};
        cluster_step(core, &event, false);
    } else if (strcmp(verb, "stand-back") == 0) {
        struct cluster_core *core = next_running_core();
        struct raft_event event = {.type = RAFT_EVENT_STAND_BACK, .as.stand_back = {.stands_back = is_next("on")}};
        if (!event.as.stand_back.stands_back && !is_next("off")) wrong("on or off?");
        cluster_step(core, &event, false);
    } else if (strcmp(verb, "change") == 0) {
        change();
    } else if (strcmp(verb, "leave") == 0) {
        leave();
    } else if (strcmp(verb, "compact") == 0) {
        struct cluster_core *core = next_running_core();
        cluster_compact(core, next_number());
    } else if (strcmp(verb, "piece") == 0) {
        struct cluster_core *core = next_running_core();
        if (!cluster_piece_done(core, !is_next("unreadable"), false)) wrong("nothing was asked for");
    } else if (strcmp(verb, "install") == 0) {
        if (!cluster_install_step(next_running_core(), false)) wrong("there is no complete snapshot");
    } else if (strcmp(verb, "inject") == 0) {
        inject();
    } else if (strcmp(verb, "state") == 0) {
        show_state();
    } else if (strcmp(verb, "network") == 0) {
        for (uint32_t i = 0; i < c->message_count; i++) {
            say("  %" U ">%" U " ", c->messages[i]->message.from, c->messages[i]->message.to);
            say_message(&c->messages[i]->message);
        }
    } else {
        wrong("there is no such command");
    }
    quiet = false;
    if (at != word_count) wrong("too many words");
}

static char *read_file(const char *path)
{
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        perror(path);
        exit(2);
    }
    char *text = NULL;
    size_t bytes = 0;
    if (getdelim(&text, &bytes, '\0', file) < 0) text = calloc(1, 1);
    lk_assert(text != NULL);
    fclose(file);
    return text;
}

/* Run the commands of a transcript; returns the transcript as it would be now. */
static char *run(const char *path, const char *text)
{
    char *now = NULL;
    size_t now_bytes = 0;
    out = open_memstream(&now, &now_bytes);
    lk_assert(out != NULL);
    unsigned line_number = 0;
    for (const char *line = text; *line != '\0';) {
        size_t length = strcspn(line, "\n");
        char place[512], copy[512];
        line_number++;
        snprintf(place, sizeof place, "%s:%u", path, line_number);
        where = place;
        if (line[0] == '#' || line[0] == '>' || length == 0) fprintf(out, "%.*s\n", (int)length, line);
        if (line[0] == '>') {
            snprintf(copy, sizeof copy, "%.*s", (int)length - 1, line + 1);
            word_count = at = 0;
            for (char *word = strtok(copy, " "); word != NULL && word_count < WORDS_MAX; word = strtok(NULL, " "))
                words[word_count++] = word;
            run_command();
        }
        line += length + (line[length] == '\n');
    }
    fclose(out);
    cluster_close(c);
    c = NULL;
    return now;
}

static bool compare(const char *path, const char *expected, const char *now)
{
    unsigned line_number = 1;
    while (*expected != '\0' || *now != '\0') {
        size_t a = strcspn(expected, "\n"), b = strcspn(now, "\n");
        if (a != b || memcmp(expected, now, a) != 0) {
            printf("%s:%u: expected: %.*s\n%s:%u:      now: %.*s\n", path, line_number, (int)a, expected, path,
                   line_number, (int)b, now);
            return false;
        }
        expected += a + (expected[a] == '\n');
        now += b + (now[b] == '\n');
        line_number++;
    }
    return true;
}

int main(int argc, char **argv)
{
    bool rewrite = argc > 1 && strcmp(argv[1], "--rewrite") == 0;
    int failed = 0;
    if (argc == 1 + rewrite) {
        fprintf(stderr, "scenario [--rewrite] FILE...\n");
        return 2;
    }
    for (int i = 1 + rewrite; i < argc; i++) {
        char *expected = read_file(argv[i]);
        char *now = run(argv[i], expected);
        if (rewrite) {
            FILE *file = fopen(argv[i], "w");
            lk_assert(file != NULL);
            fputs(now, file);
            fclose(file);
        } else if (!compare(argv[i], expected, now)) {
            failed++;
        }
        free(expected);
        free(now);
    }
    printf("%d transcripts, %d differ\n", argc - 1 - rewrite, failed);
    return failed == 0 ? 0 : 1;
}
