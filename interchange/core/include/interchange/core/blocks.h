// All blocks of the endpoint: how many there should be, what the scheduler says about them, and
// what to do when it does not answer. Every intent calls the submit command once, ever.
#pragma once

#include <deque>
#include <map>
#include <string>
#include <vector>

#include "interchange/core/effects.h"
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
  int pilots = 0;           // connected
  bool calls_home = false;  // heard of not long ago
  std::uint64_t load = 0;   // cores
};

struct Demand {
  std::uint64_t cores = 0;           // of all tasks that are pending or placed
  std::uint32_t slots_per_node = 0;  // 0: not known yet
  std::map<BlockId, BlockUse> use;
};

class Blocks {
 public:
  Blocks(const Settings& settings, Rng rng, Effects& effects)
      : settings_(settings), rng_(rng), effects_(effects) {}

  void recover(const std::vector<BlockRecord>& records, Now now);
  // Looks at demand and time; may make, look for, ask about and end blocks.
  void tick(const Demand& demand, Now now);
  // Idle blocks that should get Stop; each once.
  std::vector<BlockId> take_idle() { return std::exchange(idle_, {}); }
  // Blocks that have ended since the last call, with the end.
  std::vector<BlockRecord> take_ended() { return std::exchange(ended_, {}); }

  void saved(BlockId id, std::uint64_t serial, Now now);
  void submitted(BlockId id, const Result<std::string>& job_id, Now now);
  void found(BlockId id, const Result<std::vector<std::string>>& job_ids, Now now);
  void reported(const Result<std::vector<JobReport>>& reports, Now now);
  void cancelled(const std::vector<std::string>& job_ids, const Result<void>& outcome, Now now);
  void pilot_called(BlockId id, Now now);

  // No new blocks from here on.
  void stop_making() { stopping_ = true; }
  void end_all(const std::string& why, Now now);
  void end(BlockId id, const std::string& why, Now now);
  bool all_ended() const;

  const BlockRecord* find(BlockId id) const;
  std::vector<const BlockRecord*> all() const;  // oldest first
  bool was_stopped(BlockId id) const;           // its end is our wish, so nobody is charged for it
  const std::string& paused() const { return paused_; }
  const std::string& last_error() const { return last_error_; }
  std::string explain_wait(Now now) const;
  int calls_last_hour(Now now) const;
  std::string sanity_check() const;

 private:
  struct Entry {
    BlockRecord record;
    std::uint64_t serial = 0;     // of the last save
    bool unwanted = false;        // ended by us
    bool submitted_once = false;  // in this process
    MonoTime since;               // in this state
    MonoTime idle_since = MonoTime::max();
    MonoTime next_find = MonoTime::max();
    MonoTime next_cancel = MonoTime::max();
    MonoTime doubt_since;
    int finds = 0;
    int unlisted = 0;
    bool listed_once = false;
    bool find_under_way = false;
  };

  Entry* entry(BlockId id);
  bool change(Entry& entry, BlockEvent event, std::string_view cause, Now now);
  void save(Entry& entry);
  void make_block(Now now);
  void scale(const Demand& demand, Now now);
  int wanted(const Demand& demand) const;
  int active() const;
  void watch_idle(const Demand& demand, Now now);
  void look_for_lost(Now now);
  void ask(const Demand& demand, Now now);
  void apply_report(Entry& entry, const JobReport& report, Now now);
  void back_off(const Error& error, Now now);
  void call(Effect effect, Now now);

  const Settings& settings_;
  Rng rng_;
  Effects& effects_;
  std::map<BlockId, Entry> blocks_;
  std::vector<BlockId> idle_;
  std::vector<BlockRecord> ended_;
  bool started_ = false, stopping_ = false;
  bool status_under_way_ = false;
  MonoTime next_status_, not_before_;
  int refusals_ = 0;       // in a row, whatever the kind
  int hard_refusals_ = 0;  // in a row, "no" in the scheduler's own words
  std::string paused_, last_error_;
  std::deque<MonoTime> calls_;
};

}  // namespace farcall::interchange
