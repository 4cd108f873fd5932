#include "trainer/progress.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <thread>
#include <vector>

namespace lockstep::trainer {
namespace {

ProgressUpdate some_update() {
  return {.epoch = 3,
          .epochs = 10,
          .step_in_epoch = 52,
          .steps_in_epoch = 100,
          .step = 252,
          .steps = 1000,
          .samples_per_second = 41200,
          .loss = 0.12341};
}

// A file in memory that the bar is drawn on.
class Paper {
 public:
  Paper() : file_(open_memstream(&text_, &size_)) {}
  Paper(const Paper&) = delete;
  Paper& operator=(const Paper&) = delete;
  ~Paper() {
    std::fclose(file_);
    free(text_);
  }
  std::FILE* file() { return file_; }
  std::string text() {
    std::fflush(file_);
    return {text_, size_};
  }

 private:
  char* text_ = nullptr;
  std::size_t size_ = 0;
  std::FILE* file_;
};

// What a terminal shows after `text`: carriage return, erase to the end of the line, new line.
std::vector<std::string> screen(const std::string& text) {
  std::vector<std::string> lines{""};
  std::size_t column = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\r') {
      column = 0;
    } else if (text[i] == '\n') {
      lines.emplace_back();
      column = 0;
    } else if (text.compare(i, 3, "\x1b[K") == 0) {
      lines.back().resize(column);
      i += 2;
    } else {
      lines.back().resize(std::max(lines.back().size(), column + 1), ' ');
      lines.back()[column++] = text[i];
    }
  }
  return lines;
}

TEST(ProgressLine, HasEverythingWhereThereIsRoom) {
  EXPECT_EQ(progress_line(some_update(), 151.0, 72),
            "epoch 3/10 [######-------] 52%  41,200 samples/s  loss 0.1234  2:31 left");
  EXPECT_EQ(progress_line(some_update(), std::nullopt, 60),
            "epoch 3/10 [######------] 52%  41,200 samples/s  loss 0.1234");
}

TEST(ProgressLine, FitsEveryWidthAndGrowsWithIt) {
  std::size_t last = 0;
  for (std::size_t width = 0; width < 200; ++width) {
    const std::string line = progress_line(some_update(), 151.0, width);
    EXPECT_LE(line.size(), width);
    if (width >= 3) {
      EXPECT_NE(line.find("52%"), std::string::npos) << width;
    }
    last = std::max(last, line.size());
  }
  EXPECT_LT(last, 110U);  // the bar does not fill a wide screen
  EXPECT_EQ(progress_line(some_update(), 151.0, 40), "epoch 3/10 52%  loss 0.1234  2:31 left");
  EXPECT_EQ(progress_line(some_update(), 151.0, 26), "epoch 3/10 52%  2:31 left");
  EXPECT_EQ(progress_line(some_update(), 151.0, 15), "epoch 3/10 52%");
  EXPECT_EQ(progress_line(some_update(), 151.0, 5), "52%");
  EXPECT_EQ(progress_line(some_update(), 151.0, 2), "");
}

TEST(ProgressLine, BearsStrangeNumbers) {
  const double infinity = std::numeric_limits<double>::infinity();
  for (const double value : {0.0, -1.0, 1e-300, 1e300, infinity, -infinity, std::nan("")}) {
    ProgressUpdate update = some_update();
    update.samples_per_second = value;
    update.loss = value;
    EXPECT_LE(progress_line(update, std::isnan(value) ? 0.0 : value, 80).size(), 80U) << value;
  }
  EXPECT_EQ(progress_line({}, std::nullopt, 14), "epoch 0/0 0%");
  ProgressUpdate over = some_update();
  over.step_in_epoch = 1000;
  EXPECT_NE(progress_line(over, std::nullopt, 80).find(" 100%"), std::string::npos);
  EXPECT_NE(progress_line(some_update(), 3725.0, 80).find("1:02:05 left"), std::string::npos);
}

