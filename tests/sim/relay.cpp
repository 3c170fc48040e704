// The simulated relay: delivers under credit, records the first final outcome.
#include "world.h"

namespace farcall::interchange::sim {

namespace {
constexpr std::uint32_t kChunk = 32;

std::string arguments_of(const SubmissionId& submission, std::uint32_t index) {
  return TaskId{submission, index}.string().substr(24) + std::string(index % 7, 'x');
}
}  // namespace

void World::dial_relay() {
  const std::uint64_t life = life_, session = ++relay_session_;
  relay_in_ = relay_out_ = time_;
  in(up_to(seconds(2)), [this, life, session] {
    if (life != life_ || session != relay_session_) return;
    wire::Message hello;
    event([&] { hello = core_->make_hello(); });
    in(up_to(milliseconds(50)), [this, session, hello] {
      if (session == relay_session_) relay_hello(hello);
    });
  });
}

void World::break_relay() {
  if (!core_) return;
  relay_up_ = false;
  event([this] { core_->relay_down(); });
  if (core_) dial_relay();
}

// In order; what is on its way when the session breaks is lost.
void World::to_relay(const wire::Message& message) {
  const std::uint64_t session = relay_session_;
  relay_in_ = std::max(relay_in_, time_ + up_to(milliseconds(40)));
  in(relay_in_ - time_, [this, session, message] {
    if (session == relay_session_ && relay_up_) relay_receives(message);
  });
}

void World::from_relay(wire::Message message) {
  const std::uint64_t session = relay_session_;
  relay_out_ = std::max(relay_out_, time_ + up_to(milliseconds(40)));
  in(relay_out_ - time_, [this, session, message = std::move(message)] {
    if (session != relay_session_ || !core_) return;
    event([&] { core_->relay_message(message, now()); });
    const bool twice = message.type == wire::MessageType::kCancelTasks ||
                       message.type == wire::MessageType::kResultsAck;
    if (twice && chance(5)) event([&] { core_->relay_message(message, now()); });
  });
}

void World::relay_hello(const wire::Message& message) {
  const auto hello = wire::decode<wire::EndpointHello>(message);
  if (!hello) return complain("the hello cannot be read");
  relay_up_ = true;
  credit_ = {};
  sent_tasks_ = sent_bytes_ = 0;
  function_sent_ = false;
  wire::EndpointWelcome welcome;
  welcome.epoch = 1;
  for (SimSubmission& submission : submissions_) {
    submission.delivered.clear();
    submission.header_sent = false;
  }
  for (const wire::SubmissionRanges& held : hello->holds) {
    SimSubmission& submission = submissions_[submission_index_.at(held.submission)];
    submission.delivered = held.ranges;
    RangeSet forget;
    held.ranges.for_each([&](std::uint32_t index) {
      if (submission.tasks[index].final) forget.insert(index);
    });
    if (!forget.empty()) welcome.forget.push_back({held.submission, forget});
  }
  from_relay(wire::make_message(welcome));
  wire::CancelTasks cancel;
  for (const SimSubmission& submission : submissions_) {
    RangeSet wished;
    for (std::uint32_t i = 0; i < submission.tasks.size(); ++i)
      if (submission.tasks[i].cancel && !submission.tasks[i].final) wished.insert(i);
    if (!wished.empty()) cancel.items.push_back({submission.header.submission, wished});
  }
  if (!cancel.items.empty()) from_relay(wire::make_message(cancel));
}

void World::deliver_work() {
  for (SimSubmission& submission : submissions_) {
    const auto count = static_cast<std::uint32_t>(submission.tasks.size());
    for (std::uint32_t first = 0; first < count; first += kChunk) {
      const std::uint32_t last = std::min(count, first + kChunk);
      RangeSet run;
      std::vector<TaskHistory> histories;
      for (std::uint32_t i = first; i < last; ++i) {
        const SimTask& task = submission.tasks[i];
        if (task.final || task.cancel || submission.delivered.contains(i)) continue;
        run.insert(i);
        if (task.attempt > 1) histories.push_back(task.history);
      }
      if (run.empty()) continue;
      wire::Work work;
      std::vector<Bytes> payload;
      wire::ChunkMeta chunk{first, {}};
      std::string data;
      for (std::uint32_t i = first; i < last; ++i) {
        const std::string arguments = arguments_of(submission.header.submission, i);
        chunk.sizes.push_back(static_cast<std::uint32_t>(arguments.size()));
        data += arguments;
      }
      if (sent_tasks_ + run.count() > credit_.tasks || sent_bytes_ + data.size() > credit_.bytes)
        return;
      sent_tasks_ += run.count();
      sent_bytes_ += data.size();
      if (!std::exchange(function_sent_, true)) {
        work.functions.push_back(function_);
        payload.emplace_back(std::string("body"));
      }
      if (!std::exchange(submission.header_sent, true))
        work.submissions.push_back(submission.header);
      submission.delivered.insert(run);
      work.chunks.push_back({submission.header.submission, chunk, run, histories});
      payload.emplace_back(std::move(data));
      from_relay(wire::make_message(work, std::move(payload)));
    }
  }
}

void World::relay_receives(const wire::Message& message) {
  using wire::MessageType;
  if (message.type == MessageType::kCredit) {
    const auto credit = wire::decode<wire::Credit>(message);
    if (credit->tasks < credit_.tasks || credit->bytes < credit_.bytes)
      complain("credit went down");
    credit_ = *credit;
    if (core_ && core_->queue().held_tasks() > scenario_.window_tasks * 2)
      complain("far more tasks are held than the window allows");
    deliver_work();
  } else if (message.type == MessageType::kResults) {
    const auto results = wire::decode<wire::Results>(message);
    record(*results, message.payload.front());
    const std::uint64_t session = relay_session_;
    in(up_to(milliseconds(30)), [this, session, batch = results->batch] {
      if (session == relay_session_) from_relay(wire::make_message(wire::ResultsAck{{batch}}));
    });
  } else if (message.type == MessageType::kAttempts) {
    const auto attempts = wire::decode<wire::Attempts>(message);
    for (const auto& spent : attempts->items)
      for (const TaskHistory& history : spent.histories) {
        SimTask& task = submissions_[submission_index_.at(spent.submission)].tasks[history.index];
        if (history.attempt < task.attempt) continue;
        task.attempt = history.attempt;
        task.history = history;
      }
  }
}

void World::record(const wire::Results& results, const Bytes& data) {
  std::size_t offset = 0;
  for (const wire::SubmissionOutcomes& each : results.results)
    for (const TaskOutcome& outcome : each.outcomes) {
      const std::string_view piece = data.view().substr(offset, outcome.data_size);
      offset += outcome.data_size;
      SimTask& task = submissions_[submission_index_.at(each.submission)].tasks.at(outcome.index);
      if (task.final) {
        ++superseded_;
        continue;
      }
      if (outcome.state == TaskState::kFailed && outcome.attempt < task.attempt) {
        ++superseded_;
        continue;
      }
      if (outcome.state == TaskState::kSucceeded &&
          piece != "R" + arguments_of(each.submission, outcome.index))
        complain("a task got another one's result");
      task.final = true;
      task.state = outcome.state;
      task.failure = outcome.failure;
      ++recorded_;
    }
  if (offset != data.size()) complain("the data of results do not add up");
}

void World::wish_cancel() {
  SimSubmission& submission = submissions_[rng_.below(submissions_.size())];
  wire::CancelTasks cancel;
  RangeSet wished;
  const auto count = static_cast<std::uint32_t>(submission.tasks.size());
  const auto first = static_cast<std::uint32_t>(rng_.below(count));
  for (std::uint32_t i = first; i < std::min(count, first + 5); ++i) {
    SimTask& task = submission.tasks[i];
    if (task.final) continue;
    task.cancel = true;
    if (!submission.delivered.contains(i) && !chance(10)) continue;  // at once, at the relay
    wished.insert(i);
  }
  for (std::uint32_t i = first; i < std::min(count, first + 5); ++i) {
    SimTask& task = submission.tasks[i];
    if (!task.cancel || task.final || wished.contains(i) || submission.delivered.contains(i))
      continue;
    if (relay_up_) wished.insert(i);
  }
  if (wished.empty() || !relay_up_) return;
  cancel.items.push_back({submission.header.submission, wished});
  from_relay(wire::make_message(cancel));
}

}  // namespace farcall::interchange::sim
