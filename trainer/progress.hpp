// What a person sees of a run: a bar on a terminal, and one line per epoch everywhere.
//
// Rank 0 alone makes a Progress; no call is collective. All calls may come from any thread. Nothing
// throws for want of a terminal: without one, update() does nothing. Rates are samples a second,
// times are seconds, accuracies are shares of 1.
//
// Whoever prints anything to the terminal beside line() calls clear() before. The bar and the lines
// go to the same stream where that is a terminal, because mpirun carries the two streams of a rank
// separately and mixes them as it likes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

namespace lockstep::trainer {

// Where a run is.
struct ProgressUpdate {
  std::uint64_t epoch = 0;  // under way, from 1
  std::uint64_t epochs = 0;
  std::uint64_t step_in_epoch = 0;  // done
  std::uint64_t steps_in_epoch = 0;
  std::uint64_t step = 0;  // done in the whole run
  std::uint64_t steps = 0;
  double samples_per_second = 0;
  double loss = 0;
};

// What one epoch came to.
struct EpochSummary {
  std::uint64_t epoch = 0;  // from 1
  std::uint64_t epochs = 0;
  double train_loss = 0;
  std::optional<double> validation_loss = {};
  std::optional<double> validation_accuracy = {};
  double samples_per_second = 0;
  double seconds = 0;
  double input_share = 0;  // of the training time in which steps waited for samples
  double wait_share = 0;   // of the same, in which ranks waited for others: their mean
  bool best = false;       // the best validation loss so far
};

// "epoch 3/10 [#####-----] 52%  41,200 samples/s  loss 0.1234  2:31 left", in at most `width`
// columns: what does not fit is left out, the least important first.
std::string progress_line(const ProgressUpdate& update, std::optional<double> seconds_left,
                          std::size_t width);

// "epoch  3/10  loss 0.1234  validation 0.2345* (97.65 %)  41,200 samples/s  12.3 s": of the
// training the loss, of the validation loss and accuracy, where * marks the best so far. If steps
// waited for samples for 1 % of the time or more, "  input 3 %" follows the rate, and "  wait 8 %"
// if ranks waited for others for 1 % or more.
std::string epoch_line(const EpochSummary& summary);

// "[#####-----] 50%  memory, all at once", in at most `width` columns: `done` of `all` stages are
// over and `name` is under way. Without room the bar goes first.
std::string stage_line(std::string_view name, std::size_t done, std::size_t all, std::size_t width);

class Progress {
 public:
  struct Options {
    std::FILE* bar = nullptr;                 // where the bar is drawn; null: nowhere
    std::FILE* lines = stdout;                // where line() goes
    std::function<std::size_t()> width = {};  // columns of the terminal; asked before each drawing
    double interval = 0.1;                    // seconds between two drawings, at least
    std::function<double()> now = {};         // seconds on a steady clock; empty: the system's
  };

  // A bar if standard output or else standard error is a terminal. Under mpirun a rank's standard
  // output is always one, of OpenMPI's making; it has a width if mpirun's own is a terminal on the
  // same host, and none otherwise (OpenMPI 4.1 and 5.0).
  static Options detect();

  explicit Progress(Options options = detect());
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress();  // clears the bar

  bool draws() const { return options_.bar != nullptr; }  // else update() does nothing
  double interval() const { return options_.interval; }   // seconds

  // Draws only when the interval is over.
  void update(const ProgressUpdate& update);

  // Draws at once, for work of a few long stages.
  void stage(std::string_view name, std::size_t done, std::size_t all);

  void clear();
  void line(std::string_view text);

 private:
  void draw_locked(std::string_view text);
  void clear_locked();
  std::size_t columns() const;

  Options options_;
  std::mutex mutex_;
  bool shown_ = false;
  double next_ = 0;                      // when to draw again
  std::optional<ProgressUpdate> first_;  // from which the time left is told
  double first_at_ = 0;
};

}  // namespace lockstep::trainer
