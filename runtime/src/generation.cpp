// Session::generate: one question from its text to the end of its answer.
#include <algorithm>

#include "error.h"
#include "question.h"
#include "sampler.h"
#include "stop.h"

namespace edgeprune {
namespace {

constexpr int64_t kDefaultNewTokens = 128;

std::vector<std::string> stop_strings(const Manifest& manifest, const GenerateRequest& request) {
    std::vector<std::string> stops = request.stop;
    // A bundle's own stop strings end an answer just as its end-of-sequence tokens do.
    if (!request.ignore_eos) stops.insert(stops.end(), manifest.tokens.stop.begin(), manifest.tokens.stop.end());
    stops.erase(std::remove(stops.begin(), stops.end(), ""), stops.end());
    return stops;
}

// How many tokens may be made. Throws Error(EP_ERROR_CONTEXT_FULL).
int64_t new_token_limit(int64_t prompt_tokens, int64_t asked, int64_t context_length) {
    const int64_t left = context_length - prompt_tokens;
    if (left >= std::max<int64_t>(asked, 1)) return asked > 0 ? asked : std::min(kDefaultNewTokens, left);
    std::string text = "the prompt has " + std::to_string(prompt_tokens) + " tokens";
    if (asked > 0) text += " and " + std::to_string(asked) + " new ones are asked for";
    throw Error(EP_ERROR_CONTEXT_FULL, text + ", but the context holds " + std::to_string(context_length) +
                                           "; shorten the prompt, keep fewer visual tokens or ask for fewer new ones");
}

}  // namespace

class Generation : Question {
public:
    Generation(Session& session, const GenerateRequest& request)
        : Question(session, request),
          request_(request),
          answer_(session.answer_),
          text_(model_.tokenizer()),
          stops_(stop_strings(model_.manifest(), request)),
          sampler_(request.decoding) {
        answer_ = {};
    }

    void run() {
        const Deadline deadline(session_.abort_, start_, request_.deadline_ms);
        const std::vector<Item> prompt = tokenize();
        limit_ = new_token_limit(counts_.prompt_tokens, request_.max_new_tokens, model_.manifest().context_length);
        // Visual tokens have no id, so only text counts for the repetition penalty.
        for (const Item& item : prompt) {
            if (!item.visual()) sampler_.see(item.token);
        }
        begin_times();
        try {
            prefill(prompt);
            decode();
        } catch (const Error& error) {
            stop(error.status());
            throw;
        } catch (...) {
            answer_ = {};
            throw;
        }
        finish();
    }

private:
    void decode() {
        for (;;) {
            const int32_t token = sampler_.next(session_.logits_);
            if (answer_.ids.empty()) times_.ttft_ms = ttft_ms();
            answer_.ids.push_back(token);
            if (ends(token)) return;
            session_.abort_.check();
            step(token, session_.cache_);
        }
    }

    // Takes a new token into the answer; true when the answer ends with it.
    bool ends(int32_t token) {
        const std::vector<int32_t>& eos = model_.manifest().tokens.eos;
        if (!request_.ignore_eos && std::find(eos.begin(), eos.end(), token) != eos.end()) {
            answer_.finish = EP_FINISH_EOS;
            return true;
        }
        emit(stops_.push(text_.push(token)));
        if (stopped_by_caller_) {
            answer_.finish = EP_FINISH_CALLBACK;
        } else if (stops_.stopped()) {
            answer_.finish = EP_FINISH_STOP;
        } else {
            answer_.finish = EP_FINISH_LENGTH;
            return static_cast<int64_t>(answer_.ids.size()) >= limit_;
        }
        return true;
    }

    void emit(const std::string& text) {
        if (text.empty() || stopped_by_caller_) return;
        answer_.text += text;
        if (request_.on_text == nullptr) return;
        stopped_by_caller_ = request_.on_text(text.c_str(), text.size(), answer_.ids.back(), request_.user_data) != 0;
    }

    void stop(ep_status status) {
        if (status != EP_ERROR_ABORTED && status != EP_ERROR_DEADLINE) {
            answer_ = {};
            return;
        }
        answer_.finish = status == EP_ERROR_ABORTED ? EP_FINISH_ABORTED : EP_FINISH_DEADLINE;
        finish();
    }

    void finish() {
        emit(stops_.push(text_.finish()));
        emit(stops_.finish());
        answer_.counts = counts_;
        answer_.kv_tokens = session_.cache_.length();
        times_.new_tokens = static_cast<int64_t>(answer_.ids.size());
        keep_times();
    }

    const GenerateRequest& request_;
    Answer& answer_;
    StreamDecoder text_;
    StopScanner stops_;
    Sampler sampler_;
    int64_t limit_ = 0;
    bool stopped_by_caller_ = false;
};

void Session::generate(const GenerateRequest& request) {
    Generation(*this, request).run();
}

}  // namespace edgeprune
