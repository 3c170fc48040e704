// Serial, two-rank and full-width tasks in one queue: wide ones get their turn, and the nodes are
// not idle meanwhile.
#include <gtest/gtest.h>

#include <algorithm>
#include <queue>

#include "interchange/core/core.h"

namespace farcall::interchange {
namespace {

constexpr std::uint32_t kNodes = 4, kSlots = 8;

struct Job {
  std::uint32_t ranks = 0;
  Duration takes{0}, walltime{0};
  Duration started{-1}, ended{-1};
};

// One block of pilots that run what they get for as long as it takes.
class Mix {
 public:
  // `to_the_walltime`: each job takes all the time it may.
  explicit Mix(std::uint64_t seed, bool to_the_walltime = false)
      : to_the_walltime_(to_the_walltime), rng_(seed) {
    Settings settings;
    settings.slots_per_node = kSlots;
    settings.scaling.nodes_per_block = kNodes;
    core_ = std::make_unique<Core>(settings, Rng(seed));
    BlockRecord block;
    block.id = block_ = make_id<BlockId>(now_.wall, rng_);
    block.state = BlockState::kRunning;
    block.job_id = "7";
    block.nodes = kNodes;
    Recovered state;
    state.epoch = 1;
    state.blocks.push_back(block);
    core_->recover(state, now_);
    core_->relay_message(wire::make_message(wire::EndpointWelcome{1, "g", {}, "e"}), now_);
    for (std::uint32_t rank = 0; rank < kNodes; ++rank) {
      wire::PilotHello hello;
      hello.block = block_;
      hello.pilot = make_id<PilotId>(now_.wall, rng_);
      hello.node = fmt::format("n{}", rank);
      hello.node_rank = rank;
      hello.cores = kSlots;
      core_->pilot_hello(rank + 1, block_, wire::make_message(hello), now_);
    }
  }

  void submit(std::uint32_t ranks) {
    Job job;
    job.ranks = ranks;
    job.takes = std::chrono::seconds(20 + static_cast<int>(rng_.below(100)));
    job.walltime = job.takes + job.takes / 4;
    if (to_the_walltime_) job.takes = job.walltime;
    wire::Work work;
    if (jobs_.empty()) work.functions.emplace_back();
    SubmissionHeader header;
    header.submission = make_id<SubmissionId>(now_.wall, rng_);
    header.resources.ranks = ranks;
    header.resources.nodes = ranks > 0 ? 0 : 1;
    header.walltime_ms = static_cast<std::uint64_t>(job.walltime / std::chrono::milliseconds(1));
    work.submissions.push_back(header);
    work.chunks.push_back({header.submission, {0, {1}}, RangeSet{{0, 1}}, {}});
    std::vector<Bytes> payload;
    if (jobs_.empty()) payload.emplace_back(std::string("body"));
    payload.emplace_back(std::string("a"));
    index_[header.submission] = jobs_.size();
    jobs_.push_back(job);
    core_->relay_message(wire::make_message(work, std::move(payload)), now_);
    take();
  }

  void run() {
    while (!running_.empty()) {
      const auto [ends, number, peer, ref] = running_.top();
      running_.pop();
      now_.mono.since_start = ends;
      jobs_[number].ended = ends;
      wire::Results results{++batches_[peer], {{ref.submission, {}}}};
      TaskOutcome outcome;
      outcome.index = ref.index;
      results.results[0].outcomes.push_back(outcome);
      core_->pilot_message(peer, wire::make_message(results, {Bytes()}), now_);
      take();
    }
  }

  const std::vector<Job>& jobs() const { return jobs_; }

