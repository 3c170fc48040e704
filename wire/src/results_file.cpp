#include "wire/results_file.h"

#include <cstdio>

#include "wire/codec.h"

namespace farcall::wire {

std::string pack_results_file(const Message& results) {
  const std::string_view data =
      results.payload.empty() ? std::string_view() : results.payload.front().view();
  std::string file = fmt::format("farcall-results 1 {} {}\n", results.body.size(), data.size());
  file += results.body.view();
  file += data;
  return file;
}

Result<Message> unpack_results_file(const Bytes& file) {
  const std::string_view all = file.view();
  const std::size_t line_end = all.substr(0, 100).find('\n');
  const std::string line(all.substr(0, line_end == std::string_view::npos ? 0 : line_end));
  int version = 0;
  unsigned long long body_size = 0, data_size = 0;
  if (std::sscanf(line.c_str(), "farcall-results %d %llu %llu", &version, &body_size, &data_size) !=
      3)
    return fail(ErrorCode::kCorrupt, "{} bytes without the first line of a results file",
                all.size());
  if (version != 1)
    return fail(ErrorCode::kVersion, "a results file of version {}, this farcall knows 1", version);
  const std::size_t rest = all.size() - line_end - 1;
  if (body_size > rest || data_size != rest - body_size)
    return fail(ErrorCode::kCorrupt,
                "a results file with {} bytes after its first line, which says {} and {}", rest,
                body_size, data_size);
  Message message{MessageType::kResults,
                  file.slice(line_end + 1, body_size),
                  {file.slice(line_end + 1 + body_size, data_size)}};
  const auto results = decode<Results>(message);
  if (!results) return fail(results.error());
  std::uint64_t claimed = 0;
  for (const SubmissionOutcomes& each : results->results)
    for (const TaskOutcome& outcome : each.outcomes) claimed += outcome.data_size;
  if (claimed != data_size)
    return fail(ErrorCode::kCorrupt, "a results file with {} bytes of data, its outcomes claim {}",
                data_size, claimed);
  return message;
}

}  // namespace farcall::wire
