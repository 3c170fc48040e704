// Results as they come, on disk at once, and in order at the end: what has arrived survives a
// program that is killed, and a million results need no memory.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "cli/rows.h"

namespace farcall::cli {

class ResultFile {
 public:
  // Appends to `path`, one JSON line per result, and takes in what an earlier run left there; a
  // line that was cut off by a crash is dropped.
  static Result<ResultFile> open(const std::filesystem::path& path);

  // `line` is a JSON object with an "index"; `part` numbers the submissions, 0 if there is one.
  // `data`: any bytes that belong to it.
  Result<void> add(const nlohmann::json& line, std::uint32_t part = 0, std::string_view data = {});
  // What is there of a part, also from an earlier run.
  bool has(std::uint32_t index, std::uint32_t part = 0) const {
    return places_.contains({part, index});
  }
  std::uint64_t size() const { return places_.size(); }
  std::uint64_t failed() const { return failed_; }
  template <class F>
  void for_each_index(F&& f) const {
    for (const auto& [key, place] : places_) f(key.second, key.first);
  }
  // To the disk.
  Result<void> sync();
  struct Entry {
    nlohmann::json& line;
    std::uint32_t part;
    std::string_view data;
  };
  // In order of part and index, until one is an error.
  Result<void> for_each(const std::function<Result<void>(const Entry&)>& action);
  // All lines in order to `out`, in its format, synced; the file stays. `keep`: what is in `out`
  // stays before them.
  Result<void> write_ordered(const std::filesystem::path& out, RowFormat format, bool keep = false);
  // The same to a stream, as JSON lines.
  Result<void> print_ordered(std::FILE* stream);

 private:
  explicit ResultFile(std::filesystem::path path) : path_(std::move(path)) {}
  Result<nlohmann::json> read_at(std::uint64_t offset, std::string& data);
  Error failure(const char* what) const;

  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  std::filesystem::path path_;
  std::unique_ptr<std::FILE, Close> file_;
  std::map<std::pair<std::uint32_t, std::uint32_t>, std::uint64_t> places_;  // offsets
  std::uint64_t end_ = 0;
  std::uint64_t failed_ = 0;
};

// The task ids in a file that write_ordered() made of lines with "task_id"; none when there is no
// such file. kExists: it holds something else.
Result<std::set<std::string>> task_ids_in(const std::filesystem::path& path, RowFormat format);

}  // namespace farcall::cli