 private:
  void take() {
    for (Effect& effect : core_->take_effects(now_)) {
      const auto* send = std::get_if<effect::SendPilot>(&effect);
      if (send == nullptr || send->message.type != wire::MessageType::kDispatch) continue;
      const auto dispatch = wire::decode<wire::Dispatch>(send->message);
      for (const auto& group : dispatch->groups)
        for (const auto& task : group.tasks) {
          const std::size_t number = index_.at(group.submission);
          Job& job = jobs_[number];
          EXPECT_LT(job.started, Duration{0}) << "started twice";
          job.started = now_.mono.since_start;
          running_.push({job.started + job.takes,
                         number,
                         send->peer,
                         {group.submission, task.index, task.attempt}});
        }
    }
    ASSERT_EQ(core_->sanity_check(), "");
  }

  struct Run {
    Duration ends;
    std::size_t number;
    PeerId peer;
    wire::AttemptRef ref;
    bool operator<(const Run& other) const { return ends > other.ends; }
  };
  const bool to_the_walltime_;
  Rng rng_;
  Now now_{{std::chrono::seconds(1)}, {std::chrono::hours(24)}};
  std::unique_ptr<Core> core_;
  BlockId block_;
  std::vector<Job> jobs_;
  std::map<SubmissionId, std::size_t> index_;
  std::map<PeerId, std::uint64_t> batches_;
  std::priority_queue<Run> running_;
};

std::vector<std::uint32_t> shuffled(std::uint64_t seed) {
  std::vector<std::uint32_t> ranks(200, 0);
  ranks.insert(ranks.end(), 40, 2);
  ranks.insert(ranks.end(), 8, kNodes * kSlots);
  Rng rng(seed + 1000);
  for (std::size_t i = ranks.size() - 1; i > 0; --i) std::swap(ranks[i], ranks[rng.below(i + 1)]);
  return ranks;
}

// When the last of the first `count` jobs begins if there were no others, and all of them took as
// long as they may.
Duration alone(std::uint64_t seed, const std::vector<std::uint32_t>& ranks, std::size_t count) {
  Mix mix(seed, true);
  for (std::size_t i = 0; i < count; ++i) mix.submit(ranks[i]);
  mix.run();
  return mix.jobs().back().started;
}

// No wide task waits for more than the work ahead of it. One of full width begins by the time it
// would begin if nothing had come after it; one of two ranks, which with luck finds a gap before
// those ahead of it, at the latest when they are over. And tasks behind them do use the gaps.
TEST(MixOfWidths, NoWideTaskWaitsForMoreThanTheWorkAheadOfIt) {
  std::uint64_t filled = 0;
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    Mix mix(seed);
    const std::vector<std::uint32_t> order = shuffled(seed);
    for (std::uint32_t ranks : order) mix.submit(ranks);
    mix.run();
    const std::vector<Job>& jobs = mix.jobs();
    double work_s = 0;
    // Of what is ahead: its last start, and when all of it is over.
    Duration end{0}, ahead{0}, over{std::chrono::seconds(1)};
    for (std::size_t i = 0; i < jobs.size(); ++i) {
      const Job& job = jobs[i];
      ASSERT_GE(job.ended, Duration{0}) << "seed " << seed << ": a task never ran";
      const bool full = job.ranks == kNodes * kSlots;
      if (full) {
        EXPECT_LE(job.started, alone(seed, order, i + 1)) << "seed " << seed << ", job " << i;
      } else if (job.ranks > 0) {
        EXPECT_LE(job.started, over) << "seed " << seed << ", job " << i;
      }
      for (std::size_t other = i + 1; full && other < jobs.size(); ++other)
        filled += jobs[other].started > ahead && jobs[other].started < job.started;
      ahead = std::max(ahead, job.started);
      over = std::max(over, job.started + job.walltime);
      end = std::max(end, job.ended);
      work_s += std::max(1U, job.ranks) * std::chrono::duration<double>(job.takes).count();
    }
    const double held_s =
        std::chrono::duration<double>(end - std::chrono::seconds(1)).count() * kNodes * kSlots;
    fmt::print("seed {}: {:.0f} core-seconds of work in {:.0f} held: {:.1f} %\n", seed, work_s,
               held_s, 100 * work_s / held_s);
  }
  EXPECT_GT(filled, 0u);
}

}  // namespace
}  // namespace farcall::interchange
