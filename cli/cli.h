/* SPDX-License-Identifier: Apache-2.0 */
/* cli.h - what the commands of the program share: the table that they stand in, their arguments, exit codes, errors.
 * One file a command; each defines one `const struct command command_NAME`, and main.c lists them. Help, the check of
 * arguments and the suggestion for a mistyped word come from that table alone.
 * Thread: main. */
#ifndef LOCKSTEP_CLI_CLI_H
#define LOCKSTEP_CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lockstep/client.h"

enum {
    EXIT_OK = 0,
    EXIT_FAILED = 1,
    EXIT_USAGE = 2,       /* the command line or a file that it names; nothing was tried */
    EXIT_NOT_READY = 3,   /* reachable, but without a leader, starting, draining or full */
    EXIT_UNREACHABLE = 4, /* no endpoint answers */
    EXIT_REFUSED = 5,     /* by a precondition: the machine's, or the cluster's */
    EXIT_UNKNOWN = 6,     /* the outcome is unknown: it may have happened */
    EXIT_DIVERGED = 7,    /* damage, or nodes whose states differ */
};

enum { CLI_FLAGS_MAX = 16, CLI_OVERRIDES_MAX = 64 };

struct cli_flag {
    const char *name;  /* without the dashes; NULL ends a list */
    const char *value; /* what stands for the value in help; NULL = a switch */
    const char *text;
};

/* A setting of the file given as --TABLE.KEY VALUE, for commands that take them. */
struct cli_override {
    const char *key, *value;
};

struct cli {
    const struct command *command;
    const char *program;               /* as it was called, for lines that a person may copy */
    bool json;                         /* -o json */
    bool terminal;                     /* standard output is one */
    const char *to;                    /* NULL = not given */
    uint32_t timeout_ms;               /* 0 = not given */
    bool no_session;                   /* the client sends nothing twice, and opens no session */
    const char *values[CLI_FLAGS_MAX]; /* by place in command->flags; a switch that was given has "" */
    const char *const *words;          /* what is no flag */
    int word_count;
    struct cli_override overrides[CLI_OVERRIDES_MAX];
    int override_count;
};

struct command {
    const char *name;  /* one or two words */
    const char *words; /* what stands for them in help; "" = takes none */
    int words_min, words_max;
    const char *text;             /* one line */
    const char *details;          /* NULL, or paragraphs for `help NAME`, ending in a newline */
    bool talks;                   /* takes --to and --timeout */
    bool overrides;               /* takes --TABLE.KEY VALUE */
    const struct cli_flag *flags; /* NULL = none */
    int (*run)(struct cli *cli);  /* returns the exit code */
};

extern const struct command command_serve, command_local, command_status, command_propose, command_query, command_tail,
    command_leader_transfer, command_member_add, command_member_promote, command_member_remove, command_member_replace,
    command_log_inspect, command_log_verify, command_snapshot_list, command_snapshot_verify, command_backup_create,
    command_backup_verify, command_backup_restore, command_recover, command_bench, command_demo, command_version,
    command_help;
/* All of them, in the order of help; NULL ends it. */
extern const struct command *const cli_commands[];

/* --- errors --- */

/* `lockstep: what: why; what to do` on standard error, and with -o json an object {"error", "text", "exit"} on standard
 * output. advice  NULL or "" = none. ret  code */
int cli_fail(const struct cli *cli, int code, const char *what, const char *advice, const char *why, ...)
    __attribute__((format(printf, 5, 6)));
/* What the library says about a failed operation, with the exit code and the advice that belong to it. */
int cli_fail_result(const struct cli *cli, const char *what, const struct lockstep_result *result);
int cli_exit_of(const struct lockstep_result *result);
/* "EUNKNOWN" for LOCKSTEP_EUNKNOWN: stable names for scripts. */
const char *cli_error_name(int error);

/* --- arguments --- */

/* Numbers, sizes and durations of flags: the value, or *ret untouched if the flag was not given.
 * ret  EXIT_OK, or EXIT_USAGE with the error written */
int cli_number(const struct cli *cli, int flag, uint64_t min, uint64_t max, uint64_t *ret);
int cli_bytes(const struct cli *cli, int flag, uint64_t min, uint64_t max, uint64_t *ret);
int cli_duration(const struct cli *cli, int flag, uint64_t min_ns, uint64_t max_ns, uint64_t *ret_ns);

/* All words, joined by one space. From malloc; the caller frees it. */
char *cli_join_words(const struct cli *cli);

/* The index of the entry that was probably meant, or -1: nothing is near enough. */
int cli_nearest(const char *word, const char *const *names, int count);

/* Help for one command, or for all (NULL), on standard output. */
void cli_help(const struct cli *cli, const struct command *command);

/* --- talking to a cluster --- */

/* A client for --to. ret  EXIT_OK, or the exit code with the error written */
int cli_connect(const struct cli *cli, struct lockstep_client **ret);
/* Poll until all operations have ended. Says on standard error what is wrong, once, when that takes over 900 ms. */
void cli_wait(const struct cli *cli, struct lockstep_client *client);

/* Time that only grows. */
uint64_t cli_now_ns(void);

#endif
