// A core with its surroundings played by the test.
#pragma once

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "pilot/core/core.h"
#include "pilot/core/failure.h"
#include "wire/codec.h"

namespace farcall::pilot::test {

inline SubmissionId submission(std::uint8_t n) { return SubmissionId{{n}}; }
inline wire::AttemptRef ref(std::uint8_t n, std::uint32_t index, std::uint16_t attempt = 1) {
  return {submission(n), index, attempt};
}
inline nlohmann::json failure_json(const Bytes& data) {
  return nlohmann::json::parse(data.view().substr(5));
}

struct Delivered {
  wire::AttemptRef ref;
  TaskOutcome outcome;
  Bytes data;
};

class Bench {
 public:
  explicit Bench(std::uint32_t slots, Settings settings = {}) : slots_(slots) {
    settings.hello.cores = slots;
    settings.hello.node = "n1";
    now = {{std::chrono::seconds(1000)}, WallTime::from_milliseconds(1'700'000'000'000)};
    core.emplace(std::move(settings), now);
  }

  void advance(Duration d) {
    now.mono = now.mono + d;
    now.wall = now.wall + d;
    settle();
  }
  wire::PilotHello hello() { return core->make_hello(now); }
  void welcome(std::vector<wire::AttemptRef> abandon = {}, std::uint64_t epoch = 1) {
    wire::PilotWelcome message;
    message.epoch = epoch;
    message.slots = slots_;
    message.abandon = std::move(abandon);
    core->on_message(wire::make_message(message), now);
    header_sent.clear();
    settle();
  }
  struct Options {
    FunctionKind kind = FunctionKind::kPythonSource;
    std::uint64_t walltime_ms = 0;
    std::uint32_t cores = 1;
  };
  void dispatch(std::uint8_t n, std::vector<std::pair<std::uint32_t, std::string>> tasks,
                std::uint16_t attempt = 1) {
    dispatch(n, std::move(tasks), attempt, Options{});
  }
  void dispatch(std::uint8_t n, std::vector<std::pair<std::uint32_t, std::string>> tasks,
                std::uint16_t attempt, const Options& options) {
    wire::Dispatch message;
    std::vector<Bytes> payload;
    const FunctionId function{{9, n}};
    if (header_sent.insert(n).second) {
      message.functions.push_back({function, options.kind, "f", "{}"});
      payload.push_back(Bytes(std::string("body")));
      SubmissionHeader header;
      header.submission = submission(n);
      header.function = function;
      header.walltime_ms = options.walltime_ms;
      header.resources.cores = options.cores;
      message.submissions.push_back(header);
    }
    std::string arguments;
    wire::DispatchGroup group{submission(n), {}};
    for (auto& [index, text] : tasks) {
      group.tasks.push_back({index, attempt, static_cast<std::uint32_t>(text.size())});
      arguments += text;
    }
    message.groups.push_back(group);
    payload.push_back(Bytes(arguments));
    core->on_message(wire::make_message(message, payload), now);
    settle();
  }
  void cancel(std::vector<wire::AttemptRef> refs) {
    core->on_message(wire::make_message(wire::CancelAttempts{std::move(refs)}), now);
    settle();
  }
  void stop(std::uint64_t grace_ms) {
    core->on_message(wire::make_message(wire::Stop{"the block is idle", grace_ms}), now);
    settle();
  }
  void ack(std::vector<std::uint64_t> numbers) {
    core->on_message(wire::make_message(wire::ResultsAck{std::move(numbers)}), now);
    settle();
  }
  void succeed(const wire::AttemptRef& r, const std::string& value = "J1",
               std::int64_t took_ms = 0) {
    Finished finished{r, {}, Bytes(value)};
    finished.outcome.ended_ms = now.wall.milliseconds_since_epoch();
    finished.outcome.started_ms = finished.outcome.ended_ms - took_ms;
    core->on_finished(std::move(finished), now);
    settle();
  }
  void blob(const std::string& hash, const Result<std::string>& file) {
    core->on_blob(hash, file, now);
    settle();
  }
  void began(const wire::AttemptRef& r) {
    core->on_began(r, now);
    settle();
  }
  void killed(const wire::AttemptRef& r) {
    core->on_killed(r, now);
    settle();
  }

  // Runs the core's turn and files the effects.
  void settle() {
    core->settle(now);
    for (Effect& effect : core->take_effects()) {
      if (auto* start = std::get_if<Start>(&effect)) started.push_back(*start);
      if (auto* kill = std::get_if<Kill>(&effect)) kills.push_back(kill->ref);
      if (auto* exit = std::get_if<Exit>(&effect)) exits.push_back(*exit);
      if (auto* redial = std::get_if<Redial>(&effect)) redials.push_back(redial->why);
      if (auto* get = std::get_if<GetBlob>(&effect)) wanted.push_back(get->blob.hash);
      if (auto* drop = std::get_if<DropBlob>(&effect)) let_go.push_back(drop->hash);
      if (auto* send = std::get_if<Send>(&effect)) file(send->message);
      if (auto* save = std::get_if<Save>(&effect)) saved.push_back(save->results);
      if (std::holds_alternative<DropSaved>(effect)) ++dropped;
    }
    EXPECT_EQ(core->sanity_check(), "");
  }
  void file(const wire::Message& message) {
    sent.push_back(message.type);
    if (message.type == wire::MessageType::kResults) {
      auto results = wire::decode<wire::Results>(message);
      batches.push_back(results->batch);
      std::size_t offset = 0;
      for (const auto& item : results->results)
        for (const auto& outcome : item.outcomes) {
          delivered.push_back({{item.submission, outcome.index, outcome.attempt},
                               outcome,
                               message.payload.at(0).slice(offset, outcome.data_size)});
          offset += outcome.data_size;
        }
    }
    if (message.type == wire::MessageType::kHandBack) {
      auto back = wire::decode<wire::HandBack>(message);
      for (const auto& r : back->attempts) handed_back.emplace_back(r, back->reason);
    }
    if (message.type == wire::MessageType::kRunning)
      running.push_back(*wire::decode<wire::Running>(message));
  }

  std::uint32_t slots_;
  Now now;
  std::optional<Core> core;
  std::set<std::uint8_t> header_sent;
  std::vector<Start> started;
  std::vector<wire::AttemptRef> kills;
  std::vector<Exit> exits;
  std::vector<wire::Message> saved;
  int dropped = 0;
  std::vector<std::string> wanted, let_go;  // hashes of blobs
  std::vector<std::string> redials;
  std::vector<Delivered> delivered;
  std::vector<std::uint64_t> batches;
  std::vector<std::pair<wire::AttemptRef, FailureClass>> handed_back;
  std::vector<wire::Running> running;
  std::vector<wire::MessageType> sent;
};

}  // namespace farcall::pilot::test
