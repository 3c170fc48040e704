#include "cli/result_file.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

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
    result.places_[{value.value(kPartKey, 0u), value["index"].get<std::uint32_t>()}] = result.end_;
    if (value.value("state", "") != "succeeded") ++result.failed_;
    result.end_ += static_cast<std::uint64_t>(length);
  }
  if (::ftruncate(::fileno(result.file_.get()), static_cast<off_t>(result.end_)) != 0)
    return fail(result.failure("shortened"));
  std::fseek(result.file_.get(), 0, SEEK_END);
  return result;
}

Result<void> ResultFile::add(const json& line, std::uint32_t part) {
  const auto index = line.at("index").get<std::uint32_t>();
  if (has(index, part)) return {};
  json stored = line;
  if (part != 0) stored[kPartKey] = part;
  const std::string text = stored.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
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

Result<std::string> ResultFile::line_at(std::uint64_t offset) {
  std::fseek(file_.get(), static_cast<long>(offset), SEEK_SET);
  FreeLine line;
  const ssize_t length = ::getline(&line.text, &line.capacity, file_.get());
  if (length <= 0) return fail(failure("read"));
  return std::string(line.text, static_cast<std::size_t>(length));
}

Result<void> ResultFile::write_ordered(const fs::path& out, RowFormat format) {
  if (auto done = sync(); !done) return fail(done.error());
  const fs::path fresh = out.string() + ".new";
  std::unique_ptr<std::FILE, Close> file(std::fopen(fresh.c_str(), "wb"));
  auto failed = [&] {
    return fail(ErrorCode::kIo, "{} cannot be written: {}", fresh.string(), std::strerror(errno));
  };
  if (!file) return failed();
  if (format == RowFormat::kCsv) fmt::print(file.get(), "{}\n", kCsvHeading);
  for (const auto& [key, offset] : places_) {
    auto line = line_at(offset);
    if (!line) return fail(line.error());
    json value = json::parse(*line, nullptr, false);
    value.erase(kPartKey);
    const std::string text = (format == RowFormat::kCsv ? outcome_csv(value) : value.dump()) + "\n";
    if (std::fwrite(text.data(), 1, text.size(), file.get()) != text.size()) return failed();
  }
  std::fseek(file_.get(), 0, SEEK_END);
  if (std::fflush(file.get()) != 0 || ::fsync(::fileno(file.get())) != 0) return failed();
  std::error_code error;
  fs::rename(fresh, out, error);
  if (error) return fail(ErrorCode::kIo, "{} cannot be written: {}", out.string(), error.message());
  return {};
}

Result<void> ResultFile::print_ordered(std::FILE* stream) {
  if (auto done = sync(); !done) return fail(done.error());
  for (const auto& [key, offset] : places_) {
    auto line = line_at(offset);
    if (!line) return fail(line.error());
    json value = json::parse(*line, nullptr, false);
    value.erase(kPartKey);
    fmt::print(stream, "{}\n", value.dump());
  }
  std::fseek(file_.get(), 0, SEEK_END);
  return {};
}

}  // namespace farcall::cli
