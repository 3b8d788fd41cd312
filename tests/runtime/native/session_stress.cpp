// Many sessions of one model on many threads, through the C interface alone:
//
//     session_stress BUNDLE LIBONNXRUNTIME THREADS SESSIONS GRAPH_THREADS
//
// Every thread has SESSIONS sessions and asks each of them two questions in turns, about different pictures, methods
// and keep ratios; the vision graphs of the methods are loaded on the way. The answers are compared with those of a
// second model on one thread. Then a session is aborted, runs into a deadline and is cut back between questions, and
// must give the same answers again. Prints the number of answers compared; 1 when one differs, with a line that says
// which.
#include <edgeprune.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr int32_t kWidth = 30, kHeight = 20, kNewTokens = 12;
const char* const kMethods[] = {"best", "four", "none"};

struct FreeModel {
    void operator()(ep_model* model) const { ep_model_free(model); }
};
struct FreeSession {
    void operator()(ep_session* session) const { ep_session_free(session); }
};
using Model = std::unique_ptr<ep_model, FreeModel>;
using Session = std::unique_ptr<ep_session, FreeSession>;

void check(ep_status status, const char* what) {
    if (status == EP_OK) return;
    std::fprintf(stderr, "%s: %s: %s\n", what, ep_status_name(status), ep_last_error());
    std::exit(1);
}

Model open(const char* bundle, const char* onnxruntime, int32_t graph_threads) {
    ep_model_options options;
    ep_model_options_init(&options);
    options.onnxruntime_library = onnxruntime;
    options.threads = graph_threads;
    ep_model* model = nullptr;
    check(ep_model_open(bundle, &options, &model), "open");
    return Model(model);
}

Session new_session(ep_model* model) {
    ep_session* session = nullptr;
    check(ep_session_new(model, nullptr, &session), "new session");
    return Session(session);
}

// A picture, its method and keep ratio, all different for different numbers.
int32_t add_picture(ep_session* session, int number) {
    std::vector<uint8_t> pixels(size_t{kWidth} * kHeight * 3);
    uint32_t state = static_cast<uint32_t>(number) * 2654435761U + 1;
    for (uint8_t& value : pixels) {
        state = state * 1664525U + 1013904223U;
        value = static_cast<uint8_t>(state >> 24);
    }
    ep_frame frame;
    ep_frame_init(&frame);
    frame.data = pixels.data();
    frame.width_px = kWidth;
    frame.height_px = kHeight;
    frame.format = EP_PIXEL_RGB8;
    ep_image_options options;
    ep_image_options_init(&options);
    options.method = kMethods[number % 3];
    if (number % 3 == 0) options.keep = number % 2 == 0 ? 0.5 : 0.25;
    int32_t image = 0;
    check(ep_session_add_image(session, &frame, &options, &image), "add image");
    return image;
}

ep_generate_options question(const std::string& text) {
    ep_generate_options options;
    ep_generate_options_init(&options);
    options.prompt = text.c_str();
    options.max_new_tokens = kNewTokens;
    options.ignore_eos = 1;
    return options;
}

std::string ask(ep_session* session, const std::string& text) {
    const ep_generate_options options = question(text);
    ep_answer answer;
    ep_answer_init(&answer);
    check(ep_session_generate(session, &options, &answer), "generate");
    std::string ids;
    for (size_t i = 0; i < answer.token_count; ++i) ids += std::to_string(answer.token_ids[i]) + " ";
    return ids + std::string(answer.text, answer.text_size);
}

std::string question_text(int number, int turn) {
    return "Where is it, " + std::to_string(number * 10 + turn) + "?";
}

