#include "question.h"

#include <algorithm>
#include <map>
#include <set>

#include "error.h"
#include "stages.h"
#include "text_encoder.h"

namespace edgeprune {

Question::Question(Session& session, const PromptRequest& request)
    : session_(session),
      model_(session.model()),
      request_(request),
      start_(Clock::now()),
      prefill_runs_{session.abort_},
      step_runs_{session.abort_} {
    session_.logits_.clear();
    session_.prefill_logits_.clear();
}

std::vector<Item> Question::tokenize() {
    const std::vector<ImageSlots> images = session_.image_slots(request_);
    const PromptText text = render_prompt(model_.manifest(), request_.prompt, images.size(), request_.allow_special);
    std::vector<Item> prompt = prompt_items(model_.manifest(), model_.tokenizer(), text, images);
    counts_.prompt_tokens = static_cast<int64_t>(prompt.size());
    counts_.visual_tokens_kept = std::count_if(prompt.begin(), prompt.end(), [](const Item& i) { return i.visual(); });
    tokenize_ms_ = elapsed_ms(start_);
    return prompt;
}

void Question::begin_times() {
    times_ = session_.image_timings_;
    images_ms_ = times_.images_ms();
}

// Of the user's text alone, without the template. What the tokenizer adds around a text stays out of the decoder's ids
// and belongs to those of a text encoder.
std::vector<int32_t> Question::question_ids(const MethodSpec& method) const {
    std::vector<TextSpan> plain;
    if (!request_.allow_special) plain.push_back({0, request_.prompt.size()});
    const Tokenizer& tokenizer = method.text_encoder ? *model_.text_encoder().tokenizer : model_.tokenizer();
    const std::vector<int32_t> ids = tokenizer.encode(request_.prompt, plain);
    if (!ids.empty()) return method.text_encoder ? with_affixes(*model_.manifest().text_encoder, ids) : ids;
    throw Error(EP_ERROR_INVALID_ARGUMENT,
                "method \"" + method.name + "\" chooses visual tokens by the question, which is empty: ask one");
}

QuestionText Question::read_question(const MethodSpec& method, const std::vector<int32_t>& ids) {
    if (method.text_encoder) return run_text_encoder(model_, ids, prefill_runs_);
    return {embed_tokens(model_, ids, prefill_runs_), static_cast<int64_t>(ids.size())};
}

void Question::select(const std::vector<Item>& prompt) {
    std::set<int32_t> waiting;
    for (const Item& item : prompt) {
        if (item.visual() && model_.method(session_.image(item.image).method).text) waiting.insert(item.image);
    }
    if (waiting.empty()) return;
    struct Asked {
        std::vector<int32_t> ids;
        QuestionText text;
    };
    std::map<bool, Asked> asked;  // false: by the decoder's tokenizer, true: by the text encoder's
    const Clock::time_point start = Clock::now();
    bool selected = false;
    for (const int32_t image : waiting) {
        const MethodSpec& method = model_.method(session_.image(image).method);
        if (asked.count(method.text_encoder) == 0) asked[method.text_encoder].ids = question_ids(method);
        Asked& question = asked[method.text_encoder];
        if (session_.image(image).question == question.ids) continue;
        if (question.text.tokens == 0) question.text = read_question(method, question.ids);
        session_.select(image, question.ids, question.text, prefill_runs_);
        session_.abort_.check();
        selected = true;
    }
    if (selected) times_.select_ms += elapsed_ms(start);
}

void Question::prefill(const std::vector<Item>& prompt) {
    select(prompt);
    // The last position has to run again, for its logits are wanted.
    const int64_t reused = std::min(session_.cache_.common_prefix(prompt), counts_.prompt_tokens - 1);
    session_.cache_.truncate(reused);
    counts_.reused_tokens = reused;
    const std::vector<Item> rest(prompt.begin() + reused, prompt.end());

    Clock::time_point start = Clock::now();
    const std::vector<float> embeds = embed(rest, prefill_runs_);
    times_.embed_ms = tokenize_ms_ + elapsed_ms(start);
    session_.abort_.check();
    start = Clock::now();
    session_.logits_ = run_decoder(model_.decoder(), rest, embeds, session_.cache_, prefill_runs_);
    times_.prefill_ms = elapsed_ms(start);
    session_.prefill_logits_ = session_.logits_;
}

void Question::step(int32_t token, KvCache& cache) {
    const Clock::time_point start = Clock::now();
    const std::vector<Item> items{{token, -1, -1}};
    const std::vector<float> embeds = embed(items, step_runs_);
    session_.logits_ = run_decoder(model_.decoder_step(), items, embeds, cache, step_runs_);
    times_.decode_ms += elapsed_ms(start);
    ++times_.decode_steps;
}

void Question::keep_times() {
    times_.kv_bytes = static_cast<int64_t>(session_.cache_.bytes());
    times_.graph_ms += prefill_runs_.graph_ms;
    times_.decode_graph_ms = step_runs_.graph_ms;
    times_.total_ms = times_.decode_image_ms + ttft_ms();
    session_.timings_ = times_;
    session_.image_timings_ = {};
}

// (T, D) embeddings of items: rows of the embedding graph and of the images.
std::vector<float> Question::embed(const std::vector<Item>& items, RunContext& context) {
    std::vector<int32_t> ids;
    for (const Item& item : items) {
        if (!item.visual()) ids.push_back(item.token);
    }
    const std::vector<float> texts = embed_tokens(model_, ids, context);
    const size_t width =
        ids.empty() ? static_cast<size_t>(session_.image(items.front().image).seen.width) : texts.size() / ids.size();
    std::vector<float> embeds;
    embeds.reserve(items.size() * width);
    size_t next = 0;
    for (const Item& item : items) {
        const float* row = item.visual() ? visual_row(item, width) : texts.data() + width * next++;
        embeds.insert(embeds.end(), row, row + width);
    }
    return embeds;
}

const float* Question::visual_row(const Item& item, size_t width) const {
    const VisionResult& seen = session_.image(item.image).seen;
    if (static_cast<size_t>(seen.width) == width) return seen.embeds.data() + width * static_cast<size_t>(item.slot);
    throw Error(EP_ERROR_BUNDLE, "visual embeddings are " + std::to_string(seen.width) +
                                     " wide, but those of the text " + std::to_string(width));
}

}  // namespace edgeprune
