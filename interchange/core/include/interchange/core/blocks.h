// All blocks of the endpoint: how many there should be, what the scheduler says about them, and
// what to do when it does not answer. Every intent calls the submit command once, ever.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "interchange/core/effects.h"
#include "interchange/core/pace.h"
#include "interchange/core/scaling.h"
#include "interchange/core/settings.h"

namespace farcall::interchange {

// What the scheduler says about a job, as far as blocks care.
struct JobReport {
  std::string job_id;
  enum class State : std::uint8_t {
    kUnknown,
    kQueued,
    kRunning,
    kEnding,
    kEnded
  } state = State::kUnknown;
  bool listed = true;
  std::string job_name;
  std::string word, reason;
  BlockEnd end = BlockEnd::kUnknown;
};

// What a block's pilots do, counted by the core at each tick.
struct BlockUse {
  int pilots = 0;                        // connected
  bool calls_home = false;               // heard of not long ago
  std::uint64_t load = 0;                // cores
  std::uint32_t cores = 0;               // of its largest node, as reported
  Duration remaining = Duration::max();  // of its time, if known
  bool too_short = false;                // what waits does not fit into that
};

struct Demand {
  std::uint64_t cores = 0;           // of all tasks that are pending or placed
  std::uint64_t tasks = 0;           // those
  std::uint32_t slots_per_node = 0;  // 0: not known yet
  std::map<BlockId, BlockUse> use;
};

class Blocks {
 public:
  Blocks(const Settings& settings, Rng rng, Effects& effects)
      : settings_(settings), rng_(rng), effects_(effects), pace_(settings, rng) {}

  void recover(const std::vector<BlockRecord>& records, Now now);
  // Looks at demand and time; may make, look for, ask about and end blocks.
  void tick(const Demand& demand, Now now);
  // Blocks whose pilots should get Stop; each once. What runs on them may end.
  std::vector<BlockId> take_drained() { return std::exchange(drained_, {}); }
  // Blocks that have ended since the last call, with the end.
  std::vector<BlockRecord> take_ended() { return std::exchange(ended_, {}); }

  void saved(BlockId id, std::uint64_t serial, Now now);
  void submitted(BlockId id, const Result<std::string>& job_id, Now now);
  void found(BlockId id, const Result<std::vector<std::string>>& job_ids, Now now);
  void reported(const Result<std::vector<JobReport>>& reports, Now now);
  void cancelled(const std::vector<std::string>& job_ids, const Result<void>& outcome, Now now);
  // `of_use`: not on a node that is bad.
  void pilot_called(BlockId id, bool of_use, Now now);

  // Nodes that blocks submitted from here on must not get.
  void exclude(std::vector<std::string> nodes) { excluded_ = std::move(nodes); }
  // No new blocks; those that wait are cancelled, those that run end with their tasks.
  void drain_all(const std::string& why, Now now);
  // Goes on after drain_all() or a pause, at once.
  void resume();
  void end_all(const std::string& why, Now now);
  void end(BlockId id, const std::string& why, Now now);
  bool all_ended() const;

  const BlockRecord* find(BlockId id) const;
  std::vector<const BlockRecord*> all() const;  // oldest first
  bool was_stopped(BlockId id) const;           // its end is our wish, so nobody is charged for it
  bool drains(BlockId id) const;                // what runs there may end
  bool draining() const { return draining_; }   // all of them
  const std::string& paused() const { return paused_; }
  const std::string& last_error() const { return last_error_; }
  std::string explain_wait(Now now) const;
  const SchedulerPace& pace() const { return pace_; }
  // Of all blocks that ever were; and what those that are there may still use.
  double core_hours_used(Now now) const;
  double core_hours_committed(Now now) const;
  std::string sanity_check() const;

 private:
  struct Entry {
    BlockRecord record;
    std::uint64_t serial = 0;     // of the last save
    bool unwanted = false;        // ended by us
    bool draining = false;        // gets nothing any more, is ended when it is empty
    bool calls_home = false;      // as at the last tick
    bool called = false;          // a pilot of it that is of use, ever
    bool turned_away = false;     // one that is not
    bool foreign = false;         // the scheduler has given its id to another job
    bool submitted_once = false;  // in this process
    MonoTime since;               // in this state
    MonoTime idle_since = MonoTime::max();
    MonoTime next_find = MonoTime::max();
    MonoTime next_cancel = MonoTime::max();
    MonoTime doubt_since;
    int finds = 0;
    int find_failures = 0;  // in a row
    int unlisted = 0;
    bool listed_once = false;
    bool find_under_way = false;
  };

  Entry* entry(BlockId id);
  bool change(Entry& entry, BlockEvent event, std::string_view cause, Now now);
  void save(Entry& entry);
  void make_block(Now now);
  void look_at_use(const Demand& demand, Now now);
  ScalingView view(const Demand& demand, Now now);
  void scale(const Demand& demand, Now now);
  bool affordable(Now now);
  bool is_active(const Entry& entry) const;
  void give_back(BlockId id, const std::string& why, const Demand& demand, Now now);
  void watch_drained(const Demand& demand, Now now);
  void look_for_lost(Now now);
  void ask(Now now);
  void apply_report(Entry& entry, const JobReport& report, Now now);
  void back_off(const Error& error, Now now);
  void pause(const std::string& why, Now now);
  void count_failure(const Entry& entry, Now now);
  double core_seconds(const BlockRecord& block, Now now) const;
  void call(Effect effect, Now now);

  const Settings& settings_;
  Rng rng_;
  Effects& effects_;
  std::map<BlockId, Entry> blocks_;
  std::vector<BlockId> drained_;
  std::vector<std::string> excluded_;
  std::vector<BlockRecord> ended_;
  SchedulerPace pace_;
  bool started_ = false, stopping_ = false, draining_ = false;
  MonoTime not_before_;
  MonoTime excess_since_ = MonoTime::max(), no_task_since_ = MonoTime::max();
  int refusals_ = 0;              // in a row, whatever the kind
  int hard_refusals_ = 0;         // in a row, "no" in the scheduler's own words
  int dead_starts_ = 0;           // blocks in a row that ended before a pilot called
  double forgotten_core_s_ = 0;   // of blocks that are not kept any more
  std::uint32_t cores_seen_ = 0;  // of the largest node so far
  std::string paused_, last_error_, over_budget_;
};

}  // namespace farcall::interchange
