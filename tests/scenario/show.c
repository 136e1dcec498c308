/* SPDX-License-Identifier: Apache-2.0 */
/* show.c - see show.h. */
#include "tests/scenario/show.h"

#include <inttypes.h>

#include "lockstep/errors.h"

#define U PRIu64

static const char *const type_names[RAFT_MESSAGE_TYPES] = {
    [RAFT_PREVOTE] = "PREVOTE", [RAFT_PREVOTE_REPLY] = "PREVOTE_REPLY",
    [RAFT_VOTE] = "VOTE",       [RAFT_VOTE_REPLY] = "VOTE_REPLY",
    [RAFT_APPEND] = "APPEND",   [RAFT_HEARTBEAT] = "HEARTBEAT",
    [RAFT_ACK] = "ACK",         [RAFT_TIMEOUT_NOW] = "TIMEOUT_NOW",
    [RAFT_INSTALL] = "INSTALL", [RAFT_INSTALL_ACK] = "INSTALL_ACK",
};
static const char *const role_names[] = {
    [RAFT_FOLLOWER] = "follower",
    [RAFT_PRECANDIDATE] = "precandidate",
    [RAFT_CANDIDATE] = "candidate",
    [RAFT_LEADER] = "leader",
};

static const char *const member_names[] = {
    [RAFT_VOTER] = "voter",       [RAFT_LEARNER] = "learner", [RAFT_INCOMING] = "incoming",
    [RAFT_OUTGOING] = "outgoing", [RAFT_LEAVING] = "leaving",
};

const char *show_type(uint8_t type)
{
    return type < RAFT_MESSAGE_TYPES && type_names[type] != NULL ? type_names[type] : "?";
}

const char *show_role(enum raft_role role)
{
    return role_names[role];
}

void show_message(FILE *out, const struct raft_message *m)
{
    fprintf(out, "%s term %" U, show_type(m->type), m->term);
    switch ((enum raft_message_type)m->type) {
    case RAFT_PREVOTE:
    case RAFT_VOTE:
        fprintf(out, ", for %" U ", last %" U "/%" U "%s", m->as.vote.campaign_term, m->as.vote.last_index,
                m->as.vote.last_term, m->as.vote.transfer ? ", transfer" : "");
        break;
    case RAFT_PREVOTE_REPLY:
    case RAFT_VOTE_REPLY:
        fprintf(out, ", for %" U ": %s", m->as.vote_reply.campaign_term,
                m->as.vote_reply.granted ? "granted" : "refused");
        break;
    case RAFT_APPEND:
        fprintf(out, ", %" U "/%" U " + %" U "..%" U ", commit %" U ", round %" U, m->as.append.previous_index,
                m->as.append.previous_term, m->as.append.previous_index + 1, m->as.append.last_index,
                m->as.append.commit, m->as.append.round);
        break;
    case RAFT_HEARTBEAT:
        fprintf(out, ", match %" U "/%" U ", commit %" U ", round %" U, m->as.heartbeat.match_index,
                m->as.heartbeat.match_term, m->as.heartbeat.commit, m->as.heartbeat.round);
        break;
    case RAFT_ACK:
        fprintf(out, ", durable %" U ", validated %" U ", round %" U, m->as.ack.durable_index,
                m->as.ack.validated_index, m->as.ack.round);
        if (m->as.ack.rejected)
            fprintf(out, ", refused %" U ", hint %" U "/%" U, m->as.ack.rejected_index, m->as.ack.hint_index,
                    m->as.ack.hint_term);
        if (m->as.ack.full) fprintf(out, ", full");
        break;
    case RAFT_INSTALL:
        fprintf(out, ", snapshot %" U "/%" U " from byte %" U " of %" U, m->as.install.snapshot.index,
                m->as.install.snapshot.term, m->as.install.offset, m->as.install.snapshot.bytes);
        break;
    case RAFT_INSTALL_ACK:
        fprintf(out, ", snapshot %" U " held up to byte %" U, m->as.install_ack.index, m->as.install_ack.offset);
        break;
    default: break;
    }
    fprintf(out, "\n");
}

void show_configuration(FILE *out, const struct raft_configuration *configuration)
{
    for (uint32_t i = 0; i < configuration->count; i++)
        fprintf(out, "%s%" U " %s", i > 0 ? ", " : "", configuration->members[i].id,
                member_names[configuration->members[i].role]);
    if (configuration->count == 0) fprintf(out, "nobody");
}

static void show_effects(FILE *out, raft_member id, const struct raft *raft, const struct raft_result *result,
                         const struct raft_effects *fx, const struct show_before *before)
{
    if (result->error != 0) fprintf(out, "  %" U " refuses: %s\n", id, lockstep_error_text(result->error));
    if (result->cut != 0) fprintf(out, "  %" U " cuts at %" U "\n", id, result->cut);
    if (result->accept_first != 0)
        fprintf(out, "  %" U " accepts %" U "..%" U "\n", id, result->accept_first, result->accept_last);
    if (result->install) fprintf(out, "  %" U " keeps the piece\n", id);
    if (fx->configuration_changed) {
        struct raft_configuration in_force;
        raft_configuration_read(raft, false, &in_force);
        fprintf(out, "  %" U " goes by ", id);
        show_configuration(out, &in_force);
        fprintf(out, "\n");
    }
    if (fx->role_changed)
        fprintf(out, "  %" U " is %s in term %" U ", leader %" U "\n", id, show_role(fx->role), fx->term, fx->leader);
    if (fx->transfer_done != 0) fprintf(out, "  %" U " transfer %s\n", id, fx->transfer_done > 0 ? "done" : "failed");
    if (fx->commit != before->commit) fprintf(out, "  %" U " commits %" U "\n", id, fx->commit);
    if (fx->reads_ready != before->ready)
        fprintf(out, "  %" U " reads up to ticket %" U " ready at %" U "\n", id, fx->reads_ready, fx->reads_index);
    if (fx->reads_failed != before->failed)
        fprintf(out, "  %" U " reads up to ticket %" U " refused\n", id, fx->reads_failed);
    for (uint32_t i = 0; i < fx->send_count; i++) {
        fprintf(out, "  %" U ">%" U " ", id, fx->sends[i].message.to);
        show_message(out, &fx->sends[i].message);
    }
    for (uint32_t i = 0; i < fx->load_count; i++)
        fprintf(out, "  %" U " loads %" U "..%" U " for %" U "\n", id, fx->loads[i].first, fx->loads[i].last,
                fx->loads[i].peer);
    for (uint32_t i = 0; i < fx->piece_count; i++)
        fprintf(out, "  %" U " reads a piece of snapshot %" U " from byte %" U " for %" U "\n", id, fx->pieces[i].index,
                fx->pieces[i].offset, fx->pieces[i].peer);
    if (fx->leave_joint) fprintf(out, "  %" U " may leave the joint configuration\n", id);
    if (fx->persist_seq == 0) return;
    fprintf(out, "  %" U " persists #%" U, id, fx->persist_seq);
    if (fx->persist_hard_state) fprintf(out, ", term %" U " vote %" U, fx->hard_state.term, fx->hard_state.vote);
    if (fx->persist_first != 0) fprintf(out, ", blocks %" U "..%" U, fx->persist_first, fx->persist_last);
    fprintf(out, "\n");
}

void show_step(FILE *out, raft_member id, const struct raft *raft, const struct raft_result *result,
               const struct raft_effects *fx, struct show_before *before)
{
    if (out != NULL) show_effects(out, id, raft, result, fx, before);
    *before = (struct show_before){.commit = fx->commit, .ready = fx->reads_ready, .failed = fx->reads_failed};
}
