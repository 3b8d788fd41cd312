// One conversation: its images, its KV cache, its last answer.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "abort.h"
#include "keep_choice.h"
#include "kv_cache.h"
#include "model.h"
#include "prompt.h"
#include "sampler.h"
#include "vision.h"

namespace edgeprune {

// Milliseconds and counts behind ep_stats.
struct Timings {
    double decode_image_ms = 0, preprocess_ms = 0, vision_ms = 0, select_ms = 0;
    double embed_ms = 0, prefill_ms = 0, decode_ms = 0, ttft_ms = 0, total_ms = 0;
    double resize_ms = 0, graph_ms = 0, decode_graph_ms = 0;
    int64_t decode_steps = 0, new_tokens = 0, kv_bytes = 0;

    // Of the images only.
    double images_ms() const { return preprocess_ms + vision_ms + select_ms; }
};

struct SessionImage {
    std::string method;
    double keep = 0;  // the ratio asked for, or K / N where K was chosen from the scores
    std::optional<AutoKeep> automatic;
    int32_t width_px = 0, height_px = 0;
    int64_t count = 0;           // K
    VisionResult seen;           // of the last question, where the method reads it
    std::vector<float> padding;  // (N), 1 for letter-box padding; or empty
    std::string reason;          // why nothing was pruned, or why K is below the ratio asked for; else empty
    // Of methods that read the question:
    std::optional<Encoded> encoded;  // what the select graph reads
    // Ids of the question that `seen` belongs to, as the method's own tokenizer makes them; empty: there was none yet.
    std::vector<int32_t> question;
};

struct PromptRequest {
    std::string prompt;
    std::optional<std::vector<int32_t>> images;  // absent: all of the session
    bool allow_special = false;
    double deadline_ms = 0;
};

struct GenerateRequest : PromptRequest {
    int32_t max_new_tokens = 0;  // 0: 128, or what the context leaves
    bool ignore_eos = false;
    std::vector<std::string> stop;
    ep_text_fn on_text = nullptr;
    void* user_data = nullptr;
    Decoding decoding;
};

struct ScoreRequest : PromptRequest {
    std::vector<std::string> choices;
    bool with_eos = false;
};

struct PromptCounts {
    int64_t prompt_tokens = 0, visual_tokens_kept = 0, reused_tokens = 0;
};

struct Scores {
    std::vector<double> log_probabilities;
    std::vector<int64_t> token_counts;
    PromptCounts counts;
    int64_t kv_tokens = 0;
};

struct Answer {
    std::string text;
    std::vector<int32_t> ids;
    ep_finish_reason finish = EP_FINISH_LENGTH;
    PromptCounts counts;
    int64_t kv_tokens = 0;
};

class Session {
public:
    explicit Session(std::shared_ptr<const Model> model);

    // The right to use the session, for the life of the object. Throws Error(EP_ERROR_BUSY).
    class Use {
    public:
        explicit Use(const Session& session);
        ~Use();
        Use(const Use&) = delete;
        Use& operator=(const Use&) = delete;

    private:
        const Session& session_;
    };

    // The caller of everything below holds a Use, except for abort().
    void reset();
    void truncate(int64_t kv_tokens);
    // method: "" for the default. Returns the image's id.
    int32_t add_image(const FrameView& picture, const KeepRequest& keep, const std::string& method);
    int32_t add_image_file(const std::string& path, const KeepRequest& keep, const std::string& method);
    void remove_image(int32_t image);
    const SessionImage& image(int32_t image) const;
    // The same, with tokens kept. Throws Error when its method reads the question and there was none yet.
    const SessionImage& seen_image(int32_t image) const;
    void set_embeds(int32_t image, const float* data, int64_t kept, int64_t width);

    // Throws Error; with EP_ERROR_ABORTED and EP_ERROR_DEADLINE answer() holds what had been made.
    void generate(const GenerateRequest& request);
    const Answer& answer() const { return answer_; }
    // Log-probabilities of given answers. Throws Error; then there are no scores.
    void score(const ScoreRequest& request);
    const Scores& scores() const { return scores_; }
    const Timings& timings() const { return timings_; }
    const std::vector<float>& logits() const { return logits_; }
    const std::vector<float>& prefill_logits() const { return prefill_logits_; }

    void abort() noexcept { abort_.request(EP_ERROR_ABORTED); }
    const Model& model() const { return *model_; }

private:
    friend class Question;
    friend class Generation;
    friend class Scoring;
    std::vector<ImageSlots> image_slots(const PromptRequest& request) const;
    // Chooses the tokens of an image for a question; the KV cache forgets those that it had, where they differ.
    void select(int32_t image, const std::vector<int32_t>& ids, const QuestionText& question, RunContext& runs);

    std::shared_ptr<const Model> model_;
    mutable std::atomic<bool> busy_{false};
    mutable Abort abort_;
    std::map<int32_t, SessionImage> images_;
    int32_t next_image_ = 0;
    KvCache cache_;
    Timings image_timings_;  // of the images added since the last answer
    Timings timings_;
    Answer answer_;
    Scores scores_;
    std::vector<float> logits_, prefill_logits_;
};

}  // namespace edgeprune
