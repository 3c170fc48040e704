// What a command is taken to have printed, for tests that read the answers of schedulers.
#pragma once

#include <string>

#include "base/subprocess.h"

namespace farcall::test {

inline CommandOutput said(int exit_code, std::string out, std::string err = "") {
  CommandOutput output;
  output.exit_code = exit_code;
  output.out = std::move(out);
  output.err = std::move(err);
  return output;
}

// Killed when its time limit was over.
inline CommandOutput hung(Duration limit) {
  CommandOutput output = said(137, "");
  output.timed_out = true;
  output.took = limit;
  return output;
}

}  // namespace farcall::test
