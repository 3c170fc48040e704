#include "wire/failure.h"

#include <nlohmann/json.hpp>

namespace farcall::wire {
namespace {

constexpr std::size_t kBeforeJson = 5;  // 'E' and the length

std::string with_head(const nlohmann::json& json) {
  // Text of a program's stderr may be anything; a failure must never fail to be told.
  const std::string text = json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  std::string out = "E";
  for (int i = 0; i < 4; ++i) out += static_cast<char>(text.size() >> (8 * i) & 0xff);
  return out + text;
}

}  // namespace

Bytes failure_data(const FailureText& failure) {
  nlohmann::json json = {{"type", failure.type},
                         {"module", "farcall"},
                         {"message", failure.message},
                         {"class", name_of(failure.failure)},
                         {"host", failure.host}};
  if (failure.signal != 0) json["signal"] = failure.signal;
  if (!failure.limit.empty()) json["limit"] = failure.limit;
  if (failure.attempt != 0) json["attempt"] = failure.attempt;
  if (!failure.job_id.empty()) json["job_id"] = failure.job_id;
  return Bytes(with_head(json));
}

std::string with_job_id(std::string_view data, const std::string& job_id) {
  const auto as_it_is = [&] { return std::string(data); };
  if (job_id.empty() || data.size() < kBeforeJson || data[0] != 'E') return as_it_is();
  std::size_t size = 0;
  for (std::size_t i = 0; i < 4; ++i)
    size |= std::size_t{static_cast<unsigned char>(data[1 + i])} << (8 * i);
  if (size > data.size() - kBeforeJson) return as_it_is();
  auto json = nlohmann::json::parse(data.substr(kBeforeJson, size), nullptr, false);
  if (!json.is_object() || json.contains("job_id")) return as_it_is();
  json["job_id"] = job_id;
  return with_head(json).append(data.substr(kBeforeJson + size));
}

}  // namespace farcall::wire
