// Exercises edgeprune.hpp for tests/runtime/test_wrapper.py; also compiled without exceptions and RTTI.
// usage: wrapper BUNDLE WIDTH HEIGHT (RGB pixels on standard input)
#include <cstdio>
#include <cstdlib>
#include <edgeprune.hpp>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

namespace {

using namespace edgeprune;

static_assert(!std::is_copy_constructible_v<Session> && std::is_nothrow_move_constructible_v<Session>);
static_assert(std::is_copy_constructible_v<Model> && std::is_copy_constructible_v<Answer>);

int failures = 0;

void expect(bool holds, const char* what) {
    if (holds) return;
    std::printf("FAILED %s\n", what);
    ++failures;
}

std::vector<std::uint8_t> read_pixels(std::size_t bytes) {
    std::vector<std::uint8_t> pixels(bytes);
    expect(std::fread(pixels.data(), 1, bytes, stdin) == bytes, "pixels on standard input");
    return pixels;
}

void failures_are_values(const Model& model) {
    const Result<Model> missing = Model::open("/nowhere.bundle");
    expect(!missing && missing.status() == EP_ERROR_IO && !missing.message().empty(), "a missing bundle");
    Session session = model.new_session().value();
    const Result<std::int32_t> nothing = session.add_image(Frame());
    expect(!nothing.ok() && nothing.status() == EP_ERROR_INVALID_ARGUMENT, "an empty frame");
    const Result<void> truncated = session.truncate(5);
    expect(!truncated && truncated.message().find("cannot keep 5 tokens") == 0, "truncate");
    expect(!session.kept_tokens(3) && !session.remove_image(3) && !session.logits(), "no image, no logits");
    const Result<std::int32_t> keep = session.add_image_file("x.png", ImageOptions(7));
    expect(keep.status() == EP_ERROR_IO, "a missing picture");
}

#if EDGEPRUNE_EXCEPTIONS
void exceptions_carry_status_and_text(const Model& model, const Frame& frame) {
    try {
        Model::open("/nowhere.bundle").value();
        expect(false, "value() throws");
    } catch (const Exception& error) {
        expect(error.status() == EP_ERROR_IO && std::string(error.what()).find("/nowhere") != std::string::npos,
               "what()");
    }
    Session session = model.new_session().value();
    session.add_image(frame).value();
    GenerateOptions options;
    options.max_new_tokens = 24;
    int pieces = 0;
    options.on_piece = [&](std::string_view, std::int32_t) -> bool {
        if (++pieces == 2) throw std::string("mine");
        return true;
    };
    try {
        (void)session.generate("Where is it?", options);
        expect(false, "on_piece throws through generate");
    } catch (const std::string& text) {
        expect(text == "mine" && pieces == 2, "the callback's own exception");
    }
    options.on_piece = nullptr;
    expect(session.generate("Where is it?", options).value().token_ids.size() == 24, "usable after the exception");
}
#endif

void streaming_and_stopping(Session& session, const std::string& whole) {
    GenerateOptions options;
    options.max_new_tokens = 24;
    std::string streamed;
    options.on_piece = [&](std::string_view piece, std::int32_t) {
        streamed += piece;
        return true;
    };
    expect(session.generate("Where is it?", options).value().text == whole && streamed == whole, "streaming");
    int pieces = 0;
    options.on_piece = [&](std::string_view, std::int32_t) { return ++pieces < 3; };
    const Answer stopped = session.generate("Where is it?", options).value();
    expect(stopped.finish_reason == EP_FINISH_CALLBACK && stopped.token_ids.size() == 3, "on_piece stops");
    options.on_piece = nullptr;
    options.image_ids.emplace();
    expect(session.generate("Where is it?", options).value().visual_tokens_kept == 0, "asked without a picture");
    options.image_ids.reset();
    options.stop_strings = {whole.substr(4, 2)};
    const Answer stop = session.generate("Where is it?", options).value();
    expect(stop.finish_reason == EP_FINISH_STOP && stop.text == whole.substr(0, whole.find(options.stop_strings[0])),
           "stop strings");
}

void deadline_and_abort(Session& session) {
    GenerateOptions options;
    options.ignore_eos = 1;
    options.deadline_ms = 1e-3;
    const Result<Answer> late = session.generate("Where is it?", options);
    expect(late.ok() && late.value().finish_reason == EP_FINISH_DEADLINE, "a deadline is a value");
    options.deadline_ms = 0;
    std::thread other;
    options.on_piece = [&](std::string_view, std::int32_t) {
        if (!other.joinable()) other = std::thread([&] { session.abort(); });
        std::this_thread::yield();
        return true;
    };
    options.max_new_tokens = 128;
    Answer aborted = session.generate("Where is it?", options).value();
    if (other.joinable()) other.join();
    std::printf("abort %s\n", aborted.finish_reason == EP_FINISH_ABORTED ? "seen" : "too late");
    session.abort();  // nothing runs
    options.on_piece = nullptr;
    options.max_new_tokens = 8;
    expect(session.generate("Where is it?", options).value().token_ids.size() == 8, "usable after abort");
}

// The model lives as long as its last session.
Session orphan(const char* bundle) {
    return Model::open(bundle).value().new_session().value();
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 4) return 2;
    const int width = std::atoi(argv[2]), height = std::atoi(argv[3]);
    const std::vector<std::uint8_t> pixels = read_pixels(static_cast<std::size_t>(width) * height * 3);
    const Frame frame(pixels.data(), width, height, EP_PIXEL_RGB8);
    const Model model = Model::open(argv[1]).value();
    model.warmup().value();
    Session session = orphan(argv[1]);
    const std::int32_t image = session.add_image(frame, ImageOptions(0.5)).value();
    GenerateOptions options;
    options.max_new_tokens = 24;
    const Answer answer = session.generate("Where is it?", options).value();
    const KeptTokens kept = session.kept_tokens(image).value();
    std::printf("%s\n%lld %lld %s %d\n", answer.text.c_str(), static_cast<long long>(answer.kv_tokens),
                static_cast<long long>(kept.visual_tokens), kept.method.c_str(), kept.applied);
    for (const std::int64_t index : kept.keep_idx) std::printf("%lld ", static_cast<long long>(index));
    std::printf("\n");
    expect(kept.scores.size() == 16 && kept.keep == 0.5, "kept tokens");
    expect(session.stats().value().new_tokens == 24, "stats");
    expect(!session.logits().value().empty(), "logits");
    const std::vector<std::int32_t> ids = model.tokenize("Where?").value();
    expect(!ids.empty() && model.detokenize(ids).value() == "Where?", "tokens there and back");
    expect(model.describe().find("\"family\"") != std::string::npos, "describe");

    streaming_and_stopping(session, answer.text);
    deadline_and_abort(session);
    failures_are_values(model);
    Session moved = std::move(session);
    expect(moved.remove_image(image).ok() && moved.reset().ok(), "a moved session");
#if EDGEPRUNE_EXCEPTIONS
    exceptions_carry_status_and_text(model, frame);
#endif
    return failures == 0 ? 0 : 1;
}