TEST(StageLine, SaysHowMuchIsDoneAndFits) {
  EXPECT_EQ(stage_line("memory", 1, 4, 80), "[#####---------------] 25%  memory");
  EXPECT_EQ(stage_line("memory", 1, 4, 20), "25%  memory");
  EXPECT_EQ(stage_line("memory", 9, 4, 80), "[####################] 100%  memory");
  for (std::size_t width = 0; width < 60; ++width) {
    EXPECT_LE(stage_line("messages between ranks 0 and 1", 3, 7, width).size(), width);
  }
}

TEST(EpochLine, SaysWhatThereIs) {
  EpochSummary summary{.epoch = 3,
                       .epochs = 10,
                       .train_loss = 0.12341,
                       .samples_per_second = 1234567,
                       .seconds = 12.34};
  EXPECT_EQ(epoch_line(summary), "epoch  3/10  loss 0.1234  1,234,567 samples/s  12.3 s");
  summary.input_share = 0.0099;
  EXPECT_EQ(epoch_line(summary), "epoch  3/10  loss 0.1234  1,234,567 samples/s  12.3 s");
  summary.input_share = 0.034;
  EXPECT_EQ(epoch_line(summary),
            "epoch  3/10  loss 0.1234  1,234,567 samples/s  input 3 %  12.3 s");
  summary.wait_share = 0.078;
  EXPECT_EQ(epoch_line(summary),
            "epoch  3/10  loss 0.1234  1,234,567 samples/s  input 3 %  wait 8 %  12.3 s");
  summary.input_share = 0;
  EXPECT_EQ(epoch_line(summary), "epoch  3/10  loss 0.1234  1,234,567 samples/s  wait 8 %  12.3 s");
  summary.wait_share = 0;
  summary.validation_loss = 0.5;
  summary.validation_accuracy = 0.97651;
  summary.best = true;
  summary.seconds = 754;
  summary.samples_per_second = 41200;
  EXPECT_EQ(epoch_line(summary),
            "epoch  3/10  loss 0.1234  validation 0.5000* (97.65 %)  41,200 samples/s  12:34");
  EXPECT_LE(epoch_line(summary).size(), 80U);
  summary.best = false;
  summary.validation_accuracy.reset();
  EXPECT_EQ(epoch_line(summary),
            "epoch  3/10  loss 0.1234  validation 0.5000   41,200 samples/s  12:34");
}

TEST(Progress, DrawsNoMoreOftenThanItsInterval) {
  Paper paper;
  double now = 100;
  Progress progress({.bar = paper.file(),
                     .lines = paper.file(),
                     .width = [] { return std::size_t{80}; },
                     .interval = 0.1,
                     .now = [&] { return now; }});
  ProgressUpdate update = some_update();
  for (int i = 0; i < 10000; ++i) {  // one second of steps
    ++update.step;
    now += 1e-4;
    progress.update(update);
  }
  const std::string text = paper.text();
  const auto drawings = std::count(text.begin(), text.end(), '\r');
  EXPECT_GE(drawings, 9);
  EXPECT_LE(drawings, 11);
}

TEST(Progress, TellsTheTimeLeftFromTheStepsSeen) {
  Paper paper;
  double now = 0;
  Progress progress({.bar = paper.file(),
                     .lines = paper.file(),
                     .width = [] { return std::size_t{80}; },
                     .now = [&] { return now; }});
  ProgressUpdate update = some_update();
  update.step = 500;  // as after a resume: those steps took this process no time
  progress.update(update);
  EXPECT_EQ(paper.text().find("left"), std::string::npos);
  update.step = 600;
  now = 10;  // 0.1 s a step, 400 steps to go
  progress.update(update);
  EXPECT_NE(paper.text().find("0:40 left"), std::string::npos);
}

