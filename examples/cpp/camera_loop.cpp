// A loop as a robot runs it: a camera thread delivers frames at its own pace, the model looks at the newest one and
// ignores those it missed, every answer has a deadline, and a frame with an obstacle aborts the answer in progress.
//
//     camera_loop BUNDLE QUESTION [KEEP [ANSWERS [DEADLINE_MS [OBSTACLE_MS]]]]
//
// OBSTACLE_MS: how long after the first frame the simulated camera sees the obstacle; 0: never.
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <edgeprune.hpp>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
using Milliseconds = std::chrono::duration<double, std::milli>;

constexpr std::int32_t kWidth = 320, kHeight = 240;
constexpr std::chrono::milliseconds kFrameTime{33};

std::atomic<bool> stop_requested{false};

void request_stop(int) {
    stop_requested = true;
}

struct CameraFrame {
    std::int64_t number = -1;
    bool obstacle = false;
    std::vector<std::uint8_t> bgr;  // as OpenCV's cameras give it
};

// A red square that wanders over a blue floor; the obstacle fills the picture with white.
CameraFrame paint(std::int64_t number, bool obstacle) {
    CameraFrame frame{number, obstacle, std::vector<std::uint8_t>(std::size_t{kWidth} * kHeight * 3)};
    const std::int64_t left = number * 7 % (kWidth - 60);
    std::uint8_t* pixel = frame.bgr.data();
    for (std::int32_t y = 0; y < kHeight; ++y) {
        for (std::int32_t x = 0; x < kWidth; ++x, pixel += 3) {
            const bool square = y > 90 && y < 150 && x >= left && x < left + 60;
            pixel[0] = obstacle ? 255 : square ? 30 : static_cast<std::uint8_t>(90 + y / 3);
            pixel[1] = obstacle ? 255 : 40;
            pixel[2] = obstacle ? 255 : square ? 220 : 20;
        }
    }
    return frame;
}

// Holds the newest frame only: who asks late misses the frames between.
class Camera {
public:
    Camera(double obstacle_ms, std::function<void()> on_obstacle)
        : obstacle_ms_(obstacle_ms), on_obstacle_(std::move(on_obstacle)), thread_([this] { deliver(); }) {}
    ~Camera() {
        ended_ = true;
        thread_.join();
    }

    // Waits for a frame newer than `seen`.
    CameraFrame newest(std::int64_t seen) {
        std::unique_lock<std::mutex> lock(mutex_);
        arrived_.wait(lock, [&] { return frame_.number > seen; });
        return frame_;
    }

private:
    void deliver() {
        const Clock::time_point start = Clock::now();
        bool was_clear = true;
        for (std::int64_t number = 0; !ended_; ++number) {
            const bool obstacle = obstacle_ms_ > 0 && Milliseconds(Clock::now() - start).count() >= obstacle_ms_;
            {
                const std::lock_guard<std::mutex> lock(mutex_);
                frame_ = paint(number, obstacle);
            }
            arrived_.notify_one();
            if (obstacle && was_clear) on_obstacle_();
            was_clear = !obstacle;
            std::this_thread::sleep_for(kFrameTime);
        }
    }

    const double obstacle_ms_;
    const std::function<void()> on_obstacle_;
    std::mutex mutex_;
    std::condition_variable arrived_;
    CameraFrame frame_;
    std::atomic<bool> ended_{false};
    std::thread thread_;  // last: it uses everything above
};

const char* name_of(ep_finish_reason reason) {
    static const char* const names[] = {"eos", "stop", "length", "callback", "aborted", "deadline"};
    return names[reason];
}

struct Request {
    std::string question;
    double keep;
    int answers;
    double deadline_ms;
    double obstacle_ms;
};

// One look: the session starts afresh, because every frame stands for itself.
edgeprune::Result<edgeprune::Answer> look(edgeprune::Session& session, const CameraFrame& camera,
                                          const Request& request, const std::atomic<bool>& obstacle) {
    if (const auto reset = session.reset(); !reset) return edgeprune::Failure{reset.status(), reset.message()};
    const edgeprune::Frame frame(camera.bgr.data(), kWidth, kHeight, EP_PIXEL_BGR8);
    const auto image = session.add_image(frame, edgeprune::ImageOptions(request.keep));
    if (!image) return edgeprune::Failure{image.status(), image.message()};
    edgeprune::GenerateOptions options;
    options.max_new_tokens = 48;
    options.deadline_ms = request.deadline_ms;
    // An abort that falls between two calls stops neither; this does.
    options.on_piece = [&](std::string_view, std::int32_t) { return !stop_requested && !obstacle; };
    return session.generate(request.question, options);
}

int run(edgeprune::Session& session, const Request& request) {
    std::atomic<bool> obstacle{false};
    Camera camera(request.obstacle_ms, [&] {
        obstacle = true;
        session.abort();
    });
    std::int64_t seen = -1;
    for (int i = 0; i < request.answers && !stop_requested && !obstacle; ++i) {
        const CameraFrame frame = camera.newest(seen);
        seen = frame.number;
        const auto answer = look(session, frame, request, obstacle);
        if (!answer && answer.status() == EP_ERROR_ABORTED) break;  // during add_image: there is no answer
        if (!answer) {
            std::fprintf(stderr, "camera_loop: %s: %s\n", ep_status_name(answer.status()), answer.message().c_str());
            return 1;
        }
        const edgeprune::Answer& said = answer.value();
        std::printf("frame %lld: %s: %zu tokens: %s\n", static_cast<long long>(frame.number),
                    name_of(said.finish_reason), said.token_ids.size(), said.text.c_str());
        std::fflush(stdout);
    }
    if (obstacle) std::printf("obstacle: motors stopped\n");
    return 0;
}

double number(int argc, char** argv, int index, double otherwise) {
    return argc > index ? std::strtod(argv[index], nullptr) : otherwise;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 3) {
        std::fprintf(stderr, "usage: camera_loop BUNDLE QUESTION [KEEP [ANSWERS [DEADLINE_MS [OBSTACLE_MS]]]]\n");
        return 2;
    }
    std::signal(SIGINT, request_stop);
    const Request request{argv[2], number(argc, argv, 3, 0), static_cast<int>(number(argc, argv, 4, 5)),
                          number(argc, argv, 5, 0), number(argc, argv, 6, 0)};
    const auto model = edgeprune::Model::open(argv[1]);
    if (!model) {
        std::fprintf(stderr, "camera_loop: %s: %s\n", ep_status_name(model.status()), model.message().c_str());
        return 1;
    }
    model.value().warmup().value();  // the first answer should not pay for lazy initialisation
    edgeprune::Session session = model.value().new_session().value();
    return run(session, request);
}
