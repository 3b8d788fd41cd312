// The C interface of a session.
#include "api_internal.h"

namespace edgeprune {
namespace {

std::vector<std::string> stop_strings(const ep_generate_options& options) {
    if (options.stop_count > 0) require(options.stop, "stop");
    std::vector<std::string> stops;
    for (size_t i = 0; i < options.stop_count; ++i) {
        if (options.stop[i] == nullptr || *options.stop[i] == '\0') {
            throw Error(EP_ERROR_INVALID_ARGUMENT, "a stop string must not be empty");
        }
        stops.emplace_back(options.stop[i]);
    }
    return stops;
}

// The fields that ep_generate_options and ep_score_options share.
template <class Options>
void fill_prompt(const Options& options, PromptRequest& request) {
    require(options.prompt, "prompt");
    if (!(options.deadline_ms >= 0)) {
        throw Error(EP_ERROR_INVALID_ARGUMENT, "deadline_ms must be at least 0");
    }
    request.prompt = options.prompt;
    if (options.images != nullptr) request.images.emplace(options.images, options.images + options.image_count);
    request.allow_special = options.allow_special != 0;
    request.deadline_ms = options.deadline_ms;
}

// In the struct 0 stands for the default of every field, here the values themselves.
Decoding decoding_of(const ep_generate_options& options) {
    Decoding decoding;
    decoding.temperature = options.temperature;
    decoding.top_k = options.top_k;
    if (options.top_p != 0) decoding.top_p = options.top_p;
    if (options.repetition_penalty != 0) decoding.repetition_penalty = options.repetition_penalty;
    decoding.seed = options.seed;
    check_decoding(decoding);
    return decoding;
}

GenerateRequest generate_request(const ep_generate_options* given) {
    require(given, "options");
    const ep_generate_options options = read_struct(given, "ep_generate_options");
    check_non_negative(options.max_new_tokens, "max_new_tokens");
    GenerateRequest request;
    fill_prompt(options, request);
    request.max_new_tokens = options.max_new_tokens;
    request.ignore_eos = options.ignore_eos != 0;
    request.stop = stop_strings(options);
    request.on_text = options.on_text;
    request.user_data = options.user_data;
    request.decoding = decoding_of(options);
    return request;
}

ScoreRequest score_request(const ep_score_options* given) {
    require(given, "options");
    const ep_score_options options = read_struct(given, "ep_score_options");
    ScoreRequest request;
    fill_prompt(options, request);
    require(options.choices, "choices");
    if (options.choice_count == 0) throw Error(EP_ERROR_INVALID_ARGUMENT, "give at least one choice");
    for (size_t i = 0; i < options.choice_count; ++i) {
        require(options.choices[i], "a choice");
        request.choices.emplace_back(options.choices[i]);
    }
    request.with_eos = options.with_eos != 0;
    return request;
}

KeepRequest keep_request(const ep_image_options& options) {
    return {options.keep, {options.auto_mass, options.auto_min, options.auto_max}};
}

void fill_scores(const Scores& scores, ep_scores& out) {
    ep_scores value{};
    value.log_probabilities = scores.log_probabilities.data();
    value.token_counts = scores.token_counts.data();
    value.choice_count = scores.token_counts.size();
    value.prompt_tokens = scores.counts.prompt_tokens;
    value.visual_tokens_kept = scores.counts.visual_tokens_kept;
    value.reused_tokens = scores.counts.reused_tokens;
    value.kv_tokens = scores.kv_tokens;
    write_struct(out, value, "ep_scores");
}

void fill_answer(const Answer& answer, ep_answer& out) {
    ep_answer value{};
    value.text = answer.text.c_str();
    value.text_size = answer.text.size();
    value.token_ids = answer.ids.data();
    value.token_count = answer.ids.size();
    value.finish_reason = answer.finish;
    value.prompt_tokens = answer.counts.prompt_tokens;
    value.visual_tokens_kept = answer.counts.visual_tokens_kept;
    value.reused_tokens = answer.counts.reused_tokens;
    value.kv_tokens = answer.kv_tokens;
    write_struct(out, value, "ep_answer");
}

void fill_kept(const Manifest& manifest, const SessionImage& image, ep_kept_tokens& out) {
    const VisionResult& seen = image.seen;
    ep_kept_tokens value{};
    value.kept = seen.kept;
    value.visual_tokens = manifest.visual_tokens;
    value.keep_idx = seen.keep_idx.data();
    value.scores = seen.scores.empty() ? nullptr : seen.scores.data();
    value.grid_rows = manifest.grid_rows;
    value.grid_cols = manifest.grid_cols;
    value.width_px = image.width_px;
    value.height_px = image.height_px;
    value.applied = seen.kept < manifest.visual_tokens ? 1 : 0;
    value.reason = image.reason.c_str();
    value.method = image.method.c_str();
    value.keep = image.keep;
    value.pad_mask = image.padding.empty() ? nullptr : image.padding.data();
    if (image.automatic) {
        value.auto_mass = image.automatic->mass;
        value.auto_min = image.automatic->min;
        value.auto_max = image.automatic->max;
    }
    write_struct(out, value, "ep_kept_tokens");
}

void fill_stats(const Timings& timings, ep_stats& out) {
    ep_stats value{};
    value.decode_image_ms = timings.decode_image_ms;
    value.preprocess_ms = timings.preprocess_ms;
    value.vision_ms = timings.vision_ms;
    value.embed_ms = timings.embed_ms;
    value.prefill_ms = timings.prefill_ms;
    value.decode_ms = timings.decode_ms;
    value.ttft_ms = timings.ttft_ms;
    value.tpot_ms = timings.decode_steps > 0 ? timings.decode_ms / static_cast<double>(timings.decode_steps) : 0;
    value.total_ms = timings.total_ms;
    value.decode_steps = timings.decode_steps;
    value.new_tokens = timings.new_tokens;
    value.kv_bytes = timings.kv_bytes;
    value.graph_ms = timings.graph_ms;
    value.resize_ms = timings.resize_ms;
    value.decode_graph_ms = timings.decode_graph_ms;
    value.select_ms = timings.select_ms;
    write_struct(out, value, "ep_stats");
}

void borrow_logits(const std::vector<float>& values, const float** logits, int64_t* count) {
    require(logits, "logits");
    require(count, "count");
    if (values.empty())
        throw Error(EP_ERROR_INVALID_ARGUMENT,
                    "there are no logits yet: call ep_session_generate or ep_session_score first");
    *logits = values.data();
    *count = static_cast<int64_t>(values.size());
}

}  // namespace
}  // namespace edgeprune

