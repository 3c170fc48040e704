#include "model/history.h"
#include "simulation.h"

namespace farcall::sim {

namespace {
std::string argument(std::uint32_t index) { return "a" + std::to_string(index); }
constexpr int kPayloadTag = 1000;
}  // namespace

void RelayModel::add_submissions() {
  function_.kind = FunctionKind::kShell;
  function_.name = "work";
  function_.id = function_id(function_.kind, function_.name, "body");
  for (int i = 0; i < sim_.options.submissions; ++i) {
    Entry entry;
    entry.header.submission = make_id<SubmissionId>(sim_.now().wall, sim_.rng);
    entry.header.function = function_.id;
    entry.header.priority = static_cast<std::int32_t>(sim_.rng.below(3));
    if (i % 4 == 3) entry.header.resources.cores = 2;
    if (i % 4 == 2) entry.header.walltime_ms = 45'000;
    entry.header.retry.never = sim_.options.retry_never;
    if (sim_.options.walltime_ms > 0) entry.header.walltime_ms = sim_.options.walltime_ms;
    entry.tasks.resize(sim_.options.tasks_per_submission);
    for (std::uint32_t t = 0; t < entry.tasks.size(); ++t) entry.tasks[t].history.index = t;
    open_ += entry.tasks.size();
    entries_.emplace(entry.header.submission, std::move(entry));
  }
}

void RelayModel::send(wire::Message message) {
  if (!session_) return;
  sim_.transmit(sim_.relay_link, 1, [this, m = std::move(message)] {
    sim_.tell([&](Core& c) { c.relay_message(m, sim_.now()); });
  });
}

void RelayModel::hello(const wire::Message& message) {
  const auto hello = wire::decode<wire::EndpointHello>(message);
  if (!hello) return sim_.wrong("the hello cannot be read");
  if (!up_) return;
  if (hello->epoch > epoch_) sim_.wrong("the interchange has an epoch that was never granted");
  if (epoch_ == 0) epoch_ = 1;
  session_ = true;
  ++session_number_;
  credit_ = sent_ = {};
  function_sent_ = false;
  wire::EndpointWelcome welcome;
  welcome.epoch = epoch_;
  welcome.endpoint_name = "sim";
  for (auto& [id, entry] : entries_) {
    entry.there.clear();
    entry.header_sent = false;
  }
  for (const auto& each : hello->holds) {
    Entry& entry = entries_.at(each.submission);
    RangeSet forget;
    each.ranges.for_each([&](std::uint32_t index) {
      if (is_final(entry.tasks.at(index).state))
        forget.insert(index);
      else
        entry.there.insert(index);
    });
    if (!forget.empty()) welcome.forget.push_back({each.submission, std::move(forget)});
  }
  send(wire::make_message(welcome));
  send_wishes();
}

void RelayModel::send_wishes() {
  wire::CancelTasks cancel;
  for (const auto& [id, entry] : entries_) {
    RangeSet wished;
    for (const Task& task : entry.tasks)
      if (task.wished && !is_final(task.state)) wished.insert(task.history.index);
    if (!wished.empty()) cancel.items.push_back({id, std::move(wished)});
  }
  if (!cancel.items.empty()) send(wire::make_message(cancel));
}

void RelayModel::receive(const wire::Message& message) {
  if (!up_ || !session_) return;
  switch (message.type) {
    case wire::MessageType::kCredit: {
      const auto credit = *wire::decode<wire::Credit>(message);
      if (credit.tasks < credit_.tasks || credit.bytes < credit_.bytes)
        sim_.wrong("credit goes down");
      credit_ = credit;
      return deliver();
    }
    case wire::MessageType::kResults:
      // Committed a little later; an outage in between loses it.
      return sim_.after(sim_.between(1, 40), [this, message, life = life_] {
        if (life == life_) record(message);
      });
    case wire::MessageType::kAttempts: {
      const auto attempts = *wire::decode<wire::Attempts>(message);
      for (const auto& each : attempts.items) {
        Entry& entry = entries_.at(each.submission);
        for (const TaskHistory& history : each.histories) {
          Task& task = entry.tasks.at(history.index);
          if (history.attempt <= task.history.attempt) continue;
          task.history = merged(task.history, history);
          check_budgets(entry, task.history);
        }
      }
      return;
    }
    case wire::MessageType::kEndpointStatus:
    case wire::MessageType::kRunning:
    case wire::MessageType::kReply:
      return;
    default:
      sim_.wrong("the interchange sends the relay a message it does not understand");
  }
}

void RelayModel::deliver() {
  for (auto& [id, entry] : entries_)
    for (std::uint32_t first = 0; first < entry.tasks.size(); first += sim_.options.chunk_tasks)
      if (!deliver_chunk(entry, first)) return;
}

bool RelayModel::deliver_chunk(Entry& entry, std::uint32_t first) {
  const auto last = std::min<std::uint32_t>(first + sim_.options.chunk_tasks,
                                            static_cast<std::uint32_t>(entry.tasks.size()));
  wire::ChunkDelivery chunk{entry.header.submission, {first, {}}, {}, {}};
  std::string data;
  for (std::uint32_t i = first; i != last; ++i) {
    const Task& task = entry.tasks[i];
    const std::string bytes = argument(i);
    chunk.chunk.sizes.push_back(static_cast<std::uint32_t>(bytes.size()));
    data += bytes;
    if (is_final(task.state) || task.wished || entry.there.contains(i)) continue;
    chunk.run.insert(i);
    if (task.history.attempt > 1) chunk.histories.push_back(task.history);
  }
  if (chunk.run.empty()) return true;
  if (sent_.tasks + (last - first) > credit_.tasks || sent_.bytes + data.size() > credit_.bytes)
    return false;
  sent_.tasks += last - first;
  sent_.bytes += data.size();
  entry.there.insert(chunk.run);
  wire::Work work;
  std::vector<Bytes> payload;
  if (!std::exchange(function_sent_, true)) {
    work.functions.push_back(function_);
    payload.emplace_back(std::string("body"));
  }
  if (!std::exchange(entry.header_sent, true)) work.submissions.push_back(entry.header);
  work.chunks.push_back(std::move(chunk));
  payload.emplace_back(std::move(data));
  send(wire::make_message(work, std::move(payload)));
  return true;
}

void RelayModel::record(const wire::Message& message) {
  const auto results = wire::decode<wire::Results>(message);
  if (!results) return sim_.wrong("results cannot be read");
  std::size_t offset = 0;
  for (const auto& each : results->results) {
    Entry& entry = entries_.at(each.submission);
    for (const TaskOutcome& outcome : each.outcomes) {
      const Bytes data = message.payload.at(0).slice(offset, outcome.data_size);
      offset += outcome.data_size;
      record_one(entry, outcome, data.view());
    }
  }
  send(wire::make_message(wire::ResultsAck{{results->batch}}));
  deliver();
}

void RelayModel::record_one(Entry& entry, const TaskOutcome& outcome, std::string_view data) {
  Task& task = entry.tasks.at(outcome.index);
  if (is_final(task.state)) {
    ++sim_.tally.duplicates;
    if (task.lost && outcome.state == TaskState::kSucceeded) ++sim_.tally.after_lost;
    return;
  }
  if (outcome.state == TaskState::kFailed && outcome.attempt < task.history.attempt) {
    // The acknowledgement ends the task for the interchange, so it is given to it again.
    ++sim_.tally.stale_failures;
    entry.there.erase(outcome.index);
    return;
  }
  if (outcome.state == TaskState::kCancelled && !task.wished)
    sim_.wrong("a task is cancelled that nobody wanted to be cancelled");
  if (outcome.state == TaskState::kSucceeded &&
      data != fmt::format("V{}:{}", outcome.index, outcome.attempt))
    sim_.wrong("a result is not that of its task: " + std::string(data));
  sim_.tally.attempt_max = std::max<int>(sim_.tally.attempt_max, outcome.attempt);
  const auto& policy_of = entry.header.retry;
  if (outcome.state == TaskState::kFailed &&
      task.history.failures[static_cast<std::size_t>(outcome.failure)] <
          policy_of.budget(outcome.failure))
    ++sim_.tally.early;
  // Nobody may be charged more than all budgets together; a crash may forget a charge or two.
  const RetryPolicy policy;
  const int budget = policy.crash + policy.lost + policy.allocation_ended + policy.environment + 1;
  if (outcome.attempt > budget + static_cast<int>(sim_.tally.crashes))
    sim_.wrong(
        fmt::format("attempt {} of a task, the budgets add up to {}", outcome.attempt, budget));
  task.lost = outcome.failure == FailureClass::kLost;
  if (task.lost) ++sim_.tally.lost;
  end(entry, outcome.index, outcome.state);
}

// A retry that is reported was within its class's budget; one that was lost while the interchange,
// just started again, did not know the budget yet, may be one over it.
void RelayModel::check_budgets(const Entry& entry, const TaskHistory& history) {
  for (std::size_t i = 0; i < kFailureClassCount; ++i) {
    const auto failure = static_cast<FailureClass>(i);
    const bool of_nodes =
        failure == FailureClass::kLost || failure == FailureClass::kAllocationEnded;
    const int spare = of_nodes && sim_.tally.crashes > 0 ? 1 : 0;
    if (history.failures[i] > entry.header.retry.budget(failure) + spare)
      sim_.wrong(fmt::format("a task is tried again after {} failures of class {}, {} are allowed",
                             history.failures[i], name_of(failure),
                             entry.header.retry.budget(failure)));
  }
}

void RelayModel::end(Entry& entry, std::uint32_t index, TaskState state) {
  entry.tasks[index].state = state;
  --open_;
  sim_.trace(kPayloadTag + index * 8ULL + static_cast<std::uint64_t>(state));
  (state == TaskState::kSucceeded ? sim_.tally.succeeded
   : state == TaskState::kFailed  ? sim_.tally.failed
                                  : sim_.tally.cancelled)++;
}

void RelayModel::outage() {
  if (!up_) return;
  ++sim_.tally.outages;
  up_ = false;
  ++life_;
  sim_.reset(sim_.relay_link);
  sim_.after(sim_.between(500, 40'000), [this] { up_ = true; });
}

void RelayModel::cancel_some() {
  if (!up_ || entries_.empty()) return;
  auto position = entries_.begin();
  std::advance(position, static_cast<long>(sim_.rng.below(entries_.size())));
  Entry& entry = position->second;
  const auto first = static_cast<std::uint32_t>(sim_.rng.below(entry.tasks.size()));
  const auto count = static_cast<std::uint32_t>(1 + sim_.rng.below(8));
  wire::CancelTasks cancel{{{entry.header.submission, {}}}};
  for (std::uint32_t i = first; i < std::min<std::size_t>(first + count, entry.tasks.size()); ++i) {
    Task& task = entry.tasks[i];
    if (is_final(task.state) || task.wished) continue;
    task.wished = true;
    ++sim_.tally.wished;
    if (session_ && !entry.there.contains(i))
      end(entry, i, TaskState::kCancelled);  // it has not left the relay
    else
      cancel.items[0].ranges.insert(i);
  }
  if (!cancel.items[0].ranges.empty()) send(wire::make_message(cancel));
}

std::string RelayModel::unfinished() const {
  std::string text = std::to_string(open_) + " tasks";
  for (const auto& [id, entry] : entries_)
    for (const Task& task : entry.tasks)
      if (!is_final(task.state)) {
        text += fmt::format(", {} (attempt {}{}{})", TaskId{id, task.history.index}.string(),
                            task.history.attempt, task.wished ? ", to be cancelled" : "",
                            entry.there.contains(task.history.index) ? ", delivered" : "");
        if (sim_.core)
          for (const auto& line : sim_.core->explain({id, task.history.index}, sim_.now()))
            text += "; " + line;
        if (text.size() > 1500) return text;
      }
  return text;
}

}  // namespace farcall::sim
