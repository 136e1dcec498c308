/* SPDX-License-Identifier: Apache-2.0 */
/* link_unix.c - the suite against Unix sockets. */
#include "tests/conformance/link.h"
#include "tests/support/unit.h"
#include "transport/local_unix.h"

static uv_loop_t loop;
static uv_timer_t ticker;
static uint64_t begin_ns;

static void nothing(uv_timer_t *timer)
{
    (void)timer;
}

void conformance_link_begin(struct local_link *ret_links[2])
{
    ck_assert_int_eq(uv_loop_init(&loop), 0);
    ck_assert_int_eq(uv_timer_init(&loop, &ticker), 0);
    ck_assert_int_eq(uv_timer_start(&ticker, nothing, 2, 2), 0);
    for (unsigned i = 0; i < 2; i++) ck_assert_int_eq(local_unix_open(&loop, &ret_links[i]), 0);
    begin_ns = uv_hrtime();
}

void conformance_link_end(struct local_link *links[2])
{
    for (unsigned i = 0; i < 2; i++)
        if (links[i] != NULL) links[i]->ops->close(links[i]);
    uv_close((uv_handle_t *)&ticker, NULL);
    ck_assert_int_eq(uv_run(&loop, UV_RUN_DEFAULT), 0);
    ck_assert_int_eq(uv_loop_close(&loop), 0);
}

uint64_t conformance_link_cluster(void)
{
    return unit_cluster_id();
}

bool conformance_link_turn(void)
{
    uv_run(&loop, UV_RUN_ONCE);
    return uv_hrtime() < begin_ns + UINT64_C(60000000000);
}

int main(void)
{
    return unit_main("link: unix", conformance_link_add);
}
