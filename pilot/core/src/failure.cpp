#include "pilot/core/failure.h"

#include <nlohmann/json.hpp>

namespace farcall::pilot {

Bytes failure_data(const FailureText& failure) {
  nlohmann::json json = {{"type", failure.type},
                         {"module", failure.module},
                         {"message", failure.message},
                         {"class", name_of(failure.failure)},
                         {"host", failure.host}};
  if (failure.signal != 0) json["signal"] = failure.signal;
  if (!failure.limit.empty()) json["limit"] = failure.limit;
  if (!failure.used.empty()) json["used"] = failure.used;
  if (failure.attempt != 0) json["attempt"] = failure.attempt;
  // Text of a program's stderr may be anything; a failure must never fail to be told.
  const std::string text = json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  std::string out = "E";
  for (int i = 0; i < 4; ++i) out += static_cast<char>(text.size() >> (8 * i) & 0xff);
  return Bytes(out + text);
}

}  // namespace farcall::pilot
