#include "base/log.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/rotating_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <cstdlib>
#include <mutex>
#include <shared_mutex>

namespace farcall {

namespace {

constexpr std::size_t kFileBytesMax = 64u << 20;
constexpr std::size_t kOldFilesMax = 3;

spdlog::level::level_enum spdlog_level(LogLevel level) {
  switch (level) {
    case LogLevel::kTrace:
      return spdlog::level::trace;
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarn:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::err;
}

LogLevel level_of(std::string_view word) {
  if (word == "trace") return LogLevel::kTrace;
  if (word == "debug") return LogLevel::kDebug;
  if (word == "warn") return LogLevel::kWarn;
  if (word == "error") return LogLevel::kError;
  return LogLevel::kInfo;
}

// The level in capitals and five columns, which no built-in flag prints.
class LevelFlag : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm&,
              spdlog::memory_buf_t& out) override {
    static constexpr std::string_view kNames[] = {"TRACE", "DEBUG", "INFO ", "WARN ",
                                                  "ERROR", "FATAL", "OFF  "};
    const std::string_view name = kNames[message.level];
    out.append(name.data(), name.data() + name.size());
  }
  std::unique_ptr<custom_flag_formatter> clone() const override {
    return spdlog::details::make_unique<LevelFlag>();
  }
};

void set_format(spdlog::logger& logger) {
  auto formatter =
      spdlog::details::make_unique<spdlog::pattern_formatter>(spdlog::pattern_time_type::utc);
  formatter->add_flag<LevelFlag>('*').set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %* %n: %v");
  logger.set_formatter(std::move(formatter));
}

std::shared_ptr<spdlog::logger> make_logger(const std::string& component, spdlog::sink_ptr sink,
                                            LogLevel level) {
  auto logger = std::make_shared<spdlog::logger>(component, std::move(sink));
  set_format(*logger);
  logger->set_level(spdlog_level(level));
  logger->flush_on(spdlog::level::trace);  // a process that is killed has said what it did
  return logger;
}

spdlog::sink_ptr stderr_sink() { return std::make_shared<spdlog::sinks::stderr_sink_mt>(); }

struct State {
  std::shared_mutex mutex;
  std::shared_ptr<spdlog::logger> logger = make_logger("farcall", stderr_sink(), LogLevel::kInfo);
  LogObserver observer;
  LogLevel wanted = LogLevel::kInfo;
  // What log_enabled() asks: everything while an observer looks.
  std::atomic<LogLevel> threshold{LogLevel::kInfo};
  void update_threshold() { threshold = observer ? LogLevel::kTrace : wanted; }
};

// Never destroyed: threads may log while the process exits.
State& state() {
  static State* const the_state = new State;
  return *the_state;
}

}  // namespace

void start_logging(const std::string& component, const std::string& file,
                   const std::string& level) {
  const char* wanted = std::getenv("FARCALL_LOG");
  const LogLevel threshold = level_of(wanted && *wanted ? wanted : level);
  std::string trouble;
  spdlog::sink_ptr sink;
  if (!file.empty()) {
    try {
      sink =
          std::make_shared<spdlog::sinks::rotating_file_sink_mt>(file, kFileBytesMax, kOldFilesMax);
    } catch (const spdlog::spdlog_ex& error) {
      trouble = error.what();
    }
  }
  auto logger = make_logger(component, sink ? sink : stderr_sink(), threshold);
  {
    std::unique_lock lock(state().mutex);
    state().logger = std::move(logger);
    state().wanted = threshold;
    state().update_threshold();
  }
  if (!trouble.empty()) log_warn("cannot log to {}, using stderr: {}", file, trouble);
}

void set_log_observer(LogObserver observer) {
  std::unique_lock lock(state().mutex);
  state().observer = std::move(observer);
  state().update_threshold();
}

bool log_enabled(LogLevel level) {
  return level >= state().threshold.load(std::memory_order_relaxed);
}

void log_line(LogLevel level, std::string_view text) {
  std::shared_lock lock(state().mutex);
  if (state().observer) state().observer(level, text);
  state().logger->log(spdlog_level(level), spdlog::string_view_t(text.data(), text.size()));
}

}  // namespace farcall
