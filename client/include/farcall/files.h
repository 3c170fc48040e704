// Files of tasks: what an argument set says of those that come along, and a result of those that
// the task has left (docs/payloads.md, first byte 'B'). Pure; thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"

namespace farcall {

struct TaskFile {
  std::string name;  // in the task's directory
  std::string hash;  // of its content, with Client::store_file()
  std::uint64_t size = 0;
  std::uint32_t mode = 0644;
  bool tree = false;  // a directory: the content is a tar archive of it
};

// `arguments`: an argument set in another form than 'B'.
Bytes arguments_with_files(const std::vector<TaskFile>& files, std::string_view arguments);

struct ResultParts {
  std::optional<TaskFile> value;  // where it is (without a name); nothing: it is `rest`
  std::string_view rest;
  std::vector<TaskFile> files;
};
// Of the data of a task that succeeded, into which it points. kCorrupt.
Result<ResultParts> result_parts(std::string_view data);

}  // namespace farcall
