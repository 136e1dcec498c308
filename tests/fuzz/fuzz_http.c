/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_http.c - any bytes as HTTP/1.1 requests: the parser stays inside them, and what it takes it takes whole. */
#include <string.h>

#include "base/assert.h"
#include "proto/http1.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    proto_sniff(bytes, count);
    while (count > 0) {
        struct http1_request request;
        size_t used = 0;
        int status = http1_parse(bytes, count, &request, &used);
        if (status != 200) {
            lk_assert(status == 0 || strcmp(http1_reason(status), "Unknown") != 0);
            return 0;
        }
        lk_assert(used > 0);
        lk_assert(used <= count);
        lk_assert(request.path_bytes > 0);
        lk_assert(request.path[0] == '/');
        lk_assert(request.body + request.body_bytes == bytes + used);
        bytes += used;
        count -= used;
    }
    return 0;
}
