// What people see: the endpoint's status and why a task waits; and the invariants.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "interchange/core/core.h"

namespace farcall::interchange {

std::string Core::status_json(Now now) const {
  std::uint64_t connected = 0, total = 0, busy = 0, running = 0;
  for (const auto& [id, pilot] : pilots_.all()) {
    if (pilot.peer == 0) continue;
    ++connected;
    if (pilot.may_work) total += pilot.slots;
    busy += std::min<std::uint64_t>(pilot.load, pilot.slots);
    for (const Placement& placement : pilot.placements) running += placement.tasks.count();
  }
  nlohmann::json blocks = nlohmann::json::array();
  for (const BlockRecord* block : blocks_.all()) {
    if (is_final(block->state) &&
        now.wall.milliseconds_since_epoch() - block->since_ms > 10 * 60 * 1000)
      continue;
    blocks.push_back({{"block_id", block->id.string()},
                      {"job_id", block->job_id},
                      {"job_name", block->job_name},
                      {"state", name_of(block->state)},
                      {"nodes", block->nodes},
                      {"reason", block->reason},
                      {"since_ms", block->since_ms}});
  }
  nlohmann::json bad_nodes = nlohmann::json::array();
  for (const BadNode& node : nodes_.bad())
    bad_nodes.push_back({{"node", node.name}, {"reason", node.why}, {"since_ms", node.since_ms}});
  const SchedulerPace& pace = blocks_.pace();
  // Rounded, so that the status does not change with every second that passes.
  const auto hours = [](double value) { return std::round(value * 100) / 100; };
  const std::string& paused = blocks_.paused();
  const nlohmann::json status = {
      {"epoch", epoch_},
      {"pilots", connected},
      {"slots", {{"total", total}, {"busy", busy}}},
      {"queued", queue_.pending_tasks()},
      {"running", running},
      {"blocks", blocks},
      {"scheduler",
       // On this host nobody is asked: it is a look at a file, and would change every second.
       {{"calls_per_hour", settings_.scheduler_is_local ? 0 : pace.calls_last_hour(now)},
        {"last_error", blocks_.last_error()},
        {"unanswered_s",
         pace.unanswered() > 0 ? (now.mono - pace.unanswered_since()) / seconds(1) : 0}}},
      {"budget",
       {{"core_hours_max", settings_.scaling.core_hours_max},
        {"core_hours_used", hours(blocks_.core_hours_used(now))},
        {"core_hours_committed", hours(blocks_.core_hours_committed(now))}}},
      {"bad_nodes", bad_nodes},
      {"draining", blocks_.draining()},
      {"offer", nlohmann::json::parse(offer().dump())},
      {"results", {{"unacknowledged", spool_.size()}, {"bytes", spool_bytes_}}},
      {"stopping", stopping_},
      {"paused", paused.empty() ? nlohmann::json(nullptr) : nlohmann::json(paused)}};
  return status.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

void Core::report_status(Now now) {
  if (now.mono < next_status_) return;
  next_status_ = now.mono + seconds(1);
  std::string status = status_json(now);
  if (status == last_status_ && now.mono < next_forced_status_) return;
  next_forced_status_ = now.mono + milliseconds(4500);
  effects_.push_back(effect::StatusChanged{status});
  send_relay(wire::make_message(wire::EndpointStatus{}, {Bytes(status)}));
  last_status_ = std::move(status);
}

std::vector<std::string> Core::explain(const TaskId& task, Now now) const {
  const auto found = queue_.all().find(task.submission);
  const std::string name = task.string();
  if (found == queue_.all().end()) return {"the interchange has not been given this task"};
  const Submission& submission = *found->second;
  std::vector<std::string> lines;
  const std::uint32_t index = task.index;
  if (submission.done.contains(index))
    return {"it has ended; the relay has not acknowledged the outcome yet"};
  if (submission.placed.contains(index)) {
    for (const auto& [id, pilot] : pilots_.all())
      for (const Placement& placement : pilot.placements) {
        if (placement.submission != &submission || !placement.tasks.contains(index)) continue;
        lines.push_back(
            fmt::format("attempt {} was given to the pilot on {}{}", placement.attempt,
                        pilot.node.empty() ? "a node not heard of since the restart" : pilot.node,
                        pilot.peer == 0 ? ", which is not connected at the moment" : ""));
        if (placement.lost)
          lines.push_back(fmt::format(
              "it is lost because {}; it is never to be tried again, its result may still come for "
              "{} s",
              placement.lost->why,
              std::chrono::duration_cast<seconds>(
                  std::max(placement.lost->until - alive_, Duration{0}))
                  .count()));
        const auto running = pilot.running.find(submission.id);
        if (running != pilot.running.end() && running->second.contains(index))
          lines.push_back("it is running there");
        else
          lines.push_back("it is starting or waits for a free slot there");
      }
  } else if (submission.pending.contains(index)) {
    if (submission.simple())
      lines.push_back(
          fmt::format("it waits at the interchange for {} free cores; {} tasks wait here",
                      submission.cores(), queue_.pending_tasks()));
    else
      lines.push_back(fmt::format(
          "it waits at the interchange until one block has all of this free at once: {}; {} tasks "
          "wait here",
          describe(submission.header->resources), queue_.pending_tasks()));
    const auto kept =
        std::find_if(reservations_.begin(), reservations_.end(),
                     [&](const auto& each) { return each.submission == submission.id; });
    if (kept != reservations_.end())
      for (const auto& [id, slots] : kept->slots)
        if (const auto at = pilots_.all().find(id); at != pilots_.all().end())
          lines.push_back(fmt::format("node {} is kept free for it; {} of its {} cores are busy",
                                      at->second.node, at->second.load, at->second.slots));
    std::uint64_t connected = 0;
    for (const auto& [id, pilot] : pilots_.all()) connected += pilot.peer != 0 && pilot.may_work;
    if (stopping_) lines.push_back("the endpoint is stopping: " + stop_reason_);
    lines.push_back(fmt::format("{} nodes are connected", connected));
    if (const std::string why = blocks_.explain_wait(now); !why.empty()) lines.push_back(why);
  } else {
    lines.push_back("the interchange has not been given this task");
  }
  if (submission.cancelled.contains(index)) lines.push_back("its cancellation is under way");
  if (const auto history = submission.histories.find(index); history != submission.histories.end())
    for (std::size_t i = 0; i < kFailureClassCount; ++i)
      if (history->second.failures[i] > 0)
        lines.push_back(
            fmt::format("{} attempts ended as {}", history->second.failures[i],
                        i == 0 ? "another's fault" : name_of(static_cast<FailureClass>(i))));
  return lines;
}

std::string Core::sanity_check() const {
  if (std::string wrong = queue_.sanity_check(); !wrong.empty()) return wrong;
  if (std::string wrong = pilots_.sanity_check(); !wrong.empty()) return wrong;
  if (std::string wrong = blocks_.sanity_check(); !wrong.empty()) return wrong;
  std::uint64_t placed = 0, at_pilots = 0, bytes = 0;
  for (const auto& [id, submission] : queue_.all()) placed += submission->placed.count();
  for (const auto& [id, pilot] : pilots_.all())
    for (const Placement& placement : pilot.placements) at_pilots += placement.tasks.count();
  if (placed != at_pilots) return "placed tasks and the pilots' loads differ";
  for (const auto& [batch, entry] : spool_) {
    bytes += entry.message.body.size() + entry.message.payload.front().size();
    if (batch > durable_batch_ && entry.durable) return "a batch is durable before those before it";
  }
  if (bytes != spool_bytes_) return "the bytes of the spool do not add up";
  return "";
}

}  // namespace farcall::interchange
