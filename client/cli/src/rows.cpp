#include "cli/rows.h"

#include <charconv>
#include <nlohmann/json.hpp>

#include "farcall/payload.h"

namespace farcall::cli {

using nlohmann::json;

Result<RowFormat> row_format(const std::filesystem::path& path) {
  const std::string extension = path.extension().string();
  if (extension == ".jsonl" || extension == ".ndjson") return RowFormat::kJsonLines;
  if (extension == ".csv") return RowFormat::kCsv;
  return fail(ErrorCode::kInvalidArgument, "{}: expected a name that ends in .jsonl or .csv",
              path.string());
}

Result<std::optional<std::vector<std::string>>> next_csv_record(std::string_view& text,
                                                                std::uint64_t& line) {
  if (text.empty()) return std::optional<std::vector<std::string>>();
  std::vector<std::string> fields(1);
  std::size_t at = 0;
  bool quoted = false, was_quoted = false;
  for (; at < text.size(); ++at) {
    const char c = text[at];
    std::string& field = fields.back();
    if (quoted) {
      if (c == '\n') ++line;
      if (c != '"') {
        field.push_back(c);
      } else if (at + 1 < text.size() && text[at + 1] == '"') {
        field.push_back('"');
        ++at;
      } else {
        quoted = false;
      }
    } else if (c == '"' && field.empty() && !was_quoted) {
      quoted = was_quoted = true;
    } else if (c == ',') {
      fields.emplace_back();
      was_quoted = false;
    } else if (c == '\n') {
      break;
    } else if (c != '\r' || at + 1 >= text.size() || text[at + 1] != '\n') {
      field.push_back(c);
    }
  }
  if (quoted) return fail(ErrorCode::kInvalidArgument, "a quote is opened and never closed");
  ++line;
  text.remove_prefix(std::min(at + 1, text.size()));
  return std::optional(std::move(fields));
}

std::string csv_field(std::string_view text) {
  if (text.find_first_of(",\"\r\n") == text.npos) return std::string(text);
  std::string quoted = "\"";
  for (char c : text) {
    if (c == '"') quoted.push_back('"');
    quoted.push_back(c);
  }
  return quoted + "\"";
}

json csv_value(std::string_view field) {
  const json text = std::string(field);
  std::string_view digits = field;
  if (!digits.empty() && digits[0] == '-') digits.remove_prefix(1);
  if (digits.empty() || digits.find_first_not_of("0123456789.eE+-") != digits.npos) return text;
  const bool leading_zero = digits.size() > 1 && digits[0] == '0' && digits[1] != '.' &&
                            digits[1] != 'e' && digits[1] != 'E';
  if (leading_zero) return text;
  const char* const end = field.data() + field.size();
  std::int64_t whole = 0;
  if (auto [stop, error] = std::from_chars(field.data(), end, whole);
      error == std::errc() && stop == end)
    return whole;
  double number = 0;
  if (auto [stop, error] = std::from_chars(field.data(), end, number);
      error == std::errc() && stop == end)
    return number;
  return text;
}

Result<Bytes> arguments_from_json(std::string_view line) {
  const json value = json::parse(line, nullptr, false);
  if (value.is_discarded()) return fail(ErrorCode::kInvalidArgument, "this is no JSON");
  if (value.is_object()) return json_arguments(nullptr, value);
  if (value.is_array()) return json_arguments(value, nullptr);
  return fail(
      ErrorCode::kInvalidArgument,
      "expected a JSON object (keyword arguments) or array (positional arguments), found {}",
      value.type_name());
}

RowReader::RowReader(std::filesystem::path path, RowFormat format)
    : path_(std::move(path)), format_(format), file_(path_, std::ios::binary) {}

Result<RowReader> RowReader::open(const std::filesystem::path& path) {
  auto format = row_format(path);
  if (!format) return fail(format.error());
  RowReader reader(path, *format);
  if (!reader.file_)
    return fail(ErrorCode::kNotFound, "{} cannot be read: no such file, or no permission",
                path.string());
  char mark[3] = {};  // a byte order mark, as spreadsheets write it
  reader.file_.read(mark, 3);
  if (std::string_view(mark, 3) != "\xef\xbb\xbf") {
    reader.file_.clear();
    reader.file_.seekg(0);
  }
  if (*format == RowFormat::kCsv) {
    auto heading = reader.read_record();
    if (!heading) return fail(heading.error());
    if (!*heading)
      return fail(ErrorCode::kInvalidArgument,
                  "{} is empty: expected a first row with the names of the arguments",
                  path.string());
    reader.heading_ = std::move(**heading);
  }
  return reader;
}

Result<std::optional<Bytes>> RowReader::next() {
  return format_ == RowFormat::kCsv ? next_csv() : next_json();
}

Result<std::optional<Bytes>> RowReader::next_json() {
  for (std::string line; std::getline(file_, line);) {
    ++line_;
    if (line.find_first_not_of(" \t\r") == line.npos) continue;
    auto arguments = arguments_from_json(line);
    if (!arguments)
      return fail(arguments.error().code, "{}:{}: {}", path_.string(), line_,
                  arguments.error().message);
    return std::optional(std::move(*arguments));
  }
  return std::optional<Bytes>();
}

// Lines are joined as long as a quote is open.
Result<std::optional<std::vector<std::string>>> RowReader::read_record() {
  std::string text;
  const std::uint64_t first_line = line_ + 1;
  for (std::string line; std::getline(file_, line);) {
    text += line + "\n";
    ++line_;
    if (std::count(text.begin(), text.end(), '"') % 2 != 0) continue;
    if (text.find_first_not_of(" \t\r\n") == text.npos) {
      text.clear();
      continue;
    }
    std::string_view view = text;
    std::uint64_t lines = 0;
    return next_csv_record(view, lines);
  }
  if (text.empty()) return std::optional<std::vector<std::string>>();
  return fail(ErrorCode::kInvalidArgument, "{}:{}: a quote is opened and never closed",
              path_.string(), first_line);
}

Result<std::optional<Bytes>> RowReader::next_csv() {
  auto record = read_record();
  if (!record) return fail(record.error());
  if (!*record) return std::optional<Bytes>();
  if ((*record)->size() != heading_.size())
    return fail(ErrorCode::kInvalidArgument, "{}:{}: {} fields, the first row names {}",
                path_.string(), line_, (*record)->size(), heading_.size());
  json kwargs = json::object();
  for (std::size_t i = 0; i < heading_.size(); ++i) kwargs[heading_[i]] = csv_value((**record)[i]);
  return std::optional(json_arguments(nullptr, kwargs));
}

}  // namespace farcall::cli
