// Progress and output of a running attempt.
#pragma once

#include <cstdint>
#include <string>

namespace farcall::pilot {

// What a running attempt says of itself or prints: see wire::TaskNote.
struct Note {
  bool has_progress = false;  // the next three were said
  double done = 0, total = 0;
  std::string text;
  std::string out, err;
  std::uint64_t out_offset = 0, err_offset = 0;
};

}  // namespace farcall::pilot