TEST(Progress, LinesStandAloneOnTheScreen) {
  Paper paper;
  double now = 0;
  {
    Progress progress({.bar = paper.file(),
                       .lines = paper.file(),
                       .width = [] { return std::size_t{60}; },
                       .now = [&] { return now; }});
    progress.update(some_update());
    EXPECT_EQ(screen(paper.text()).back().substr(0, 10), "epoch 3/10");
    progress.line("first");
    progress.update(some_update());  // comes back at once
    EXPECT_EQ(screen(paper.text()).back().substr(0, 10), "epoch 3/10");
    progress.line("second");
    progress.line("third");
    now = 1;
    progress.update(some_update());
    progress.clear();
    progress.clear();
    progress.update(some_update());
  }
  EXPECT_EQ(screen(paper.text()), (std::vector<std::string>{"first", "second", "third", ""}));
}

TEST(Progress, StagesAreDrawnAtOnceAndCleared) {
  Paper paper;
  {
    Progress progress({.bar = paper.file(), .lines = paper.file()});
    progress.stage("first", 0, 2);
    progress.stage("second", 1, 2);
    EXPECT_EQ(screen(paper.text()).back(), stage_line("second", 1, 2, 79));
    progress.line("found");
  }
  EXPECT_EQ(screen(paper.text()), (std::vector<std::string>{"found", ""}));
}

TEST(Progress, IsSilentWithoutATerminal) {
  Paper paper;
  Progress progress({.lines = paper.file()});
  for (int i = 0; i < 100; ++i) progress.update(some_update());
  progress.stage("first", 0, 2);
  progress.clear();
  progress.line("epoch");
  EXPECT_EQ(paper.text(), "epoch\n");
}

TEST(Progress, ThreadsMayPrintAtOnce) {
  Paper paper;
  {
    Progress progress({.bar = paper.file(), .lines = paper.file(), .interval = 0});
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        for (int i = 0; i < 100; ++i) {
          progress.update(some_update());
          progress.line("a whole line");
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  std::vector<std::string> lines = screen(paper.text());
  EXPECT_EQ(lines.back(), "");
  lines.pop_back();
  EXPECT_EQ(lines, std::vector<std::string>(400, "a whole line"));
}

// detect() in a child whose standard output is a pseudo-terminal of `columns`: the width that it
// found, or 0 if it draws no bar.
int detected_width(unsigned short columns, const char* mpirun, const char* environment_columns,
                   const char* terminal = "xterm") {
  const int controller = posix_openpt(O_RDWR | O_NOCTTY);
  EXPECT_GE(controller, 0);
  EXPECT_EQ(grantpt(controller), 0);
  EXPECT_EQ(unlockpt(controller), 0);
  const int terminal_end = open(ptsname(controller), O_RDWR | O_NOCTTY);
  EXPECT_GE(terminal_end, 0);
  winsize size{};
  size.ws_col = columns;
  EXPECT_EQ(ioctl(terminal_end, TIOCSWINSZ, &size), 0);
  const pid_t child = fork();
  if (child == 0) {
    dup2(terminal_end, STDOUT_FILENO);
    const int nothing = open("/dev/null", O_WRONLY);
    dup2(nothing, STDERR_FILENO);
    mpirun != nullptr ? setenv("OMPI_COMM_WORLD_SIZE", mpirun, 1)
                      : unsetenv("OMPI_COMM_WORLD_SIZE");
    environment_columns != nullptr ? setenv("COLUMNS", environment_columns, 1)
                                   : unsetenv("COLUMNS");
    setenv("TERM", terminal, 1);
    const Progress::Options options = Progress::detect();
    _exit(options.bar == stdout ? static_cast<int>(options.width()) : 0);
  }
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  close(terminal_end);
  close(controller);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(Progress, FindsTheTerminal) {
  EXPECT_EQ(detected_width(93, nullptr, nullptr), 93);
  EXPECT_EQ(detected_width(93, "2", nullptr), 93);  // mpirun on a terminal
  EXPECT_EQ(detected_width(0, "2", "70"), 0);       // mpirun into a file
  EXPECT_EQ(detected_width(0, nullptr, "70"), 70);
  EXPECT_EQ(detected_width(0, nullptr, "wide"), 80);
  EXPECT_EQ(detected_width(0, nullptr, nullptr), 80);
  EXPECT_EQ(detected_width(93, nullptr, nullptr, "dumb"), 0);
}

}  // namespace
}  // namespace lockstep::trainer
