// What encoder_attention.h is made of, in one form per instruction set. Operands lie in words of four bytes: one float,
// or two bfloat16 that are multiplied by two others and added.
#pragma once

#include <cstddef>
#include <cstdint>

namespace edgeprune::encoder {

constexpr int64_t kPanel = 32;  // columns that lie side by side
constexpr int64_t kMost = 12;   // rows that any form takes at a time
constexpr int64_t kStep = 16;   // logits are filled up to a multiple of this

using Word = uint32_t;

enum class Operands { float32, bfloat16 };

// What is bfloat16 is rounded to nearest even. A form that has no words of bfloat16 rounds floats to as many digits.
struct Form {
    const char* name;
    int64_t most;      // rows at a time
    int64_t per_word;  // numbers in a word: 1 or 2
    // Numbers (count) times `factor` to words.
    void (*words)(const float* row, int64_t count, float factor, Operands operands, Word* to);
    // Numbers (count) of two rows to words of one number each, or of one row where that fills a word; no second row: 0.
    void (*pairs)(const float* first, const float* second, int64_t count, Operands operands, Word* to);
    // to = e^(logits - the largest of them) as words; returns their sum. Logits (count to the next multiple of 16) are
    // overwritten; words that `count` numbers do not fill are 0.
    float (*weights)(float* logits, int64_t count, Operands operands, Word* to);
    // 1 to `most` rows of words, `stride` words apart, times a panel (words,32), to (count,32), rows `to_stride` apart.
    void (*multiply)(const Word* rows, int64_t count, int64_t stride, const Word* panel, int64_t words, float* to,
                     int64_t to_stride);
};

enum class Instructions { chosen, avx512_bf16, avx512, avx2, portable };

// The best form for these operands that the processor has, or the one asked for; null where the processor lacks that,
// or it does not do for them.
const Form* form(Operands operands, Instructions instructions = Instructions::chosen) noexcept;

}  // namespace edgeprune::encoder
