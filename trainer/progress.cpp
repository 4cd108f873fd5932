#include "trainer/progress.hpp"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <utility>
#include <vector>

namespace lockstep::trainer {
namespace {

constexpr std::size_t kUsualWidth = 80;

// 41,200; 12.3 where decimals still tell something.
std::string rate_text(double value) {
  if (!std::isfinite(value)) return "?";
  if (value < 100) return fmt::format("{:.1f}", value);
  std::string digits = fmt::format("{:.0f}", value);
  for (std::size_t i = digits.size(); i > 3; i -= 3) digits.insert(i - 3, 1, ',');
  return digits;
}

std::string loss_text(double value) {
  const double size = std::abs(value);
  const bool plain = value == 0 || (size >= 0.001 && size < 1000) || !std::isfinite(value);
  return plain ? fmt::format("{:.4f}", value) : fmt::format("{:.3e}", value);
}

std::string time_text(double seconds) {
  // Past 1000 days the number no longer means anything, and must not overflow.
  const auto whole = static_cast<std::uint64_t>(std::clamp(seconds, 0.0, 86400.0 * 1000) + 0.5);
  const std::uint64_t hours = whole / 3600, minutes = whole / 60 % 60, rest = whole % 60;
  return hours > 0 ? fmt::format("{}:{:02}:{:02}", hours, minutes, rest)
                   : fmt::format("{}:{:02}", minutes, rest);
}

std::string bar_text(double share, std::size_t cells) {
  const auto full = static_cast<std::size_t>(share * static_cast<double>(cells));
  return fmt::format("[{}{}] ", std::string(full, '#'), std::string(cells - full, '-'));
}

// Columns of the terminal behind `stream`; 0 if it is none, or one that nobody looks at.
std::size_t columns_of(std::FILE* stream) {
  const int fd = ::fileno(stream);
  if (::isatty(fd) == 0) return 0;
  winsize size{};
  if (::ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  // OpenMPI's own pseudo-terminal, with a file or a pipe at mpirun's end.
  if (std::getenv("OMPI_COMM_WORLD_SIZE") != nullptr) return 0;
  // A serial line, say, does not know its size.
  if (const char* columns = std::getenv("COLUMNS")) {
    const unsigned long value = std::strtoul(columns, nullptr, 10);
    if (value > 0 && value < 10000) return value;
  }
  return kUsualWidth;
}

double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

std::string progress_line(const ProgressUpdate& update, std::optional<double> seconds_left,
                          std::size_t width) {
  const double share = update.steps_in_epoch == 0
                           ? 0.0
                           : std::min(1.0, static_cast<double>(update.step_in_epoch) /
                                               static_cast<double>(update.steps_in_epoch));
  const std::string epoch = fmt::format("epoch {}/{} ", update.epoch, update.epochs);
  const std::string percent = fmt::format("{:.0f}%", std::floor(share * 100));
  const std::string rate = fmt::format("  {} samples/s", rate_text(update.samples_per_second));
  const std::string loss = fmt::format("  loss {}", loss_text(update.loss));
  const std::string left =
      seconds_left ? fmt::format("  {} left", time_text(*seconds_left)) : std::string();

  // From all there is to the least; the bar takes what room there is between two limits.
  struct Choice {
    std::string before, after;
    bool bar;
  };
  const std::vector<Choice> choices{
      {epoch, percent + rate + loss + left, true},
      {epoch, percent + rate + loss + left, false},
      {epoch, percent + loss + left, true},
      {epoch, percent + loss + left, false},
      {epoch, percent + left, false},
      {epoch, percent, false},
      {"", percent, false},
  };
  constexpr std::size_t kShortest = 8, kLongest = 30, kFrame = 3;  // "[] "
  for (const Choice& choice : choices) {
    const std::size_t text = choice.before.size() + choice.after.size();
    if (!choice.bar && text <= width) return choice.before + choice.after;
    if (choice.bar && text + kFrame + kShortest <= width) {
      const std::size_t cells = std::min(kLongest, width - text - kFrame);
      return choice.before + bar_text(share, cells) + choice.after;
    }
  }
  return {};
}

std::string stage_line(std::string_view name, std::size_t done, std::size_t all,
                       std::size_t width) {
  constexpr std::size_t kCells = 20;
  const double share =
      all == 0 ? 0.0 : std::min(1.0, static_cast<double>(done) / static_cast<double>(all));
  const std::string text = fmt::format("{:.0f}%  {}", std::floor(share * 100), name);
  const std::string bar = bar_text(share, kCells);
  return bar.size() + text.size() <= width ? bar + text : text.substr(0, width);
}

std::string epoch_line(const EpochSummary& summary) {
  const std::string epochs = fmt::format("{}", summary.epochs);
  std::string line = fmt::format("epoch {:>{}}/{}  loss {}", summary.epoch, epochs.size(), epochs,
                                 loss_text(summary.train_loss));
  if (summary.validation_loss) {
    line += fmt::format("  validation {}{}", loss_text(*summary.validation_loss),
                        summary.best ? '*' : ' ');
  }
  if (summary.validation_accuracy) {
    line += fmt::format(" ({:5.2f} %)", 100 * *summary.validation_accuracy);
  }
  line += fmt::format("  {} samples/s  ", rate_text(summary.samples_per_second));
  if (summary.input_share >= 0.01)
    line += fmt::format("input {:.0f} %  ", 100 * summary.input_share);
  if (summary.wait_share >= 0.01) line += fmt::format("wait {:.0f} %  ", 100 * summary.wait_share);
  line +=
      summary.seconds < 100 ? fmt::format("{:.1f} s", summary.seconds) : time_text(summary.seconds);
  return line;
}

Progress::Options Progress::detect() {
  Options options;
  const char* terminal = std::getenv("TERM");
  if (terminal != nullptr && std::string_view(terminal) == "dumb") return options;
  for (std::FILE* stream : {stdout, stderr}) {
    if (columns_of(stream) == 0) continue;
    options.bar = stream;
    options.width = [stream] { return columns_of(stream); };
    break;
  }
  return options;
}

Progress::Progress(Options options) : options_(std::move(options)) {
  if (!options_.width) options_.width = [] { return kUsualWidth; };
  if (!options_.now) options_.now = steady_seconds;
  next_ = -std::numeric_limits<double>::infinity();
}

Progress::~Progress() {
  clear();
}

void Progress::update(const ProgressUpdate& update) {
  if (options_.bar == nullptr) return;
  const std::lock_guard lock(mutex_);
  const double now = options_.now();
  if (now < next_) return;
  next_ = now + options_.interval;
  if (!first_) {
    first_ = update;
    first_at_ = now;
  }
  std::optional<double> left;
  if (update.step > first_->step) {
    const double per_step = (now - first_at_) / static_cast<double>(update.step - first_->step);
    const std::uint64_t steps = update.steps > update.step ? update.steps - update.step : 0;
    left = per_step * static_cast<double>(steps);
  }
  draw_locked(progress_line(update, left, columns()));
}

void Progress::stage(std::string_view name, std::size_t done, std::size_t all) {
  if (options_.bar == nullptr) return;
  const std::lock_guard lock(mutex_);
  draw_locked(stage_line(name, done, all, columns()));
}

// The last column stays free: some terminals wrap as soon as it is written.
std::size_t Progress::columns() const {
  const std::size_t width = options_.width();
  return width > 0 ? width - 1 : 0;
}

void Progress::draw_locked(std::string_view text) {
  fmt::print(options_.bar, "\r{}\x1b[K", text);
  std::fflush(options_.bar);
  shown_ = true;
}

void Progress::clear() {
  const std::lock_guard lock(mutex_);
  clear_locked();
}

void Progress::clear_locked() {
  if (!shown_) return;
  shown_ = false;
  std::fputs("\r\x1b[K", options_.bar);
  std::fflush(options_.bar);
  next_ = -std::numeric_limits<double>::infinity();  // the bar comes back with the next update
}

void Progress::line(std::string_view text) {
  const std::lock_guard lock(mutex_);
  clear_locked();
  std::fwrite(text.data(), 1, text.size(), options_.lines);
  std::fputc('\n', options_.lines);
  std::fflush(options_.lines);
}

}  // namespace lockstep::trainer
