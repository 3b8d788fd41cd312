// Session::score: how likely given answers are.
#include <algorithm>
#include <cmath>

#include "error.h"
#include "question.h"
#include "sampler.h"

namespace edgeprune {
namespace {

// The ids behind the prompt of every choice. Throws Error for a choice without any.
std::vector<std::vector<int32_t>> choice_ids(const Model& model, const ScoreRequest& request) {
    const TokenSpec& tokens = model.manifest().tokens;
    if (request.with_eos && tokens.eos.empty()) {
        throw Error(EP_ERROR_INVALID_ARGUMENT, "this bundle has no end-of-sequence token: score without with_eos");
    }
    std::vector<std::vector<int32_t>> all;
    for (const std::string& choice : request.choices) {
        std::vector<TextSpan> plain;
        if (!request.allow_special) plain.push_back({0, choice.size()});
        std::vector<int32_t> ids = model.tokenizer().encode(choice, plain);
        if (ids.empty()) throw Error(EP_ERROR_INVALID_ARGUMENT, "a choice must not be empty");
        if (std::find(ids.begin(), ids.end(), tokens.image) != ids.end()) {
            throw Error(EP_ERROR_INVALID_ARGUMENT, "a choice must not contain the image marker as a special token");
        }
        if (request.with_eos) ids.push_back(tokens.eos.front());
        all.push_back(std::move(ids));
    }
    return all;
}

}  // namespace

class Scoring : Question {
public:
    Scoring(Session& session, const ScoreRequest& request) : Question(session, request), request_(request) {
        session_.scores_ = {};
    }

    void run() {
        const Deadline deadline(session_.abort_, start_, request_.deadline_ms);
        const std::vector<std::vector<int32_t>> choices = choice_ids(model_, request_);
        const std::vector<Item> prompt = tokenize();
        check_room(choices);
        begin_times();
        prefill(prompt);
        times_.ttft_ms = ttft_ms();
        Scores scores;
        for (const std::vector<int32_t>& ids : choices) {
            scores.log_probabilities.push_back(log_probability_of(ids));
            scores.token_counts.push_back(static_cast<int64_t>(ids.size()));
        }
        scores.counts = counts_;
        scores.kv_tokens = session_.cache_.length();
        session_.scores_ = std::move(scores);
        keep_times();
    }

private:
    void check_room(const std::vector<std::vector<int32_t>>& choices) const {
        int64_t longest = 0;
        for (const auto& ids : choices) longest = std::max(longest, static_cast<int64_t>(ids.size()));
        const int64_t context = model_.manifest().context_length;
        if (counts_.prompt_tokens + longest <= context) return;
        throw Error(EP_ERROR_CONTEXT_FULL, "the prompt has " + std::to_string(counts_.prompt_tokens) +
                                               " tokens and the longest choice " + std::to_string(longest) +
                                               ", but the context holds " + std::to_string(context) +
                                               "; shorten them or keep fewer visual tokens");
    }

    double log_probability_of(const std::vector<int32_t>& ids) {
        // The copy shares the prompt's tensors, which no run changes; it grows by tensors of its own.
        KvCache cache = session_.cache_;
        double sum = log_probability(session_.prefill_logits_, ids.front());
        for (size_t i = 1; i < ids.size(); ++i) {
            session_.abort_.check();
            step(ids[i - 1], cache);
            sum += log_probability(session_.logits_, ids[i]);
        }
        return sum;
    }

    const ScoreRequest& request_;
};

void Session::score(const ScoreRequest& request) {
    Scoring(*this, request).run();
}

}  // namespace edgeprune
