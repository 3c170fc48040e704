#include "providers/command_text.h"

#include <algorithm>
#include <cctype>

namespace farcall::providers {

namespace {

constexpr std::size_t kWordsMax = 800;

// "sbatch: error: Batch job …" -> "Batch job …"
std::string_view without_prefix(std::string_view line) {
  constexpr std::string_view kError = "error: ";
  const auto at = line.find(kError);
  const bool is_prefix = at != std::string_view::npos && at <= 24 && !has(line.substr(0, at), ". ");
  return is_prefix ? line.substr(at + kError.size()) : line;
}

}  // namespace

std::string_view trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (;;) {
    const auto end = text.find(separator);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

std::optional<long long> to_number(std::string_view text) {
  long long value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return value;
}

bool has(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

bool has_any(std::string_view text, std::initializer_list<std::string_view> parts) {
  return std::any_of(parts.begin(), parts.end(), [&](auto part) { return has(text, part); });
}

double seconds_of(Duration duration) { return std::chrono::duration<double>(duration).count(); }

std::string words_of(const CommandOutput& output) {
  std::string words;
  for (const auto line : split(output.err.empty() ? output.out : output.err, '\n')) {
    const auto text = without_prefix(trimmed(line));
    if (text.empty()) continue;
    words += (words.empty() ? "" : "; ") + std::string(text);
    if (words.size() > kWordsMax) break;
  }
  return words.empty() ? "no text" : words;
}

std::vector<std::string> short_names(const std::vector<std::string>& hosts) {
  std::vector<std::string> names;
  for (const std::string& host : hosts) {
    std::string name = host.substr(0, host.find('.'));
    const bool plain = std::all_of(name.begin(), name.end(), [](unsigned char c) {
      return std::isalnum(c) != 0 || c == '-' || c == '_';
    });
    if (plain && !name.empty()) names.push_back(std::move(name));
  }
  return names;
}

std::vector<Ids> in_chunks(const Ids& ids,
                           const std::function<std::string(const std::string&)>& key) {
  constexpr std::size_t kChunk = 100;
  std::vector<Ids> chunks;
  for (const auto& id : ids) {
    auto chunk = std::find_if(chunks.begin(), chunks.end(), [&](const Ids& each) {
      return each.size() < kChunk && key(each.front()) == key(id);
    });
    if (chunk == chunks.end()) chunk = chunks.emplace(chunks.end());
    chunk->push_back(id);
  }
  return chunks;
}

Result<void> cancel_each(const std::vector<Ids>& chunks,
                         const std::function<Result<void>(const Ids&)>& cancel) {
  Result<void> first;
  for (const auto& chunk : chunks) {
    auto done = cancel(chunk);
    const bool away = !done && done.error().code != ErrorCode::kSchedulerRefused;
    if (!done && first) first = std::move(done);
    if (away) break;
  }
  return first;
}

}  // namespace farcall::providers
