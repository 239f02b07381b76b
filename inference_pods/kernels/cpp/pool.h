// A fixed team of threads that runs one function together and meets at barriers inside it.
// Waiting spins for a bounded time, then yields (in a step) or sleeps (between steps), so that a process with a small
// CPU quota, or a neighbour on the same core, is never starved by it. Knows nothing of what it runs.
#pragma once
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <sched.h>
#include <thread>
#include <vector>
#include "isa.h"

class Team {
  public:
    explicit Team(int size) : size_(size) {
        for (int i = 1; i < size; i++) threads_.emplace_back([this, i] { serve(i); });
    }
    ~Team() {
        {
            std::lock_guard<std::mutex> hold(lock_);
            stop_ = true;
            job_.fetch_add(1, std::memory_order_release);
        }
        wake_.notify_all();
        for (auto& thread : threads_) thread.join();
    }
    int size() const { return size_; }

    // Runs work(context, thread index) on every member, the caller being member 0; returns when all are done.
    void run(void (*work)(void*, int), void* context) {
        work_ = work;
        context_ = context;
        if (size_ > 1) {
            {
                std::lock_guard<std::mutex> hold(lock_);
                job_.fetch_add(1, std::memory_order_release);
            }
            wake_.notify_all();
        }
        work(context, 0);
        barrier();
    }

    void barrier() {
        if (size_ == 1) return;
        uint64_t turn = turn_.load(std::memory_order_acquire);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
            arrived_.store(0, std::memory_order_relaxed);
            turn_.store(turn + 1, std::memory_order_release);
            return;
        }
        for (int spins = 0; turn_.load(std::memory_order_acquire) == turn; spins++) {
            if (spins < SPINS_IN_STEP) cpu_pause();
            else sched_yield();
        }
    }

  private:
    static constexpr int SPINS_IN_STEP = 4000;        // about 50-150 us: longer than a balanced phase's imbalance
    static constexpr int SPINS_BETWEEN_STEPS = 2000;  // decode steps follow each other within tens of microseconds

    void serve(int index) {
        uint64_t seen = 0;
        for (;;) {
            for (int spins = 0; spins < SPINS_BETWEEN_STEPS && job_.load(std::memory_order_acquire) == seen; spins++) cpu_pause();
            if (job_.load(std::memory_order_acquire) == seen) {
                std::unique_lock<std::mutex> hold(lock_);
                wake_.wait(hold, [&] { return job_.load(std::memory_order_acquire) != seen; });
            }
            if (stop_) return;
            seen = job_.load(std::memory_order_acquire);
            work_(context_, index);
            barrier();
        }
    }

    const int size_;
    std::vector<std::thread> threads_;
    std::mutex lock_;
    std::condition_variable wake_;
    std::atomic<bool> stop_{false};
    std::atomic<uint64_t> job_{0};
    void (*work_)(void*, int) = nullptr;
    void* context_ = nullptr;
    alignas(64) std::atomic<uint64_t> turn_{0};
    alignas(64) std::atomic<int> arrived_{0};
};
