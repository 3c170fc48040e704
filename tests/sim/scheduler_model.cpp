#include "simulation.h"

namespace farcall::sim {

using interchange::BlockEnd;
using interchange::JobReport;
using State = JobReport::State;

std::string SchedulerModel::create(const interchange::effect::SubmitBlock& call) {
  const std::string id = std::to_string(++numbers_);
  Job& job = jobs_[id];
  ++sim_.tally.jobs;
  job.name = call.job_name;
  job.block = call.block;
  // The accounting lags behind now and then.
  job.listed_from = sim_.time() + (sim_.chance(0.2) ? sim_.between(0, 15'000) : Duration{0});
  sim_.after(
      sim_.between(100, sim_.chance(0.2) ? 60'000 : 3000),
      [this, id, nodes = call.nodes, walltime = call.walltime_s] { start(id, nodes, walltime); });
  return id;
}

void SchedulerModel::submit(const interchange::effect::SubmitBlock& call) {
  // Once an intent has reached the command it must never reach it again, whatever crashes.
  if (!names_.insert(call.job_name).second)
    return sim_.wrong("two jobs are submitted for the intent " + call.job_name);
  sim_.after(sim_.between(20, 2000), [this, call, life = sim_.life()] {
    Result<std::string> answer;
    if (sim_.faults() && sim_.chance(sim_.options.scheduler_fault)) {
      const auto kind = sim_.rng.below(5);
      if (kind == 0) answer = fail(ErrorCode::kSchedulerRefused, "no such partition");
      if (kind == 1) answer = fail(ErrorCode::kSchedulerLimit, "too many jobs");
      if (kind == 2) answer = fail(ErrorCode::kSchedulerUnavailable, "no route to the controller");
      if (kind == 3) answer = fail(ErrorCode::kOutcomeUnknown, "killed, nothing was submitted");
      if (kind == 4) {
        create(call);  // the reply is lost, the job is there
        answer = fail(ErrorCode::kTimeout, "no answer");
      }
    } else {
      answer = create(call);
    }
    sim_.after(sim_.between(0, 500), [this, answer, call, life] {
      if (life == sim_.life())
        sim_.tell([&](Core& c) { c.provider_submitted(call.block, answer, sim_.now()); });
    });
  });
}

bool SchedulerModel::listed(const Job& job) const {
  return sim_.time() >= job.listed_from &&
         (job.state != State::kEnded || sim_.time() - job.ended_at < seconds(60));
}

void SchedulerModel::query(std::vector<std::string> ids) {
  ++sim_.tally.queries;
  sim_.after(sim_.between(20, 1500), [this, ids = std::move(ids), life = sim_.life()] {
    if (life != sim_.life()) return;
    if (sim_.faults() && sim_.chance(sim_.options.scheduler_fault))
      return sim_.tell([&](Core& c) {
        c.provider_reported(fail(ErrorCode::kSchedulerUnavailable, "timed out"), sim_.now());
      });
    std::vector<JobReport> reports;
    for (const auto& id : ids) {
      JobReport report;
      report.job_id = id;
      const auto job = jobs_.find(id);
      report.listed = job != jobs_.end() && listed(job->second);
      if (report.listed) {
        report.job_name = job->second.name;
        report.state = job->second.state;
        report.end = job->second.end;
        report.word = "so";
      }
      reports.push_back(std::move(report));
    }
    sim_.tell([&](Core& c) { c.provider_reported(reports, sim_.now()); });
  });
}

void SchedulerModel::find(BlockId block, const std::string& name) {
  sim_.after(sim_.between(20, 1500), [this, block, name, life = sim_.life()] {
    if (life != sim_.life()) return;
    Result<std::vector<std::string>> answer;
    if (sim_.faults() && sim_.chance(sim_.options.scheduler_fault))
      answer = fail(ErrorCode::kSchedulerUnavailable, "timed out");
    else
      for (const auto& [id, job] : jobs_)
        if (job.name == name && sim_.time() >= job.listed_from) answer->push_back(id);
    sim_.tell([&](Core& c) { c.provider_found(block, answer, sim_.now()); });
  });
}

void SchedulerModel::cancel(std::vector<std::string> ids) {
  sim_.after(sim_.between(20, 1500), [this, ids = std::move(ids), life = sim_.life()] {
    Result<void> answer;
    if (sim_.faults() && sim_.chance(sim_.options.scheduler_fault))
      answer = fail(ErrorCode::kSchedulerUnavailable, "timed out");
    else
      for (const auto& id : ids)
        sim_.after(sim_.between(0, 3000), [this, id] { end(id, BlockEnd::kCancelled); });
    if (life == sim_.life())
      sim_.tell([&](Core& c) { c.provider_cancelled(ids, answer, sim_.now()); });
  });
}

void SchedulerModel::start(const std::string& id, int nodes, double walltime_s) {
  Job& job = jobs_.at(id);
  if (job.state != State::kQueued) return;
  job.state = State::kRunning;
  job.started_at = sim_.time();
  job.nodes = nodes;
  for (int rank = 0; rank < nodes; ++rank) {
    ++job.alive;
    sim_.pilots.push_back(std::make_unique<PilotModel>(sim_, job.block, id, rank));
    PilotModel* pilot = sim_.pilots.back().get();
    if (sim_.options.ends_known)
      pilot->ends =
          sim_.time() + milliseconds(static_cast<std::int64_t>(walltime_s * 1000)) - seconds(5);
    sim_.after(sim_.between(50, sim_.options.latency_ms_max), [pilot] { pilot->connect(); });
  }
  const auto walltime = milliseconds(static_cast<std::int64_t>(walltime_s * 1000));
  sim_.after(walltime - seconds(3), [this, id] {
    if (jobs_.at(id).state != State::kRunning) return;
    // Not every site sends a warning.
    if (sim_.chance(0.5))
      for (std::size_t i = 0; i < sim_.pilots.size(); ++i)
        if (sim_.pilots[i]->job() == id) sim_.pilots[i]->allocation_ends();
  });
  sim_.after(walltime, [this, id] { end(id, BlockEnd::kWalltime); });
}

void SchedulerModel::end(const std::string& id, BlockEnd how) {
  const auto found = jobs_.find(id);
  if (found == jobs_.end() || found->second.state == State::kEnded) return;
  Job& job = found->second;
  if (job.state != State::kQueued)
    sim_.tally.held_s += std::chrono::duration<double>(sim_.time() - job.started_at).count() *
                         job.nodes * sim_.options.slots;
  job.state = State::kEnded;
  job.end = how;
  job.ended_at = sim_.time();
  for (std::size_t i = 0; i < sim_.pilots.size(); ++i)
    if (sim_.pilots[i]->job() == id) sim_.pilots[i]->die();
}

void SchedulerModel::pilot_exited(const std::string& id) {
  Job& job = jobs_.at(id);
  if (--job.alive == 0 && job.state == State::kRunning)
    sim_.after(sim_.between(0, sim_.options.latency_ms_max * 2 / 3),
               [this, id] { end(id, BlockEnd::kCompleted); });
}

PilotModel* SchedulerModel::any_pilot() const {
  std::vector<PilotModel*> alive;
  for (const auto& pilot : sim_.pilots)
    if (pilot->alive()) alive.push_back(pilot.get());
  return alive.empty() ? nullptr : alive[sim_.rng.below(alive.size())];
}

void SchedulerModel::cut_off_a_pilot() {
  if (PilotModel* pilot = any_pilot()) pilot->cut_off(sim_.between(70'000, 500'000));
}

void SchedulerModel::kill_a_pilot() {
  PilotModel* victim = any_pilot();
  if (victim == nullptr) return;
  ++sim_.tally.kills;
  if (sim_.chance(0.6)) {  // started again on its node
    Job& job = jobs_.at(victim->job());
    ++job.alive;
    sim_.pilots.push_back(
        std::make_unique<PilotModel>(sim_, victim->block(), victim->job(), victim->rank()));
    PilotModel* next = sim_.pilots.back().get();
    sim_.after(sim_.between(100, 5000), [next] { next->connect(); });
  }
  victim->die();
}

std::string SchedulerModel::live_jobs() const {
  std::string text;
  for (const auto& [id, job] : jobs_)
    if (job.state != State::kEnded) text += (text.empty() ? "" : ", ") + id + " " + job.name;
  return text;
}

}  // namespace farcall::sim