using namespace edgeprune;

ep_status ep_session_new(ep_model* model, const ep_session_options* options, ep_session** out) {
    return guarded([&] {
        require(out, "out");
        *out = nullptr;
        require(model, "model");
        read_struct(options, "ep_session_options");
        *out = std::make_unique<ep_session>(model->model).release();
    });
}

void ep_session_free(ep_session* session) {
    const std::unique_ptr<ep_session> owner(session);
}

ep_status ep_session_reset(ep_session* session) {
    return guarded([&] {
        require(session, "session");
        const Session::Use use(session->session);
        session->session.reset();
    });
}

ep_status ep_session_truncate(ep_session* session, int64_t kv_tokens) {
    return guarded([&] {
        require(session, "session");
        const Session::Use use(session->session);
        session->session.truncate(kv_tokens);
    });
}

ep_status ep_session_add_image(ep_session* session, const ep_frame* frame, const ep_image_options* options,
                               int32_t* image_id) {
    return guarded([&] {
        require(session, "session");
        require(image_id, "image_id");
        const ep_image_options chosen = read_struct(options, "ep_image_options");
        const Session::Use use(session->session);
        *image_id =
            session->session.add_image(checked_frame(frame), keep_request(chosen), text_or_empty(chosen.method));
    });
}

ep_status ep_session_add_image_file(ep_session* session, const char* path, const ep_image_options* options,
                                    int32_t* image_id) {
    return guarded([&] {
        require(session, "session");
        require(path, "path");
        require(image_id, "image_id");
        const ep_image_options chosen = read_struct(options, "ep_image_options");
        const Session::Use use(session->session);
        *image_id = session->session.add_image_file(path, keep_request(chosen), text_or_empty(chosen.method));
    });
}

