#include "base/log.h"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <cstdlib>

namespace farcall {

void start_logging(const std::string& component, const std::string& file,
                   const std::string& level) {
  spdlog::sink_ptr sink;
  if (file.empty()) {
    sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  } else {
    sink = std::make_shared<spdlog::sinks::basic_file_sink_mt>(file);
  }
  auto logger = std::make_shared<spdlog::logger>(component, std::move(sink));
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %-5!l %n: %v", spdlog::pattern_time_type::utc);
  const char* wish = std::getenv("FARCALL_LOG");
  logger->set_level(spdlog::level::from_str(wish != nullptr ? wish : level));
  logger->flush_on(spdlog::level::debug);
  spdlog::set_default_logger(std::move(logger));
}

}  // namespace farcall
