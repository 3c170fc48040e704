// Inputs of a sweep: one task per line of a JSON Lines file or per row of a CSV file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"

namespace farcall::cli {

enum class RowFormat { kJsonLines, kCsv };
// By the extension: .jsonl or .ndjson, .csv. kInvalidArgument otherwise.
Result<RowFormat> row_format(const std::filesystem::path& path);

// One record of a CSV text (RFC 4180: quotes, doubled quotes, line breaks within quotes; CRLF or
// LF). Moves `text` past it; nullopt at the end. `line` counts up by the line breaks consumed.
Result<std::optional<std::vector<std::string>>> next_csv_record(std::string_view& text,
                                                                std::uint64_t& line);
std::string csv_field(std::string_view text);  // quoted when it must be
// "12", "-1.5e3", ".5" become numbers; anything else, 007 and nan included, stays a text.
nlohmann::json csv_value(std::string_view field);

// An argument set from a line: an object is kwargs, an array args; kInvalidArgument for others.
Result<Bytes> arguments_from_json(std::string_view line);

// Reads one argument set after the other in bounded memory. Empty lines are skipped. Errors name
// file and line.
class RowReader {
 public:
  static Result<RowReader> open(const std::filesystem::path& path);
  Result<std::optional<Bytes>> next();

 private:
  RowReader(std::filesystem::path path, RowFormat format);
  Result<std::optional<Bytes>> next_json();
  Result<std::optional<Bytes>> next_csv();
  Result<std::optional<std::vector<std::string>>> read_record();

  std::filesystem::path path_;
  RowFormat format_;
  std::ifstream file_;
  std::uint64_t line_ = 0;
  std::vector<std::string> heading_;
};

}  // namespace farcall::cli
