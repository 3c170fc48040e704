// What the relay has in memory. Arguments and results stay in the store, but for what is new.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "relay/store/store.h"
#include "wire/messages.h"

namespace farcall::relay {

using PeerId = std::uint64_t;

struct Chunk {
  wire::ChunkMeta meta;
  std::string hash;
  std::uint64_t bytes = 0;
  std::optional<Bytes> cached;
  Range range() const {
    return {meta.first, meta.first + static_cast<std::uint32_t>(meta.sizes.size())};
  }
};

struct Submission {
  SubmissionHeader header;
  std::uint64_t order = 0;  // of arrival
  bool sealed = false;
  std::uint32_t count = 0;  // with sealed
  std::map<std::uint32_t, Chunk> chunks;  // by first
  RangeSet received;       // durable or being written
  RangeSet durable;        // subset of received
  RangeSet succeeded, failed, cancelled;  // final, disjoint
  RangeSet cancel_wished;  // may name tasks that have not come yet
  RangeSet delivered;      // held by the interchange of the current session, not final
  RangeSet undelivered;    // durable, not final, not wished away, not delivered
  RangeSet running;        // as last reported
  RangeSet collected;
  std::map<std::uint32_t, TaskHistory> histories;
  std::set<PeerId> watchers;
  std::int64_t changed_ms = 0;

  bool is_final(std::uint32_t index) const {
    return succeeded.contains(index) || failed.contains(index) || cancelled.contains(index);
  }
  std::uint64_t final_count() const {
    return succeeded.count() + failed.count() + cancelled.count();
  }
  RangeSet finals() const {
    RangeSet all = succeeded;
    all.insert(failed);
    all.insert(cancelled);
    return all;
  }
  bool complete() const { return sealed && final_count() == count && received.count() == count; }
};

struct Function {
  FunctionRecord record;
  std::set<std::string> owners;
  std::optional<Bytes> body;  // when it is in memory
  std::uint64_t size = 0;
  std::int64_t created_ms = 0;
  bool reading = false;
};

struct Endpoint {
  EndpointRow row;
  // of the connected interchange; all empty without one
  std::optional<PeerId> peer;
  InstanceId instance;
  std::string host;
  std::int32_t pid = 0;
  std::uint64_t credit_tasks = 0, credit_bytes = 0;  // granted in all
  std::uint64_t used_tasks = 0, used_bytes = 0;      // of it
  std::set<FunctionId> sent_functions;
  std::set<SubmissionId> sent_headers;
  // being put together
  wire::Work work;
  std::vector<Bytes> work_bodies, work_data;
  std::uint64_t work_bytes = 0;

  nlohmann::json status;
  std::int64_t last_seen_ms = 0;
  // Submissions with undelivered tasks: by user, then priority, then age.
  std::map<std::string, std::set<std::tuple<std::int32_t, std::uint64_t, SubmissionId>>> ready;
  std::string last_user;
};

struct Watch {
  SubmissionId submission;
  RangeSet have;  // the client's, and what was sent to it since
  bool outcomes = true;
};

struct Client {
  std::string user;
  std::string key;
  std::uint64_t credit_tasks = 0, credit_bytes = 0;
  std::uint64_t used_tasks = 0, used_bytes = 0;
  std::map<SubmissionId, Watch> watches;
  bool reading = false;  // outcomes are on their way from the store
  bool has_credit() const { return used_tasks < credit_tasks && used_bytes < credit_bytes; }
};

}  // namespace farcall::relay
