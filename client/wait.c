/* SPDX-License-Identifier: Apache-2.0 */
/* wait.c - the wrappers that wait: start one operation, poll until it has ended, keep what it said.
 * Thread: the owner's. Owns: the copies in client->kept, until the next call on the client. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "client/internal.h"

struct waiter {
    struct lockstep_client *client;
    struct lockstep_result *result;
    struct lockstep_status *status;
    bool ended;
};

static void keep(struct waiter *waiter, const struct lockstep_result *result)
{
    struct lockstep_client *client = waiter->client;
    *waiter->result = *result;
    waiter->ended = true;
    snprintf(client->kept.endpoint, sizeof client->kept.endpoint, "%s", result->endpoint);
    snprintf(client->kept.text, sizeof client->kept.text, "%s", result->text);
    waiter->result->endpoint = client->kept.endpoint;
    waiter->result->text = client->kept.text;
    waiter->result->reply = client->kept.reply;
    waiter->result->reply_bytes = 0;
    if (result->reply_bytes == 0) return;
    if (result->reply_bytes > client->kept.reply_room) {
        uint8_t *reply = realloc(client->kept.reply, result->reply_bytes);
        if (reply == NULL) {
            /* Applied all the same: the fate stays, only the reply is lost. */
            waiter->result->error = LOCKSTEP_ENOMEM;
            return;
        }
        client->kept.reply = reply;
        client->kept.reply_room = result->reply_bytes;
    }
    memcpy(client->kept.reply, result->reply, result->reply_bytes);
    waiter->result->reply = client->kept.reply;
    waiter->result->reply_bytes = result->reply_bytes;
}

static void result_came(void *context, const struct lockstep_result *result)
{
    keep(context, result);
}

static void status_came(void *context, const struct lockstep_result *result, const struct lockstep_status *status)
{
    struct waiter *waiter = context;
    keep(waiter, result);
    if (status != NULL) *waiter->status = *status;
}

/* started  what the call that starts the operation returned */
static int wait_for(struct waiter *waiter, int started)
{
    if (started != 0) {
        *waiter->result = (struct lockstep_result){
            .error = started, .fate = LOCKSTEP_NOT_APPENDED, .endpoint = "", .text = lockstep_error_text(started)};
        return started;
    }
    while (!waiter->ended) {
        int rc = lockstep_client_poll(waiter->client, -1);
        lk_assert(rc == 0); /* epoll_wait on a set of ours fails only by EINTR, which poll takes care of */
    }
    return waiter->result->error;
}

int lockstep_propose_wait(struct lockstep_client *client, const struct lockstep_proposal *proposal,
                          struct lockstep_result *ret)
{
    struct waiter waiter = {.client = client, .result = ret};
    return wait_for(&waiter, lockstep_propose(client, proposal, result_came, &waiter));
}

int lockstep_outcome_wait(struct lockstep_client *client, uint64_t session, uint64_t seq, uint32_t deadline_ms,
                          struct lockstep_result *ret)
{
    struct waiter waiter = {.client = client, .result = ret};
    return wait_for(&waiter, lockstep_outcome(client, session, seq, deadline_ms, result_came, &waiter));
}

int lockstep_query_wait(struct lockstep_client *client, const struct lockstep_query *query, struct lockstep_result *ret)
{
    struct waiter waiter = {.client = client, .result = ret};
    return wait_for(&waiter, lockstep_query(client, query, result_came, &waiter));
}

int lockstep_status_wait(struct lockstep_client *client, uint32_t deadline_ms, struct lockstep_result *ret,
                         struct lockstep_status *ret_status)
{
    struct waiter waiter = {.client = client, .result = ret, .status = ret_status};
    return wait_for(&waiter, lockstep_status(client, deadline_ms, status_came, &waiter));
}

int lockstep_transfer_wait(struct lockstep_client *client, const char *target, uint32_t deadline_ms,
                           struct lockstep_result *ret)
{
    struct waiter waiter = {.client = client, .result = ret};
    return wait_for(&waiter, lockstep_transfer(client, target, deadline_ms, result_came, &waiter));
}

int lockstep_recover_wait(struct lockstep_client *client, const char *cluster, uint64_t cluster_id, uint64_t member_id,
                          uint32_t deadline_ms, struct lockstep_result *ret)
{
    struct waiter waiter = {.client = client, .result = ret};
    return wait_for(&waiter,
                    lockstep_recover(client, cluster, cluster_id, member_id, deadline_ms, result_came, &waiter));
}

int lockstep_member_change_wait(struct lockstep_client *client, const struct lockstep_member_change *change,
                                struct lockstep_result *ret)
{
    struct waiter waiter = {.client = client, .result = ret};
    return wait_for(&waiter, lockstep_member_change(client, change, result_came, &waiter));
}

int lockstep_health_wait(struct lockstep_client *client, const char *service, uint32_t deadline_ms,
                         struct lockstep_result *ret)
{
    struct waiter waiter = {.client = client, .result = ret};
    return wait_for(&waiter, lockstep_health(client, service, deadline_ms, result_came, &waiter));
}
