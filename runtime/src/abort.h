// Stopping work from another thread: ep_session_abort and deadlines.
#pragma once

#include <condition_variable>
#include <mutex>
#include <thread>

#include "clock.h"
#include "edgeprune.h"

namespace edgeprune {

// Something that runs now and can be told to stop, from any thread.
class Stoppable {
public:
    virtual ~Stoppable() = default;
    virtual void stop() noexcept = 0;
};

// One per session. A request counts only while work is under way: without any it does nothing.
class Abort {
public:
    void begin() noexcept;
    void end() noexcept;
    // status: EP_ERROR_ABORTED or EP_ERROR_DEADLINE; the first request of a piece of work stands.
    void request(ep_status status) noexcept;
    // Throws Error with the status of the request, if there is one.
    void check() const;
    // The request that stands, or EP_ERROR_DEADLINE behind `end`: on a busy machine the deadline's thread may be late.
    ep_status requested() const noexcept;
    void set_end(Clock::time_point end) noexcept;

    // Registers what a request has to stop, for the life of the scope; stops it at once when a request came first.
    class Scope {
    public:
        Scope(Abort& abort, Stoppable& target);
        ~Scope();
        Scope(const Scope&) = delete;
        Scope& operator=(const Scope&) = delete;

    private:
        Abort& abort_;
    };

private:
    mutable std::mutex mutex_;
    bool active_ = false;
    ep_status status_ = EP_OK;
    Clock::time_point end_ = Clock::time_point::max();
    Stoppable* target_ = nullptr;
};

// Requests EP_ERROR_DEADLINE at a point in time unless it is destroyed before.
class Deadline {
public:
    // deadline_ms after `start`; 0: none, and no thread is started.
    Deadline(Abort& abort, Clock::time_point start, double deadline_ms);
    ~Deadline();
    Deadline(const Deadline&) = delete;
    Deadline& operator=(const Deadline&) = delete;

private:
    std::mutex mutex_;
    std::condition_variable wake_;
    bool over_ = false;
    std::thread thread_;
};

}  // namespace edgeprune
