/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_sessions.c - a table of sessions written and read again (sessions_read). The first half of the input is what
 * happens to a table; its state comes back from its bytes as it was. The second half damages those bytes: what is read
 * then is refused, or a table that works. */
#include "statemachine/sessions.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

static const struct session_limits limits = {.window = 16, .sessions_max = 8, .replies_bytes = 4096, .expiry_ns = 50};

static void happen(struct sessions *sessions, const uint8_t *bytes, size_t count)
{
    uint64_t now_ns = 1, position = 1;
    for (size_t i = 0; i + 2 < count; i += 3, position++) {
        uint64_t session = bytes[i + 1] % (position + 1), seq = bytes[i + 2];
        struct session_answer answer = {0};
        switch (bytes[i] % 8) {
        case 0: (void)sessions_begin(sessions, position); break;
        case 1: (void)sessions_keep(sessions, session); break;
        case 2: (void)sessions_end(sessions, session); break;
        case 3: sessions_block(sessions, (seq & 1) != 0, now_ns += bytes[i + 1]); break;
        default:
            if (!sessions_judge(sessions, session, seq, &answer)) break;
            answer = (struct session_answer){.code = bytes[i],
                                             .position = position,
                                             .reply = bytes,
                                             .reply_bytes = (uint32_t)(seq < count ? seq : 0)};
            sessions_answered(sessions, session, seq, &answer);
        }
    }
}

static uint8_t *written(struct sessions *sessions, uint64_t *ret_bytes)
{
    if (sessions_freeze(sessions) != 0) abort();
    while (!sessions_freeze_step(sessions, SESSIONS_STEP_BYTES_MIN)) {
    }
    return sessions_thaw(sessions, ret_bytes);
}

static struct sessions *opened(void)
{
    struct sessions *sessions;
    if (sessions_open(&limits, &sessions) != 0) abort();
    return sessions;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    struct sessions *one = opened(), *copy = opened(), *damaged = opened();
    uint64_t state_bytes, again_bytes;
    happen(one, bytes, count / 2);
    uint8_t *state = written(one, &state_bytes);
    int rc = sessions_read(copy, state, state_bytes);
    lk_assert(rc == 0);
    uint8_t *again = written(copy, &again_bytes);
    lk_assert(again_bytes == state_bytes);
    lk_assert(memcmp(again, state, state_bytes) == 0);
    free(again);

    for (size_t i = count / 2; i + 2 < count; i += 3)
        state[((uint64_t)bytes[i] << 8 | bytes[i + 1]) % state_bytes] ^= bytes[i + 2];
    if (sessions_read(damaged, state, state_bytes) == 0) {
        for (uint64_t seq = 1; seq < 40; seq++) {
            struct session_answer answer = {0};
            if (sessions_judge(damaged, seq % 9, seq, &answer))
                sessions_answered(damaged, seq % 9, seq, &(struct session_answer){.position = seq});
        }
        free(written(damaged, &again_bytes));
    } else {
        lk_assert(sessions_count(damaged) == 0);
    }
    free(state);
    sessions_close(one);
    sessions_close(copy);
    sessions_close(damaged);
    return 0;
}