// Two turns over `count` sessions beginning with number `first`; answers in the order they were asked.
std::vector<std::string> converse(ep_model* model, int first, int count) {
    std::vector<Session> sessions;
    for (int i = 0; i < count; ++i) {
        sessions.push_back(new_session(model));
        add_picture(sessions.back().get(), first + i);
    }
    std::vector<std::string> answers;
    for (int turn = 0; turn < 2; ++turn) {
        for (int i = 0; i < count; ++i)
            answers.push_back(ask(sessions[static_cast<size_t>(i)].get(), question_text(first + i, turn)));
    }
    return answers;
}

std::vector<std::vector<std::string>> converse_on_threads(ep_model* model, int threads, int sessions) {
    std::vector<std::vector<std::string>> answers(static_cast<size_t>(threads));
    std::vector<std::thread> running;
    for (int i = 0; i < threads; ++i) {
        running.emplace_back([&, i] { answers[static_cast<size_t>(i)] = converse(model, i * sessions, sessions); });
    }
    for (std::thread& thread : running) thread.join();
    return answers;
}

void require(bool kept, const char* promise) {
    if (kept) return;
    std::fprintf(stderr, "broken promise: %s\n", promise);
    std::exit(1);
}

// Aborts from a second thread until the call returns; it may be over before the first abort.
void abort_midway(ep_session* session) {
    std::atomic<bool> over{false};
    std::thread aborter([&] {
        while (!over) {
            ep_session_abort(session);
            std::this_thread::yield();
        }
    });
    const std::string text = question_text(1, 0);
    const ep_generate_options options = question(text);
    const ep_status status = ep_session_generate(session, &options, nullptr);
    over = true;
    aborter.join();
    require(status == EP_OK || status == EP_ERROR_ABORTED, "an aborted call says so");
}

void run_into_deadline(ep_session* session) {
    const std::string text = question_text(1, 1);
    ep_generate_options options = question(text);
    options.deadline_ms = 0.001;
    const ep_status status = ep_session_generate(session, &options, nullptr);
    require(status == EP_OK || status == EP_ERROR_DEADLINE, "a late call says so");
}

void use_from_two_threads(ep_session* session) {
    std::thread other([&] {
        const std::string text = question_text(1, 0);
        const ep_generate_options options = question(text);
        const ep_status status = ep_session_generate(session, &options, nullptr);
        require(status == EP_OK || status == EP_ERROR_BUSY, "a session in use says so");
    });
    const ep_status status = ep_session_truncate(session, 0);
    require(status == EP_OK || status == EP_ERROR_BUSY, "a session in use says so");
    other.join();
}

int survive_interruptions(ep_model* model) {
    const Session session = new_session(model);
    const int32_t image = add_picture(session.get(), 0);
    const std::string first = ask(session.get(), question_text(0, 0));
    for (int i = 0; i < 10; ++i) {
        abort_midway(session.get());
        run_into_deadline(session.get());
        use_from_two_threads(session.get());
        if (i % 2 == 0) check(ep_session_truncate(session.get(), 0), "truncate");
        require(ask(session.get(), question_text(0, 0)) == first, "an interrupted session answers as before");
    }
    check(ep_session_image_remove(session.get(), image), "remove");
    check(ep_session_reset(session.get()), "reset");
    add_picture(session.get(), 0);
    require(ask(session.get(), question_text(0, 0)) == first, "a reset session answers as before");
    return 11;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 6) return 2;
    const int threads = std::atoi(argv[3]), sessions = std::atoi(argv[4]);
    int compared = 0;
    const Model shared = open(argv[1], argv[2], std::atoi(argv[5]));
    const Model single = open(argv[1], argv[2], std::atoi(argv[5]));
    const auto found = converse_on_threads(shared.get(), threads, sessions);
    for (int i = 0; i < threads; ++i) {
        const std::vector<std::string> wanted = converse(single.get(), i * sessions, sessions);
        require(found[static_cast<size_t>(i)] == wanted, "threads give the answers of one thread");
        compared += static_cast<int>(wanted.size());
    }
    compared += survive_interruptions(shared.get());
    std::printf("%d\n", compared);
    return 0;
}
