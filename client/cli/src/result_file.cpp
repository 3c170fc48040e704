#include "cli/result_file.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/files.h"
#include "common.h"

namespace farcall::cli {

using nlohmann::json;
namespace fs = std::filesystem;

namespace {

struct FreeLine {
  char* text = nullptr;
  std::size_t capacity = 0;
  ~FreeLine() { std::free(text); }
};

constexpr const char* kPartKey = "part";
constexpr const char* kBytesKey = "bytes";  // of data behind the line, with a line break after it

}  // namespace

Error ResultFile::failure(const char* what) const {
  return {ErrorCode::kIo,
          fmt::format("{} cannot be {}: {}", path_.string(), what, std::strerror(errno))};
}

Result<ResultFile> ResultFile::open(const fs::path& path) {
  ResultFile result(path);
  result.file_.reset(std::fopen(path.c_str(), "a+b"));
  if (!result.file_) return fail(result.failure("written"));
  std::rewind(result.file_.get());
  FreeLine line;
  while (true) {
    const ssize_t length = ::getline(&line.text, &line.capacity, result.file_.get());
    if (length <= 0 || line.text[length - 1] != '\n') break;
    const json value =
        json::parse(std::string_view(line.text, static_cast<std::size_t>(length)), nullptr, false);
    if (!value.is_object() || !value.contains("index")) break;
    const auto bytes = value.value(kBytesKey, std::uint64_t{0});
    if (bytes > 0) {
      std::fseek(result.file_.get(), static_cast<long>(bytes), SEEK_CUR);
      if (std::fgetc(result.file_.get()) != '\n') break;
    }
    result.places_[{value.value(kPartKey, 0u), value["index"].get<std::uint32_t>()}] = result.end_;
    if (value.value("state", "") != "succeeded") ++result.failed_;
    result.end_ += static_cast<std::uint64_t>(length) + (bytes > 0 ? bytes + 1 : 0);
  }
  if (::ftruncate(::fileno(result.file_.get()), static_cast<off_t>(result.end_)) != 0)
    return fail(result.failure("shortened"));
  std::fseek(result.file_.get(), 0, SEEK_END);
  return result;
}

Result<void> ResultFile::add(const json& line, std::uint32_t part, std::string_view data) {
  const auto index = line.at("index").get<std::uint32_t>();
  if (has(index, part)) return {};
  json stored = line;
  if (part != 0) stored[kPartKey] = part;
  if (!data.empty()) stored[kBytesKey] = data.size();
  std::string text = stored.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
  if (!data.empty()) text.append(data).push_back('\n');
  if (std::fwrite(text.data(), 1, text.size(), file_.get()) != text.size())
    return fail(failure("written"));
  places_[{part, index}] = end_;
  end_ += text.size();
  if (text_at(line, "state") != "succeeded") ++failed_;
  return {};
}

Result<void> ResultFile::sync() {
  if (std::fflush(file_.get()) != 0 || ::fdatasync(::fileno(file_.get())) != 0)
    return fail(failure("synced"));
  return {};
}

Result<json> ResultFile::read_at(std::uint64_t offset, std::string& data) {
  std::fseek(file_.get(), static_cast<long>(offset), SEEK_SET);
  FreeLine line;
  const ssize_t length = ::getline(&line.text, &line.capacity, file_.get());
  if (length <= 0) return fail(failure("read"));
  json value =
      json::parse(std::string_view(line.text, static_cast<std::size_t>(length)), nullptr, false);
  if (!value.is_object()) return fail(failure("read"));
  data.resize(value.value(kBytesKey, std::size_t{0}));
  if (std::fread(data.data(), 1, data.size(), file_.get()) != data.size())
    return fail(failure("read"));
  value.erase(kPartKey);
  value.erase(kBytesKey);
  return value;
}

Result<void> ResultFile::for_each(const std::function<Result<void>(const Entry&)>& action) {
  if (auto done = sync(); !done) return done;
  std::string data;
  Result<void> done;
  for (auto it = places_.begin(); it != places_.end() && done; ++it) {
    auto line = read_at(it->second, data);
    done = line ? action(Entry{*line, it->first.first, data}) : fail(line.error());
  }
  std::fseek(file_.get(), 0, SEEK_END);
  return done;
}

Result<void> ResultFile::write_ordered(const fs::path& out, RowFormat format, bool keep) {
  const fs::path fresh = out.string() + ".new";
  std::error_code error;
  fs::remove(fresh, error);
  if (keep) fs::copy_file(out, fresh, error);
  if (error) return fail(ErrorCode::kIo, "{} cannot be copied: {}", out.string(), error.message());
  std::unique_ptr<std::FILE, Close> file(std::fopen(fresh.c_str(), "ab"));
  auto failed = [&] {
    return fail(ErrorCode::kIo, "{} cannot be written: {}", fresh.string(), std::strerror(errno));
  };
  if (!file) return failed();
  bool first = !keep;
  auto written = for_each([&](const Entry& entry) -> Result<void> {
    std::string text;
    if (format == RowFormat::kCsv) {
      const char* last = entry.line.contains("task_id") ? ",task_id\n" : "\n";
      if (std::exchange(first, false)) text = std::string(kCsvHeading) + last;
      text += outcome_csv(entry.line) + "\n";
    } else {
      text = entry.line.dump() + "\n";
    }
    if (std::fwrite(text.data(), 1, text.size(), file.get()) != text.size()) return failed();
    return {};
  });
  if (!written) return written;
  if (std::fflush(file.get()) != 0 || ::fsync(::fileno(file.get())) != 0) return failed();
  fs::rename(fresh, out, error);
  if (error) return fail(ErrorCode::kIo, "{} cannot be written: {}", out.string(), error.message());
  return {};
}

Result<void> ResultFile::print_ordered(std::FILE* stream) {
  return for_each([&](const Entry& entry) -> Result<void> {
    fmt::print(stream, "{}\n", entry.line.dump());
    return {};
  });
}

namespace {

tl::unexpected<Error> not_ours(const fs::path& path, std::uint64_t line) {
  return fail(ErrorCode::kExists,
              "{} exists and is no result file with task ids (line {}): choose another -o, or "
              "remove it",
              path.string(), line);
}

}  // namespace

Result<std::set<std::string>> task_ids_in(const fs::path& path, RowFormat format) {
  std::set<std::string> ids;
  auto text = read_file(path);
  if (!text && text.error().code == ErrorCode::kNotFound) return ids;
  if (!text) return fail(text.error());
  std::string_view rest = *text;
  std::uint64_t line = 0;
  std::size_t column = 0;  // of task_id in a CSV file
  while (!rest.empty()) {
    ++line;
    if (format == RowFormat::kJsonLines) {
      const std::size_t end = rest.find('\n');
      const json value = json::parse(rest.substr(0, end), nullptr, false);
      if (end == std::string_view::npos || !value.is_object() || !value.contains("task_id"))
        return not_ours(path, line);
      ids.insert(text_at(value, "task_id"));
      rest.remove_prefix(end + 1);
      continue;
    }
    auto record = next_csv_record(rest, line);
    if (!record || !*record) return not_ours(path, line);
    const auto& cells = **record;
    if (ids.empty() && column == 0) {
      column = static_cast<std::size_t>(std::find(cells.begin(), cells.end(), "task_id") -
                                        cells.begin());
      if (column == cells.size()) return not_ours(path, line);
    } else if (column >= cells.size()) {
      return not_ours(path, line);
    } else {
      ids.insert(cells[column]);
    }
  }
  return ids;
}

}  // namespace farcall::cli
