// Tasks of a kernel's plan on four threads, each task once.
#pragma once

#include <cstddef>
#include <thread>
#include <vector>

template <class Plan>
void run_on_threads(Plan&& plan) {
    std::vector<std::thread> threads;
    for (size_t thread = 0; thread < 4; ++thread) {
        threads.emplace_back([&plan, thread] {
            for (size_t task = thread; task < plan.tasks(); task += 4) plan.run(task);
        });
    }
    for (std::thread& thread : threads) thread.join();
}
