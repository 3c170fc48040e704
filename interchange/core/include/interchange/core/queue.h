// The submissions of this endpoint and where each of their tasks stands here. A task is an index in
// a set of ranges; it becomes something of its own only when it has a history.
//
// Of the tasks a submission knows, each is in exactly one of: pending (to be placed), placed (with
// a pilot, see Pilots), done (has a final outcome, which the relay has not acknowledged yet).
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "interchange/core/fit.h"
#include "wire/blobs.h"
#include "wire/messages.h"

namespace farcall::interchange {

struct Chunk {
  std::vector<std::uint32_t> offsets;  // of each argument set, and the end
  Bytes data;
  std::uint32_t remaining = 0;       // wanted here and not done
  std::vector<wire::BlobRef> blobs;  // that those needed when they came
};

struct Submission {
  SubmissionId id;
  std::optional<SubmissionHeader> header;  // none: known only from our own disk so far
  std::uint64_t arrival = 0;
  std::uint32_t cores_on_disk = 1;  // of each task, while there is no header
  bool never_on_disk = false;       // retry: never, likewise

  RangeSet delivered;  // with their arguments in a chunk, unless done
  RangeSet pending, placed, done;
  RangeSet cancelled;                              // wished for, and not done
  Duration cut_after{0};                           // one of them had so long and did not end
  std::map<std::uint32_t, TaskHistory> histories;  // of tasks that are not on their first attempt
  std::map<std::uint32_t, Chunk> chunks;           // by first index

  std::uint32_t cores() const { return header ? total_cores(header->resources) : cores_on_disk; }
  bool never_again() const { return header ? header->retry.never : never_on_disk; }
  bool simple() const { return !header || is_simple(header->resources); }
  std::uint16_t attempt_of(std::uint32_t index) const {
    const auto found = histories.find(index);
    return found == histories.end() ? std::uint16_t{1} : found->second.attempt;
  }
};

// Of a task that begins now; max: not known.
MonoTime latest_end(const Submission& submission, Now now);

struct Function {
  FunctionRecord record;
  Bytes body;
  std::vector<wire::BlobRef> blobs;
};

class Queue {
 public:
  // Made when it is not known.
  Submission& submission(const SubmissionId& id);
  Submission* find(const SubmissionId& id);
  const Function* function(const FunctionId& id) const;

  // --- from the relay ---
  void add_function(FunctionRecord record, Bytes body);
  void add_header(SubmissionHeader header);
  // Takes the tasks of `run` that are not known yet; returns how many those are. Nothing is taken
  // twice. REQUIRES: chunk.sizes add up to data.size(), run lies within the chunk.
  std::uint64_t deliver(Submission& submission, const wire::ChunkMeta& chunk, const RangeSet& run,
                        const std::vector<TaskHistory>& histories, const Bytes& data);
  // Drops headers and functions that nothing needs: they come again in a new session.
  void new_session();
  // Forgets these wherever they are (placed ones are the caller's to clear).
  void forget(Submission& submission, const RangeSet& indices);

  // --- moving tasks; each REQUIRES that the indices are where they come from ---
  RangeSet take_pending(Submission& submission, std::uint64_t count);
  void pend(Submission& submission, const RangeSet& indices);  // from `placed`; or forgets: no args
  void place(Submission& submission, const RangeSet& indices);  // known only from disk
  void finish(Submission& submission, std::uint32_t index);     // from pending or placed
  void finish(Submission& submission, const RangeSet& pending);
  void mark_done(Submission& submission, std::uint32_t index);  // from the spool of an earlier life
  void acknowledge(const wire::SubmissionRanges& tasks);        // done → gone

  struct Order {
    std::int32_t priority;
    std::uint64_t arrival;
    auto operator<=>(const Order&) const = default;
  };
  // With pending tasks, best first.
  const std::map<Order, Submission*>& ready() const { return ready_; }
  // Some of them have tasks that need certain slots.
  bool wide_waits() const { return !wide_ready_.empty(); }
  const std::unordered_map<SubmissionId, std::unique_ptr<Submission>>& all() const {
    return submissions_;
  }

  // One frame with the arguments of these, in order; a slice where they lie together.
  static Bytes arguments(const Submission& submission, const RangeSet& indices,
                         std::vector<std::uint32_t>& sizes);

  // Blobs that tasks here began to need or need no more since the last call; each as often as it
  // is needed.
  std::vector<wire::BlobRef> take_needed() { return std::exchange(needed_, {}); }
  std::vector<wire::BlobRef> take_released() { return std::exchange(released_, {}); }

  std::uint64_t held_tasks() const { return held_tasks_; }  // pending and placed
  std::uint64_t held_bytes() const { return held_bytes_; }  // of chunks
  std::uint64_t pending_tasks() const { return pending_tasks_; }
  std::uint64_t pending_cores() const { return pending_cores_; }
  std::vector<wire::SubmissionRanges> holds() const;  // delivered or done, for the hello
  std::string sanity_check() const;

 private:
  void count_pending(Submission& submission, std::int64_t change);
  void release_argument(Submission& submission, std::uint32_t index);
  void set_ready(Submission& submission);
  void need_blobs(Chunk& chunk, std::uint32_t first, const RangeSet& wanted);

  std::unordered_map<SubmissionId, std::unique_ptr<Submission>> submissions_;
  std::unordered_map<FunctionId, Function> functions_;
  std::map<Order, Submission*> ready_;
  std::set<Order> wide_ready_;
  std::vector<wire::BlobRef> needed_, released_;
  std::uint64_t arrivals_ = 0;
  std::uint64_t held_tasks_ = 0, held_bytes_ = 0, pending_tasks_ = 0, pending_cores_ = 0;
};

}  // namespace farcall::interchange
