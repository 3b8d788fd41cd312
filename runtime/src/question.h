// What answering and scoring share: a question becomes a sequence, and the decoder reads it.
#pragma once

#include <cstdint>
#include <vector>

#include "session.h"

namespace edgeprune {

class Question {
protected:
    // Clears the session's logits. Both arguments must outlive the question.
    Question(Session& session, const PromptRequest& request);

    // The prompt as items; counts its tokens.
    std::vector<Item> tokenize();
    // Takes over the times of the images added since the last question.
    void begin_times();
    // Since the images were in memory, in milliseconds.
    double ttft_ms() const { return images_ms_ + elapsed_ms(start_); }
    // Lets methods that read the question choose their tokens, and runs what the session's cache does not hold yet; the
    // session has the logits behind the prompt from then on.
    void prefill(const std::vector<Item>& prompt);
    // Runs one token behind `cache`; the session has the logits behind it from then on.
    void step(int32_t token, KvCache& cache);
    // Hands the times to the session.
    void keep_times();

    Session& session_;
    const Model& model_;
    const PromptRequest& request_;
    Clock::time_point start_;
    Timings times_;
    PromptCounts counts_;

private:
    void select(const std::vector<Item>& prompt);
    std::vector<int32_t> question_ids(const MethodSpec& method) const;
    QuestionText read_question(const MethodSpec& method, const std::vector<int32_t>& ids);
    std::vector<float> embed(const std::vector<Item>& items, RunContext& context);
    const float* visual_row(const Item& item, size_t width) const;

    RunContext prefill_runs_, step_runs_;
    double tokenize_ms_ = 0, images_ms_ = 0;
};

}  // namespace edgeprune
