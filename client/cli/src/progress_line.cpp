#include "progress_line.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

namespace farcall::cli {

namespace {

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

int terminal_width() {
  winsize size{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col - 1;
  return 79;
}

}  // namespace

ProgressLine::ProgressLine(const Invocation& invocation, std::uint64_t total,
                           std::uint64_t done_before)
    : terminal_(::isatty(STDERR_FILENO)),
      shown_(terminal_ || invocation.has("progress")),
      started_s_(now_s()) {
  view_.total = total;
  view_.done = view_.done_before = done_before;
}

ProgressLine::~ProgressLine() {
  if (!shown_) return;
  draw();
  if (terminal_ && drawn_) fmt::print(stderr, "\n");
}

void ProgressLine::update(std::uint64_t done, std::uint64_t failed, std::uint64_t running) {
  view_.done = done;
  view_.failed = failed;
  view_.running = running;
  refresh();
}

void ProgressLine::refresh() {
  // A file or pipe gets a line every 10 s, a terminal one that moves.
  if (shown_ && now_s() - last_s_ > (terminal_ ? 0.1 : 10)) draw();
}

void ProgressLine::take(const TaskNotes& notes) {
  for (const TaskNote& note : notes.notes) {
    if (!note.has_progress) continue;
    if (note.total > 0) shares_[note.index] = std::clamp(note.done / note.total, 0.0, 1.0);
    view_.note = fmt::format("task {}:", note.index);
    if (note.total > 0)
      view_.note += fmt::format(" {:g}/{:g}", note.done, note.total);
    else if (note.text.empty())
      view_.note += fmt::format(" {:g}", note.done);
    if (!note.text.empty()) view_.note += " " + note.text;
  }
  refresh();
}

void ProgressLine::draw() {
  view_.partial = 0;
  for (const auto& [index, share] : shares_) view_.partial += share;
  last_s_ = now_s();
  view_.elapsed_s = last_s_ - started_s_;
  const std::string line = render_progress(view_, terminal_width());
  if (line == last_line_) return;
  last_line_ = line;
  drawn_ = true;
  if (terminal_)
    fmt::print(stderr, "\r\x1b[K{}", line);
  else
    fmt::print(stderr, "{}\n", line);
  std::fflush(stderr);
}

}  // namespace farcall::cli
