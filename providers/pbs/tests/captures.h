// What a real OpenPBS and two versions of its clients printed, as files of
//   $ command      # as user, time
//   --- stdout … --- stderr … --- exit code  (seconds)
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "base/files.h"
#include "providers/command_text.h"

namespace farcall::providers::pbs {

struct Capture {
  std::string file, command;
  CommandOutput output;
};

// The captured commands whose text starts with `program`, of all files.
inline std::vector<Capture> captures(const std::string& program) {
  std::vector<Capture> found;
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(FARCALL_PBS_CAPTURES))
    files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  for (const auto& path : files) {
    const std::string text = *read_file(path);
    for (std::size_t at = 0; (at = text.find("$ ", at)) != std::string::npos; at += 2) {
      if (at != 0 && text[at - 1] != '\n') continue;
      const auto out = text.find("\n--- stdout\n", at), err = text.find("--- stderr\n", at),
                 end = text.find("--- exit ", at);
      if (end == std::string::npos || out > err || err > end) continue;
      Capture capture{
          path.filename(), text.substr(at + 2, text.find("      # as", at) - at - 2), {}};
      capture.output.out = text.substr(out + 12, err - out - 12);
      capture.output.err = text.substr(err + 11, end - err - 11);
      const std::string code = text.substr(end + 9, 7);
      capture.output.timed_out = code == "TIMEOUT";
      capture.output.exit_code = std::atoi(code.c_str());
      if (capture.command.starts_with(program + " ") || capture.command == program)
        found.push_back(std::move(capture));
    }
  }
  return found;
}

// Every JSON document in the captures: from a line "{" to the line "}".
inline std::vector<std::pair<std::string, std::string>> captured_documents() {
  std::vector<std::pair<std::string, std::string>> found;
  for (const auto& entry : std::filesystem::directory_iterator(FARCALL_PBS_CAPTURES)) {
    const std::string text = *read_file(entry.path());
    for (std::size_t at = 0; (at = text.find("{\n", at)) != std::string::npos; ++at) {
      if (at != 0 && text[at - 1] != '\n') continue;
      const auto end = text.find("\n}", at);
      if (end != std::string::npos)
        found.emplace_back(entry.path().filename(), text.substr(at, end + 2 - at));
    }
  }
  return found;
}

}  // namespace farcall::providers::pbs
