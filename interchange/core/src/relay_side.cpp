// The session with the relay: work under credit, cancels, questions, reports.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

#include "base/log.h"
#include "interchange/core/core.h"

namespace farcall::interchange {

void Core::send_relay(wire::Message message) {
  if (welcomed_) effects_.push_back(effect::SendRelay{std::move(message)});
}

wire::Message Core::make_hello() {
  welcomed_ = false;
  wire::EndpointHello hello;
  hello.hello.software = settings_.software;
  hello.hello.host = settings_.host;
  hello.hello.pid = settings_.pid;
  hello.endpoint = settings_.endpoint;
  hello.instance = settings_.instance;
  hello.epoch = epoch_;
  hello.take_over = settings_.take_over && !ever_welcomed_;
  hello.holds = queue_.holds();
  return wire::make_message(hello);
}

void Core::relay_down() {
  welcomed_ = false;
  spool_older_than(Duration{0});
}

void Core::relay_message(const wire::Message& message, Now now) {
  const auto with = [&]<class Body>(auto&& action, const Body*) {
    const auto body = wire::decode<Body>(message);
    if (body) return action(*body);
    effects_.push_back(effect::RedialRelay{body.error().message});
  };
  using wire::MessageType;
  if (message.type == MessageType::kEndpointWelcome)
    return with([&](const auto& body) { on_welcome(body, now); },
                static_cast<wire::EndpointWelcome*>(nullptr));
  if (!welcomed_) return;
  switch (message.type) {
    case MessageType::kWork:
      return on_work(message, now);
    case MessageType::kCancelTasks:
      return with([&](const auto& body) { on_cancel_tasks(body, now); },
                  static_cast<wire::CancelTasks*>(nullptr));
    case MessageType::kResultsAck:
      return with([&](const auto& body) { on_results_ack(body); },
                  static_cast<wire::ResultsAck*>(nullptr));
    case MessageType::kCall:
      return on_call(message, now);
    default:
      log_warn("a message of type {} from the relay is not for an interchange: ignored",
               static_cast<int>(message.type));
  }
}

void Core::on_welcome(const wire::EndpointWelcome& welcome, Now now) {
  welcomed_ = ever_welcomed_ = true;
  endpoint_name_ = welcome.endpoint_name;
  if (welcome.epoch != epoch_) {
    log_info("the relay grants epoch {} (before: {})", welcome.epoch, epoch_);
    epoch_ = welcome.epoch;
    effects_.push_back(effect::SaveEpoch{epoch_});
  }
  for (const wire::SubmissionRanges& each : welcome.forget) {
    Submission* submission = queue_.find(each.submission);
    if (submission == nullptr) continue;
    submission->placed.intersection(each.ranges).for_each([&](std::uint32_t index) {
      take_off_pilot(*submission, index, true);
    });
    queue_.forget(*submission, each.ranges);
  }
  queue_.new_session();
  grant_credit(true);
  for (const auto& [batch, entry] : spool_) send_relay(entry.message);
  // What was told in the last session may not have arrived.
  for (const auto& [id, submission] : queue_.all()) {
    for (const auto& [index, history] : submission->histories)
      attempts_to_report_[id][index] = history;
    running_changed_.insert(id);
  }
  next_forced_status_ = next_running_ = now.mono;
  last_status_.clear();
}

void Core::on_work(const wire::Message& message, Now now) {
  const auto work = wire::decode<wire::Work>(message);
  const auto bad = [&](const std::string& why) { effects_.push_back(effect::RedialRelay{why}); };
  if (!work) return bad(work.error().message);
  if (message.payload.size() != work->functions.size() + work->chunks.size())
    return bad("the relay sent work with a wrong number of payload frames");
  for (std::size_t i = 0; i < work->functions.size(); ++i)
    queue_.add_function(work->functions[i], message.payload[i]);
  for (const SubmissionHeader& header : work->submissions) add_header(header);
  std::map<SubmissionId, Submission*> touched;
  for (std::size_t i = 0; i < work->chunks.size(); ++i) {
    const wire::ChunkDelivery& delivery = work->chunks[i];
    const Bytes& data = message.payload[work->functions.size() + i];
    const auto& sizes = delivery.chunk.sizes;
    Submission* submission = queue_.find(delivery.submission);
    if (submission == nullptr || !submission->header ||
        queue_.function(submission->header->function) == nullptr)
      return bad("the relay sent tasks without their submission's header or function");
    const RangeSet whole{
        {delivery.chunk.first, delivery.chunk.first + static_cast<std::uint32_t>(sizes.size())}};
    if (std::accumulate(sizes.begin(), sizes.end(), std::uint64_t{0}) != data.size() ||
        !delivery.run.difference(whole).empty())
      return bad("the relay sent a chunk whose sizes do not add up");
    received_tasks_ += delivery.run.count();
    received_bytes_ += data.size();
    queue_.deliver(*submission, delivery.chunk, delivery.run, delivery.histories, data);
    fail_spent(*submission, delivery.histories, now);
    touched[submission->id] = submission;
  }
  for (const auto& [id, submission] : touched) {
    cancel_ranges(*submission, RangeSet(submission->cancelled), now);
    fail_impossible(*submission, now);
  }
  if (!unjudged_.empty()) judge_waiting(now);
}

// Tasks that are placed according to the disk have been counted as one core each until now.
void Core::add_header(const SubmissionHeader& header) {
  const Submission* known = queue_.find(header.submission);
  const bool counted = known != nullptr && !known->header && !known->placed.empty();
  queue_.add_header(header);
  if (!counted) return;
  pilots_.count_load(*known);
  for (auto& [id, pilot] : pilots_.all()) pilots_.update_open(pilot, settings_.prefetch);
}

// Says so at once instead of waiting for a node that will never come.
void Core::fail_impossible(Submission& submission, Now now) {
  if (!submission.header || submission.pending.empty()) return;
  const std::string why =
      why_impossible(offer(), submission.header->resources, submission.header->walltime_ms);
  if (why.empty()) return;
  RangeSet(submission.pending).for_each([&](std::uint32_t index) {
    emit_failure(submission, index, TaskState::kFailed, FailureClass::kEnvironment,
                 "ResourcesUnavailable", "the task cannot run at this endpoint: " + why, nullptr,
                 now);
  });
}

// Charged by an interchange that did not know the budget: it had just been started again.
void Core::fail_spent(Submission& submission, const std::vector<TaskHistory>& histories, Now now) {
  for (const TaskHistory& history : histories) {
    if (!submission.pending.contains(history.index)) continue;
    for (std::size_t i = 0; i < kFailureClassCount; ++i) {
      const auto failure = static_cast<FailureClass>(i);
      if (history.failures[i] <= submission.header->retry.budget(failure)) continue;
      emit_failure(
          submission, history.index, TaskState::kFailed, failure,
          failure == FailureClass::kAllocationEnded ? "AllocationTooShort" : "TaskLost",
          fmt::format("the task ended as {} {} times, {} retries are allowed", name_of(failure),
                      history.failures[i], submission.header->retry.budget(failure)),
          nullptr, now);
      break;
    }
  }
}

void Core::on_cancel_tasks(const wire::CancelTasks& cancel, Now now) {
  for (const wire::SubmissionRanges& each : cancel.items) {
    Submission& submission = queue_.submission(each.submission);
    cancel_ranges(submission, each.ranges, now);
  }
}

void Core::cancel_ranges(Submission& submission, const RangeSet& wished, Now now) {
  wished.difference(submission.done).for_each([&](std::uint32_t index) {
    if (!submission.placed.contains(index)) {
      // Waiting here, or never delivered because it is not wanted any more.
      emit_failure(submission, index, TaskState::kCancelled, FailureClass::kCancelled,
                   "TaskCancelled", "the task was cancelled before it ran", nullptr, now);
      return;
    }
    Placement* placement = nullptr;
    Pilot* pilot = pilots_.holder_of(submission, index, placement);
    FARCALL_CHECK(pilot != nullptr, "a placed task is at no pilot");
    if (placement->lost) {
      take_off_pilot(submission, index, true);
      return emit_failure(submission, index, TaskState::kCancelled, FailureClass::kCancelled,
                          "TaskCancelled", "the task was cancelled after its node was lost", pilot,
                          now);
    }
    submission.cancelled.insert(index);
    cancel_now_[pilot->id].push_back({submission.id, index, placement->attempt});
  });
}

void Core::on_call(const wire::Message& message, Now now) {
  const auto call = wire::decode<wire::Call>(message);
  if (!call) return effects_.push_back(effect::RedialRelay{call.error().message});
  wire::Reply reply{call->request, 0, ""};
  nlohmann::json answer = nlohmann::json::object();
  const auto fault = [&](ErrorCode code, std::string text) {
    reply.error = static_cast<std::int32_t>(code);
    reply.text = std::move(text);
  };
  if (call->method == "explain") {
    const auto parameters = nlohmann::json::parse(
        message.payload.empty() ? std::string_view("{}") : message.payload.front().view(), nullptr,
        false);
    const std::string text = parameters.is_object() ? parameters.value("task", "") : "";
    const auto task = TaskId::parse(text);
    if (task)
      answer["lines"] = explain(*task, now);
    else
      fault(ErrorCode::kInvalidArgument, task.error().message);
  } else if (call->method == "drain") {
    return drain(now, wire::make_message(reply, {Bytes(answer.dump())}));
  } else if (call->method == "resume") {
    return resume(now, wire::make_message(reply, {Bytes(answer.dump())}));
  } else if (call->method == "stop") {
    stop("stopped through the relay", now);
  } else {
    fault(ErrorCode::kNotFound, "an interchange has no method " + call->method);
  }
  send_relay(wire::make_message(reply, {Bytes(answer.dump())}));
}

void Core::grant_credit(bool at_welcome) {
  if (at_welcome) received_tasks_ = received_bytes_ = granted_tasks_ = granted_bytes_ = 0;
  if (!welcomed_ || stopping_) return;
  const auto room = [](std::uint64_t window, std::uint64_t held) {
    return window > held ? window - held : 0;
  };
  const std::uint64_t tasks =
      std::max(granted_tasks_, received_tasks_ + room(settings_.window_tasks, queue_.held_tasks()));
  const std::uint64_t bytes =
      std::max(granted_bytes_, received_bytes_ + room(settings_.window_bytes, queue_.held_bytes()));
  // Not for every task: a tenth of the window is worth a message.
  const bool worth = tasks - granted_tasks_ > settings_.window_tasks / 10 ||
                     bytes - granted_bytes_ > settings_.window_bytes / 10;
  if (!at_welcome && !worth) return;
  granted_tasks_ = tasks;
  granted_bytes_ = bytes;
  send_relay(wire::make_message(wire::Credit{tasks, bytes}));
}

void Core::report_attempts() {
  if (!welcomed_ || attempts_to_report_.empty()) return;
  wire::Attempts message;
  for (auto& [id, histories] : attempts_to_report_) {
    wire::SpentAttempts spent{id, {}};
    for (auto& [index, history] : histories) spent.histories.push_back(history);
    message.items.push_back(std::move(spent));
  }
  attempts_to_report_.clear();
  send_relay(wire::make_message(message));
}

void Core::report_running(Now now) {
  if (!welcomed_ || running_changed_.empty() || now.mono < next_running_) return;
  next_running_ = now.mono + milliseconds(100);
  wire::Running message;
  for (const SubmissionId& id : std::exchange(running_changed_, {})) {
    wire::SubmissionRanges each{id, {}};
    for (const auto& [pilot_id, pilot] : pilots_.all())
      if (const auto found = pilot.running.find(id); found != pilot.running.end())
        each.ranges.insert(found->second);
    message.running.push_back(std::move(each));
  }
  send_relay(wire::make_message(message));
}

}  // namespace farcall::interchange