ep_status ep_session_image_remove(ep_session* session, int32_t image_id) {
    return guarded([&] {
        require(session, "session");
        const Session::Use use(session->session);
        session->session.remove_image(image_id);
    });
}

ep_status ep_session_kept_tokens(const ep_session* session, int32_t image_id, ep_kept_tokens* out) {
    return guarded([&] {
        require(session, "session");
        require(out, "out");
        const Session::Use use(session->session);
        fill_kept(session->session.model().manifest(), session->session.seen_image(image_id), *out);
    });
}

ep_status ep_session_image_embeds(const ep_session* session, int32_t image_id, const float** data, int64_t* kept,
                                  int64_t* width) {
    return guarded([&] {
        require(session, "session");
        require(data, "data");
        require(kept, "kept");
        require(width, "width");
        const Session::Use use(session->session);
        const VisionResult& seen = session->session.seen_image(image_id).seen;
        *data = seen.embeds.data();
        *kept = seen.kept;
        *width = seen.width;
    });
}

ep_status ep_session_set_image_embeds(ep_session* session, int32_t image_id, const float* data, int64_t kept,
                                      int64_t width) {
    return guarded([&] {
        require(session, "session");
        require(data, "data");
        const Session::Use use(session->session);
        session->session.set_embeds(image_id, data, kept, width);
    });
}

ep_status ep_session_generate(ep_session* session, const ep_generate_options* options, ep_answer* answer) {
    return guarded([&] {
        require(session, "session");
        const GenerateRequest request = generate_request(options);
        if (answer != nullptr) checked_size(*answer, "ep_answer");
        const Session::Use use(session->session);
        try {
            session->session.generate(request);
        } catch (const Error& error) {
            const bool partial = error.status() == EP_ERROR_ABORTED || error.status() == EP_ERROR_DEADLINE;
            if (partial && answer != nullptr) fill_answer(session->session.answer(), *answer);
            throw;
        }
        if (answer != nullptr) fill_answer(session->session.answer(), *answer);
    });
}

ep_status ep_session_score(ep_session* session, const ep_score_options* options, ep_scores* scores) {
    return guarded([&] {
        require(session, "session");
        require(scores, "scores");
        const ScoreRequest request = score_request(options);
        checked_size(*scores, "ep_scores");
        const Session::Use use(session->session);
        session->session.score(request);
        fill_scores(session->session.scores(), *scores);
    });
}

void ep_session_abort(ep_session* session) {
    if (session != nullptr) session->session.abort();
}

ep_status ep_session_logits(const ep_session* session, const float** logits, int64_t* count) {
    return guarded([&] {
        require(session, "session");
        const Session::Use use(session->session);
        borrow_logits(session->session.logits(), logits, count);
    });
}

ep_status ep_session_prefill_logits(const ep_session* session, const float** logits, int64_t* count) {
    return guarded([&] {
        require(session, "session");
        const Session::Use use(session->session);
        borrow_logits(session->session.prefill_logits(), logits, count);
    });
}

ep_status ep_session_stats(const ep_session* session, ep_stats* stats) {
    return guarded([&] {
        require(session, "session");
        require(stats, "stats");
        const Session::Use use(session->session);
        fill_stats(session->session.timings(), *stats);
    });
}
