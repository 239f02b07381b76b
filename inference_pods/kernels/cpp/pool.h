// A fixed team of threads that runs one function together and meets at barriers inside it.
// Waiting spins for a bounded time, then yields, then sleeps, so that a process with a small CPU quota, or a neighbour on
// the same core, is never starved by it. Each thread learns how long spinning pays: where the others cannot run meanwhile
// (fewer cores than threads), it soon yields at once. Knows nothing of what it runs.
#pragma once
#include <atomic>
#include <chrono>
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
        wait_beyond(turn);
    }

  private:
    static constexpr int MOST_SPINS = 2000;  // 30-110 us, as pause takes 40-140 cycles: longer than a phase's imbalance
    static constexpr int FEWEST_SPINS = 16;
    static constexpr int YIELDS = 200;       // then the awaited thread sits on another core, behind other work or a quota
    static constexpr int SPINS_BETWEEN_STEPS = 2000;  // decode steps follow each other within tens of microseconds

    void wait_beyond(uint64_t turn) {
        static thread_local int patience = MOST_SPINS;
        auto has_passed = [&] { return turn_.load(std::memory_order_acquire) != turn; };
        for (int spins = 0; spins < patience; spins++) {
            if (has_passed()) {
                patience = patience < MOST_SPINS / 2 ? patience * 2 : MOST_SPINS;
                return;
            }
            cpu_pause();
        }
        patience = patience > 4 * FEWEST_SPINS ? patience / 4 : FEWEST_SPINS;
        for (int yields = 0; !has_passed(); yields++) {
            if (yields < YIELDS) sched_yield();
            else std::this_thread::sleep_for(std::chrono::microseconds(50));
        }
    }

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
