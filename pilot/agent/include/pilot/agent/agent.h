// The node agent: a Core with a connection and runners. Lives on its loop's thread.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "base/error.h"
#include "pilot/agent/credentials.h"
#include "wire/zmq/loop.h"

namespace farcall::pilot {

struct AgentOptions {
  Credentials credentials;
  std::filesystem::path credentials_file;  // read again when nobody answers; empty: it is not
  std::uint32_t node_rank = 0;
  std::string job_start;
  std::filesystem::path scratch_root;  // a directory of our own is made below it
  std::uint32_t cores = 0;             // 0: what the node has
  std::optional<MonoTime> allocation_end;
  std::string software;  // "farcall 0.1.0"
};

class Agent {
 public:
  // Makes the scratch directory; kIo when it cannot. REQUIRES: no other thread was started yet
  // (signals of ended children are blocked here), and no other Agent lives in this process.
  static Result<std::unique_ptr<Agent>> make(wire::Loop& loop, AgentOptions options);
  // Kills every descendant of this process and removes the scratch directory. The loop must not be
  // run afterwards: its timers and turns still name this agent.
  ~Agent();
  Agent(const Agent&) = delete;

  // Finishes nothing that takes longer than `grace`, hands the rest back, delivers what it has;
  // then the loop is stopped.
  void terminate(const std::string& reason, Duration grace);
  // Set when the loop was stopped by the agent: exit code and why.
  struct End {
    int code = 0;
    std::string why;
  };
  const std::optional<End>& end() const;
  const std::filesystem::path& scratch() const;

 private:
  struct Impl;
  explicit Agent(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace farcall::pilot
