#include "encoder_attention.h"

#include <algorithm>
#include <cstring>

#include "ceiling.h"

namespace edgeprune::encoder {
namespace {

constexpr int64_t kSmall = 1 << 17;        // products that one thread does before it has woken a second one
constexpr int64_t kTasksWanted = 64;       // enough for several threads to end at the same time
constexpr int64_t kHeadWidthAtOnce = 512;  // numbers of a key that are turned to words at a time

}  // namespace

Packed::Packed(const Problem& problem, const Form& form)
    : problem_(problem),
      form_(form),
      key_words_(ceiling(problem.width, form.per_word)),
      value_words_(ceiling(problem.asked, kStep) * kStep / form.per_word),
      key_panels_(ceiling(problem.asked, kPanel)),
      value_panels_(ceiling(problem.width, kPanel)) {
    const int64_t heads = problem.batch * problem.heads;
    keys_.reset(new Word[static_cast<size_t>(heads * key_panels_ * key_words_ * kPanel)]);
    values_.reset(new Word[static_cast<size_t>(heads * value_panels_ * value_words_ * kPanel)]);
}

bool Packed::small() const {
    return problem_.batch * problem_.heads * problem_.asking * problem_.asked * problem_.width < kSmall;
}

void Packed::run(size_t task) noexcept {
    pack_keys(static_cast<int64_t>(task));
    pack_values(static_cast<int64_t>(task));
}

// A key becomes a column of its panel; columns that no key fills are 0.
void Packed::pack_keys(int64_t head) noexcept {
    const int64_t row = problem_.heads * problem_.width, batch = head / problem_.heads;
    const float* from = problem_.keys + batch * problem_.asked * row + head % problem_.heads * problem_.width;
    Word* const to = keys_.get() + head * key_panels_ * key_words_ * kPanel;
    for (int64_t token = 0; token < key_panels_ * kPanel; ++token, from += row) {
        Word* const column = to + token / kPanel * key_words_ * kPanel + token % kPanel;
        for (int64_t first = 0; first < problem_.width; first += kHeadWidthAtOnce) {
            Word words[kHeadWidthAtOnce];
            const int64_t count = std::min(kHeadWidthAtOnce, problem_.width - first);
            const int64_t made = ceiling(count, form_.per_word), word = first / form_.per_word;
            if (token < problem_.asked) {
                form_.words(from + first, count, 1, problem_.operands, words);
            } else {
                std::fill_n(words, made, 0);
            }
            for (int64_t i = 0; i < made; ++i) column[(word + i) * kPanel] = words[i];
        }
    }
}

void Packed::pack_values(int64_t head) noexcept {
    const int64_t row = problem_.heads * problem_.width, batch = head / problem_.heads;
    const float* const from = problem_.values + batch * problem_.asked * row + head % problem_.heads * problem_.width;
    Word* const to = values_.get() + head * value_panels_ * value_words_ * kPanel;
    for (int64_t panel = 0; panel < value_panels_; ++panel) {
        const int64_t column = panel * kPanel, count = std::min(kPanel, problem_.width - column);
        for (int64_t word = 0; word < value_words_; ++word) {
            Word* const line = to + (panel * value_words_ + word) * kPanel;
            const int64_t token = word * form_.per_word;
            const auto at = [&](int64_t index) {
                return index < problem_.asked ? from + index * row + column : nullptr;
            };
            if (count < kPanel || token >= problem_.asked) std::fill_n(line, kPanel, 0);
            if (token < problem_.asked) form_.pairs(at(token), at(token + 1), count, problem_.operands, line);
        }
    }
}

Plan::Plan(const Problem& problem, const Form& form, const Packed& packed)
    : problem_(problem),
      form_(form),
      packed_(packed),
      blocks_(ceiling(problem.asking, form.most)),
      parts_(std::clamp<int64_t>(ceiling(kTasksWanted, std::max<int64_t>(1, problem.batch * problem.heads)), 1,
                                 std::max<int64_t>(1, blocks_))),
      logits_(packed.key_panels_ * kPanel),
      columns_(packed.value_panels_ * kPanel) {
    room_words_ = static_cast<size_t>(kMost * (packed.key_words_ + logits_ + packed.value_words_ + columns_));
    rooms_.reset(new Word[room_words_ * tasks()]);
}

Plan::Room Plan::room(size_t task) noexcept {
    Word* const queries = rooms_.get() + task * room_words_;
    auto* const logits = reinterpret_cast<float*>(queries + kMost * packed_.key_words_);
    auto* const weights = reinterpret_cast<Word*>(logits + kMost * logits_);
    return {queries, logits, weights, reinterpret_cast<float*>(weights + kMost * packed_.value_words_)};
}

// Rows are shared out evenly: no block of them is much smaller than the others.
void Plan::run(size_t task) noexcept {
    const auto index = static_cast<int64_t>(task);
    const int64_t head = index / parts_, part = index % parts_;
    for (int64_t block = part * blocks_ / parts_; block < (part + 1) * blocks_ / parts_; ++block) {
        const int64_t first = block * problem_.asking / blocks_, end = (block + 1) * problem_.asking / blocks_;
        run_rows(head, first, end - first, room(task));
    }
}

void Plan::run_rows(int64_t head, int64_t first, int64_t count, const Room& room) const noexcept {
    const Problem& p = problem_;
    const int64_t row = p.heads * p.width;
    const int64_t place = (head / p.heads * p.asking + first) * row + head % p.heads * p.width;
    const int64_t key_words = packed_.key_words_, value_words = packed_.value_words_;
    for (int64_t i = 0; i < count; ++i)
        form_.words(p.query + place + i * row, p.width, p.scale, p.operands, room.queries + i * key_words);
    for (int64_t panel = 0; panel < packed_.key_panels_; ++panel) {
        const Word* const keys = packed_.keys_.get() + (head * packed_.key_panels_ + panel) * key_words * kPanel;
        form_.multiply(room.queries, count, key_words, keys, key_words, room.logits + panel * kPanel, logits_);
    }
    float totals[kMost];
    for (int64_t i = 0; i < count; ++i)
        totals[i] = form_.weights(room.logits + i * logits_, p.asked, p.operands, room.weights + i * value_words);
    for (int64_t panel = 0; panel < packed_.value_panels_; ++panel) {
        const Word* const values =
            packed_.values_.get() + (head * packed_.value_panels_ + panel) * value_words * kPanel;
        form_.multiply(room.weights, count, value_words, values, value_words, room.mixed + panel * kPanel, columns_);
    }
    for (int64_t i = 0; i < count; ++i) {
        const float* const from = room.mixed + i * columns_;
        const float share = 1 / totals[i];
        for (int64_t k = 0; k < p.width; ++k) p.mixed[place + i * row + k] = from[k] * share;
    }
}

}  // namespace edgeprune::encoder
