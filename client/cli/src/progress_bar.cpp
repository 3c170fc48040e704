#include "cli/progress_bar.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace farcall::cli {

namespace {

std::string clock_text(double seconds) {
  const auto whole = static_cast<std::uint64_t>(std::ceil(seconds));
  if (whole >= 3600)
    return fmt::format("{}:{:02}:{:02}", whole / 3600, whole % 3600 / 60, whole % 60);
  return fmt::format("{}:{:02}", whole / 60, whole % 60);
}

}  // namespace

std::string render_progress(const ProgressView& view, int width) {
  const double done = static_cast<double>(view.done) + (view.done < view.total ? view.partial : 0);
  const double fraction = view.total ? std::min(done / static_cast<double>(view.total), 1.0) : 0;
  // In the order in which they stand; a smaller rank stays longer when the line is short.
  struct Piece {
    int rank;
    std::string text;
  };
  std::vector<Piece> pieces;
  pieces.push_back({0, fmt::format("{}/{}", view.done, view.total)});
  pieces.push_back({2, fmt::format("{:3.0f}%", std::floor(fraction * 100))});
  const std::uint64_t here = view.done - std::min(view.done, view.done_before);
  const double rate = view.elapsed_s > 0 ? static_cast<double>(here) / view.elapsed_s : 0;
  if (rate > 0) pieces.push_back({4, fmt::format("{:.{}f}/s", rate, rate < 10 ? 2 : 0)});
  if (view.done >= view.total) {
    pieces.push_back({3, fmt::format("took {}", clock_text(view.elapsed_s))});
  } else if (rate > 0) {
    const double left = static_cast<double>(view.total - view.done) / rate;
    pieces.push_back({3, fmt::format("ETA {}", clock_text(left))});
  }
  if (view.running && view.done < view.total)
    pieces.push_back({5, fmt::format("{} running", view.running)});
  if (!view.note.empty() && view.done < view.total) pieces.push_back({6, view.note});
  if (view.failed) pieces.push_back({1, fmt::format("{} failed", view.failed)});

  auto line_of = [&](int rank_max) {
    std::string line;
    for (const Piece& piece : pieces)
      if (piece.rank <= rank_max) line += (line.empty() ? "" : "  ") + piece.text;
    return line;
  };
  int rank = 6;
  std::string line = line_of(rank);
  while (rank > 0 && static_cast<int>(line.size()) > width) line = line_of(--rank);
  if (static_cast<int>(line.size()) > width)
    line.resize(static_cast<std::size_t>(std::max(width, 0)));
  const int bar = std::min(30, width - static_cast<int>(line.size()) - 3);
  if (bar < 5) return line;
  const int full = view.total ? static_cast<int>(fraction * bar) : 0;
  return "[" + std::string(static_cast<std::size_t>(full), '#') +
         std::string(static_cast<std::size_t>(bar - full), '-') + "] " + line;
}

}  // namespace farcall::cli
