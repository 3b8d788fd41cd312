#include "abort.h"

#include <algorithm>
#include <string>
#include <system_error>

#include "error.h"

namespace edgeprune {

void Abort::begin() noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    active_ = true;
    status_ = EP_OK;
    end_ = Clock::time_point::max();
}

void Abort::end() noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    active_ = false;
}

void Abort::request(ep_status status) noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!active_ || status_ != EP_OK) return;
    status_ = status;
    if (target_ != nullptr) target_->stop();
}

ep_status Abort::requested() const noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    return status_ == EP_OK && Clock::now() >= end_ ? EP_ERROR_DEADLINE : status_;
}

void Abort::set_end(Clock::time_point end) noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    end_ = end;
}

void Abort::check() const {
    const ep_status status = requested();
    if (status == EP_ERROR_DEADLINE) throw Error(status, "the deadline passed before the answer was complete");
    if (status != EP_OK) throw Error(status, "the call was aborted by ep_session_abort");
}

Abort::Scope::Scope(Abort& abort, Stoppable& target) : abort_(abort) {
    const std::lock_guard<std::mutex> lock(abort_.mutex_);
    abort_.target_ = &target;
    if (abort_.status_ != EP_OK) target.stop();
}

Abort::Scope::~Scope() {
    const std::lock_guard<std::mutex> lock(abort_.mutex_);
    abort_.target_ = nullptr;
}

Deadline::Deadline(Abort& abort, Clock::time_point start, double deadline_ms) {
    if (deadline_ms <= 0) return;
    constexpr double kLongest_ms = 1e10;  // about four months; more would overflow the clock
    const std::chrono::duration<double, std::milli> asked(std::min(deadline_ms, kLongest_ms));
    const auto length = std::chrono::duration_cast<Clock::duration>(asked);
    const Clock::time_point end = start + length;
    abort.set_end(end);
    try {
        thread_ = std::thread([this, &abort, end] {
            std::unique_lock<std::mutex> lock(mutex_);
            if (!wake_.wait_until(lock, end, [this] { return over_; })) abort.request(EP_ERROR_DEADLINE);
        });
    } catch (const std::system_error& error) {
        throw Error(EP_ERROR_OUT_OF_MEMORY,
                    std::string("no thread could be started for the deadline: ") + error.what());
    }
}

Deadline::~Deadline() {
    if (!thread_.joinable()) return;
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        over_ = true;
    }
    wake_.notify_one();
    thread_.join();
}

}  // namespace edgeprune
