#include "world.h"

#include "base/log.h"

namespace farcall::interchange::sim {

World::World(Scenario scenario) : scenario_(scenario), rng_(scenario.seed) {
  function_.id = make_id<FunctionId>(now().wall, rng_);
  function_.name = "f";
  for (int i = 0; i < scenario_.submissions; ++i) {
    SimSubmission submission;
    SubmissionHeader& header = submission.header;
    header.submission = make_id<SubmissionId>(now().wall, rng_);
    header.function = function_.id;
    header.priority = static_cast<std::int32_t>(rng_.below(3));
    header.resources.cores =
        chance(25) ? 1 + static_cast<std::uint32_t>(rng_.below(scenario_.slots)) : 1;
    if (chance(20)) header.walltime_ms = 30'000;
    header.retry.user_error = chance(20) ? 2 : 0;
    submission.tasks.resize(
        1 + rng_.below(static_cast<std::uint64_t>(scenario_.tasks_per_submission) * 2));
    submission_index_[header.submission] = submissions_.size();
    submissions_.push_back(std::move(submission));
  }
}

void World::in(Duration delay, Action action) {
  events_waiting_.push({time_ + delay, ++order_, std::move(action)});
}

void World::complain(const std::string& what) {
  if (wrong_.empty())
    wrong_ = fmt::format("at {:.3f} s: {}", static_cast<double>(time_.count()) / 1e9, what);
}

// --- interchange ---------------------------------------------------------------------------------

void World::start_core() {
  Settings settings;
  settings.endpoint_name = "sim";
  settings.slots_per_node = scenario_.slots;
  settings.lost_timeout = seconds(60);
  settings.window_tasks = scenario_.window_tasks;
  settings.scaling.max_blocks = scenario_.max_blocks;
  settings.scaling.nodes_per_block = scenario_.nodes_per_block;
  settings.scaling.walltime_s = static_cast<double>(scenario_.walltime / seconds(1));
  settings.stop_limit = seconds(600);
  core_ = std::make_unique<Core>(settings, Rng(rng_.next()));
  ++life_;
  if (life_ > 1) core_->recover(disk_, now());
  disk_free_ = time_;
  dial_relay();
  tick();
}

void World::kill_core() {
  ++restarts_;
  core_.reset();
  ++life_;
  relay_up_ = false;
  ++relay_session_;
  writes_pending_ = 0;
  for (auto& [id, pilot] : pilots_)
    if (pilot.peer != 0) break_pilot(pilot);
  in(up_to(seconds(30)), [this] { start_core(); });
}

void World::event(const Action& action) {
  if (!core_) return;
  action();
  Effects effects = core_->take_effects(now());
  const std::uint64_t life = life_;
  for (Effect& effect : effects)
    if (life == life_) carry_out(effect);
  if (++events_ % static_cast<std::uint64_t>(scenario_.check_every) != 0) return;
  if (std::string wrong = core_->sanity_check(); !wrong.empty()) complain(wrong);
}

void World::tick() {
  const std::uint64_t life = life_;
  event([this] { core_->tick(now()); });
  if (!exited_)
    in(milliseconds(100) + (chance(1) ? up_to(seconds(5)) : Duration{0}), [this, life] {
      if (life == life_) tick();
    });
}

// What is written survives a kill; what waits to be written does not.
void World::write(Effect effect, Action after) {
  const std::uint64_t life = life_;
  ++writes_pending_;
  disk_free_ = std::max(disk_free_, time_) + up_to(milliseconds(8));
  in(disk_free_ - time_, [this, life, effect = std::move(effect), after = std::move(after)] {
    if (life != life_) return;
    --writes_pending_;
    store(effect);
    after();
  });
}

void World::store(const Effect& effect) {
  if (const auto* block = std::get_if<effect::SaveBlock>(&effect)) {
    std::erase_if(disk_.blocks, [&](const auto& each) { return each.id == block->block.id; });
    disk_.blocks.push_back(block->block);
  } else if (const auto* epoch = std::get_if<effect::SaveEpoch>(&effect)) {
    disk_.epoch = epoch->epoch;
  } else if (const auto* placements = std::get_if<effect::SavePlacements>(&effect)) {
    for (const auto& each : placements->placed) disk_.placements.push_back(each);
    const std::set<std::uint64_t> dropped(placements->dropped.begin(), placements->dropped.end());
    std::erase_if(disk_.placements, [&](const auto& each) { return dropped.contains(each.id); });
  } else if (const auto* spool = std::get_if<effect::Spool>(&effect)) {
    disk_.spool.push_back(spool->record);
  } else if (const auto* drop = std::get_if<effect::DropSpooled>(&effect)) {
    for (std::uint64_t batch : drop->batches)
      std::erase_if(disk_.spool, [&](const auto& each) { return each.batch == batch; });
  }
}

void World::carry_out(Effect& effect) {
  std::visit(
      [&](auto& e) {
        using E = std::decay_t<decltype(e)>;
        if constexpr (std::is_same_v<E, effect::SendRelay>) {
          to_relay(e.message);
        } else if constexpr (std::is_same_v<E, effect::RedialRelay>) {
          complain("the core finds fault with the relay: " + e.why);
        } else if constexpr (std::is_same_v<E, effect::SendPilot>) {
          if (writes_pending_ == 0)
            from_core(e.peer, e.message);
          else
            write(effect::SavePlacements{}, [this, e] { from_core(e.peer, e.message); });
        } else if constexpr (std::is_same_v<E, effect::RefusePilot>) {
          complain("a pilot is refused: " + e.error.message);
        } else if constexpr (std::is_same_v<E, effect::ResetPilot>) {
          if (const auto found = peers_.find(e.peer); found != peers_.end())
            if (SimPilot* reset = pilot(found->second); reset != nullptr && reset->peer == e.peer)
              in(Duration{0}, [this, id = reset->id, peer = e.peer] {
                if (SimPilot* p = pilot(id); p != nullptr && p->peer == peer) break_pilot(*p);
              });
        } else if constexpr (std::is_same_v<E, effect::SaveBlock>) {
          write(e, [this, e] { event([&] { core_->block_saved(e.block.id, e.serial, now()); }); });
        } else if constexpr (std::is_same_v<E, effect::Spool>) {
          write(e, [this, batch = e.record.batch] { event([&] { core_->spooled(batch); }); });
        } else if constexpr (std::is_same_v<E, effect::SaveEpoch> ||
                             std::is_same_v<E, effect::SavePlacements> ||
                             std::is_same_v<E, effect::DropSpooled>) {
          write(e, [] {});
        } else if constexpr (std::is_same_v<E, effect::SubmitBlock>) {
          submit(e);
        } else if constexpr (std::is_same_v<E, effect::QueryBlocks>) {
          provider([this, ids = e.job_ids,
                    fails = scenario_.faults && time_ < scenario_.calm_after && chance(5)] {
            Result<std::vector<JobReport>> answer = reports(ids);
            if (fails) answer = fail(ErrorCode::kSchedulerUnavailable, "squeue: no answer");
            event([&] { core_->provider_reported(answer, now()); });
          });
        } else if constexpr (std::is_same_v<E, effect::FindBlock>) {
          provider([this, e] {
            std::vector<std::string> ids;
            for (const auto& [id, job] : jobs_)
              if (job.name == e.job_name) ids.push_back(id);
            event([&] { core_->provider_found(e.block, ids, now()); });
          });
        } else if constexpr (std::is_same_v<E, effect::CancelJobs>) {
          provider([this, e] {
            for (const auto& id : e.job_ids) end_job(id, BlockEnd::kCancelled);
            event([&] { core_->provider_cancelled(e.job_ids, {}, now()); });
          });
        } else if constexpr (std::is_same_v<E, effect::Exit>) {
          exited_ = true;
        }
      },
      effect);
}

// --- scheduler -----------------------------------------------------------------------------------

// One command after the other; one that runs goes on when the interchange is killed.
void World::provider(Action action) {
  const std::uint64_t life = life_;
  provider_free_ = std::max(provider_free_, time_) + up_to(milliseconds(300));
  in(provider_free_ - time_, [this, life, action = std::move(action)] {
    if (life == life_) action();
  });
}

void World::submit(const effect::SubmitBlock& block) {
  if (!names_submitted_.insert(block.job_name).second)
    complain("two submit commands for the intent " + block.job_name);
  const std::uint64_t dice =
      scenario_.faults && time_ < scenario_.calm_after ? rng_.below(100) : 99;
  const bool made = dice >= 15 || dice < 4;  // 0-3: works, but the answer is lost
  provider_free_ = std::max(provider_free_, time_) + up_to(milliseconds(300));
  const Duration late = dice < 4 && chance(30) ? up_to(seconds(90)) : Duration{0};
  std::string id;
  if (made) {
    id = std::to_string(++job_number_);
    in(provider_free_ - time_ + late, [this, id, block] {
      jobs_[id] = Job{id, block.job_name, block.block, block.nodes};
      in(up_to(seconds(20)), [this, id] { start_job(id); });
    });
  }
  provider([this, id, dice, block] {
    Result<std::string> answer = id;
    if (dice < 8)
      answer = fail(ErrorCode::kOutcomeUnknown, "sbatch did not answer in 30 s");
    else if (dice < 11)
      answer = fail(ErrorCode::kSchedulerRefused, "sbatch: invalid account");
    else if (dice < 13)
      answer = fail(ErrorCode::kSchedulerLimit, "sbatch: QOSMaxSubmitJobPerUserLimit");
    else if (dice < 15)
      answer = fail(ErrorCode::kSchedulerUnavailable, "sbatch: cannot contact the controller");
    event([&] { core_->provider_submitted(block.block, answer, now()); });
  });
}

void World::start_job(const std::string& id) {
  Job& job = jobs_[id];
  if (job.state != Job::State::kQueued) return;
  job.state = Job::State::kRunning;
  for (int rank = 0; rank < job.nodes; ++rank)
    in(up_to(seconds(3)), [this, id, rank] {
      if (jobs_[id].state == Job::State::kRunning)
        start_pilot(jobs_[id], static_cast<std::uint32_t>(rank));
    });
  in(scenario_.walltime, [this, id] { end_job(id, BlockEnd::kWalltime); });
}

void World::end_job(const std::string& id, BlockEnd end) {
  const auto found = jobs_.find(id);
  if (found == jobs_.end() || found->second.state == Job::State::kEnded) return;
  found->second.state = Job::State::kEnded;
  found->second.end = end;
  std::vector<PilotId> ids;
  for (const auto& [pilot_id, each] : pilots_)
    if (each.job == id) ids.push_back(pilot_id);
  for (PilotId each : ids) kill_pilot(each);
}

std::vector<JobReport> World::reports(const std::vector<std::string>& ids) const {
  std::vector<JobReport> result;
  for (const std::string& id : ids) {
    JobReport report;
    report.job_id = id;
    const auto found = jobs_.find(id);
    report.listed = found != jobs_.end();
    if (report.listed) {
      const Job& job = found->second;
      report.job_name = job.name;
      report.end = job.end;
      using State = JobReport::State;
      report.state = job.state == Job::State::kQueued    ? State::kQueued
                     : job.state == Job::State::kRunning ? State::kRunning
                                                         : State::kEnded;
      report.word = "SIM";
    }
    result.push_back(std::move(report));
  }
  return result;
}

// --- faults and the run --------------------------------------------------------------------------

void World::fault() {
  if (time_ >= scenario_.calm_after) return;
  in(up_to(milliseconds(2 * scenario_.fault_every_ms)), [this] { fault(); });
  ++faults_;
  SimPilot* victim = nullptr;
  if (!pilots_.empty()) {
    auto each = pilots_.begin();
    std::advance(each, static_cast<std::ptrdiff_t>(rng_.below(pilots_.size())));
    victim = &each->second;
  }
  switch (rng_.below(16)) {
    case 0:
      if (core_) kill_core();
      return;
    case 1:
    case 2:
    case 3:
      return break_relay();
    case 4:
    case 5:
      if (victim != nullptr) kill_pilot(victim->id);
      return;
    case 6: {
      if (victim == nullptr) return;
      end_job(std::string(victim->job), chance(50) ? BlockEnd::kPreempted : BlockEnd::kFailed);
      return;
    }
    case 7: {  // the node restarts the pilot while the old one may still live
      if (victim == nullptr || !jobs_.contains(victim->job)) return;
      const std::uint32_t rank = victim->rank;
      const Job job = jobs_[victim->job];
      if (chance(50)) kill_pilot(victim->id);
      return start_pilot(job, rank);
    }
    case 8:
    case 9:
      return wish_cancel();
    default:
      if (victim != nullptr && victim->peer != 0) break_pilot(*victim);
  }
}

bool World::all_final() const {
  for (const SimSubmission& submission : submissions_)
    for (const SimTask& task : submission.tasks)
      if (!task.final) return false;
  return true;
}

std::string World::check_end() const {
  for (const SimSubmission& submission : submissions_) {
    const RetryPolicy& retry = submission.header.retry;
    for (std::uint32_t i = 0; i < submission.tasks.size(); ++i) {
      const SimTask& task = submission.tasks[i];
      const std::string name = TaskId{submission.header.submission, i}.string();
      if (!task.final) {
        std::string why;
        if (core_)
          for (const std::string& line : core_->explain({submission.header.submission, i}, now()))
            why += "; " + line;
        return fmt::format("task {} has no outcome (attempt {}){}", name, task.attempt, why);
      }
      if (task.state == TaskState::kCancelled && !task.cancel)
        return "task " + name + " was cancelled although nobody wished it";
      for (std::size_t c = 1; c < kFailureClassCount; ++c)
        if (task.history.failures[c] > retry.budget(static_cast<FailureClass>(c)))
          return fmt::format("task {} was retried beyond its budget of {}", name,
                             name_of(static_cast<FailureClass>(c)));
    }
  }
  return "";
}

std::string World::run() {
  start_core();
  if (scenario_.faults) in(seconds(10), [this] { fault(); });
  while (wrong_.empty() && !events_waiting_.empty() && time_ < scenario_.limit) {
    Event next = events_waiting_.top();
    events_waiting_.pop();
    time_ = next.at;
    next.action();
    if (exited_) break;
    if (!stopping_ && core_ && (order_ & 63) == 0 && all_final() &&
        (!scenario_.faults || time_ > scenario_.calm_after)) {
      stopping_ = true;
      event([this] { core_->stop("the simulation is over", now()); });
    }
  }
  if (!wrong_.empty()) return wrong_;
  if (std::string wrong = check_end(); !wrong.empty()) return wrong;
  if (!exited_) return "the interchange did not stop";
  for (const auto& [id, job] : jobs_)
    if (job.state != Job::State::kEnded) {
      const BlockRecord* block = core_->blocks().find(job.block);
      // One that was given up is cancelled when it shows up; that may be after the end.
      if (block == nullptr || block->state != BlockState::kAbandoned)
        return fmt::format("job {} ({}) is left over", id, job.name);
    }
  return "";
}

std::string World::summary() const {
  return fmt::format(
      "{} events in {:.0f} s: {} faults, {} restarts, {} jobs, {} runs, {} outcomes, "
      "{} superseded",
      events_, static_cast<double>(time_.count()) / 1e9, faults_, restarts_, jobs_.size(), ran_,
      recorded_, superseded_);
}

}  // namespace farcall::interchange::sim
