// A piece of work that other threads of the task arena do while the caller goes on.
//
// One piece at a time. What the work throws, wait() throws. One caller at a time; local. The caller
// takes no part before wait(), provided that whatever hands out work meanwhile does so inside
// apart_from_background(): else it might take this work up in the middle of its own.
#pragma once

#include <tbb/task_arena.h>
#include <tbb/task_group.h>

#include <utility>

namespace lockstep::trainer {

class Background {
 public:
  Background() = default;
  Background(const Background&) = delete;
  Background& operator=(const Background&) = delete;
  ~Background() {
    try {
      wait();
    } catch (...) {  // nobody is left to be told
    }
  }

  // What `work` refers to must stay until wait() or the end of this object.
  template <class Work>
  void start(Work work) {
    under_way_ = true;
    tasks_.run(std::move(work));
  }

  // Does what nobody has begun, and waits for the rest. Nothing if nothing was started.
  void wait() {
    if (!std::exchange(under_way_, false)) return;
    tasks_.wait();
  }

  bool under_way() const { return under_way_; }

 private:
  tbb::task_group tasks_;
  bool under_way_ = false;
};

// Calls work(), which takes up no task but its own while it waits for other threads.
template <class Work>
void apart_from_background(const Work& work) {
  tbb::this_task_arena::isolate(work);
}

}  // namespace lockstep::trainer
