// Attention without a mask, over all tokens of an encoder, on onnxruntime's threads; no onnxruntime in here.
#pragma once

#include <memory>

#include "encoder_kernels.h"

namespace edgeprune::encoder {

// B batch, H heads, T tokens that ask, S tokens that are asked, d head width. Tokens that a query sees are all.
struct Problem {
    int64_t batch, heads, asking, asked, width;  // B, H, T, S, d
    float scale;                                 // of the logits
    Operands operands;                           // of both products: scaled queries and keys, weights and values
    const float* query;                          // (B,T,H*d)
    const float* keys;                           // (B,S,H*d)
    const float* values;                         // (B,S,H*d)
    float* mixed;                                // (B,T,H*d), written
};

// Keys and values as the products read them, head by head. Any thread may run any task, each once.
class Packed {
public:
    // May throw std::bad_alloc.
    Packed(const Problem& problem, const Form& form);
    size_t tasks() const { return static_cast<size_t>(problem_.batch * problem_.heads); }
    bool small() const;  // whether one thread is done before it has woken a second one
    void run(size_t task) noexcept;

private:
    friend class Plan;
    void pack_keys(int64_t head) noexcept;
    void pack_values(int64_t head) noexcept;

    Problem problem_;
    const Form& form_;
    int64_t key_words_, value_words_;    // of a row of queries and keys, of a row of weights
    int64_t key_panels_, value_panels_;  // of 32 tokens, of 32 columns
    std::unique_ptr<Word[]> keys_;       // (B*H,key_panels,key_words,32)
    std::unique_ptr<Word[]> values_;     // (B*H,value_panels,value_words,32)
};

// The attention, cut into tasks of some rows of one head, when all tasks of the packing are done.
class Plan {
public:
    // May throw std::bad_alloc.
    Plan(const Problem& problem, const Form& form, const Packed& packed);
    size_t tasks() const { return static_cast<size_t>(problem_.batch * problem_.heads * parts_); }
    bool small() const { return packed_.small(); }
    void run(size_t task) noexcept;

private:
    // What a task works in.
    struct Room {
        Word* queries;  // (12,key_words)
        float* logits;  // (12,asked to the next panel)
        Word* weights;  // (12,value_words)
        float* mixed;   // (12,width to the next panel)
    };
    Room room(size_t task) noexcept;
    void run_rows(int64_t head, int64_t first, int64_t count, const Room& room) const noexcept;

    Problem problem_;
    const Form& form_;
    const Packed& packed_;
    int64_t blocks_, parts_;         // of rows; tasks of a head
    int64_t logits_, columns_;       // of a row in Room
    std::unique_ptr<Word[]> rooms_;  // one per task
    size_t room_words_;
};

}  // namespace edgeprune::encoder
