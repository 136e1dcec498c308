/* SPDX-License-Identifier: Apache-2.0 */
/* input.h - a fuzzer's input, taken byte by byte by targets that let it decide what happens next. Thread: the target's. */
#ifndef LOCKSTEP_TESTS_FUZZ_INPUT_H
#define LOCKSTEP_TESTS_FUZZ_INPUT_H

#include <stddef.h>
#include <stdint.h>

struct input {
    const uint8_t *at;
    size_t left;
};

/* 0 behind its end. */
static inline uint8_t input_byte(struct input *input)
{
    if (input->left == 0) return 0;
    input->left--;
    return *input->at++;
}

#endif
