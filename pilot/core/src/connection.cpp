// What comes from the interchange, and what is said at the beginning of a session.
#include "base/log.h"
#include "pilot/core/core.h"
#include "wire/codec.h"

namespace farcall::pilot {

using wire::AttemptRef;
using wire::MessageType;

wire::PilotHello Core::make_hello(Now now) {
  wire::PilotHello hello = settings_.hello;
  hello.epoch = epoch_;
  hello.remaining_s = remaining_s(now);
  for (const auto& [ref, attempt] : attempts_)
    if (attempt.end != EndReason::kAbandoned || attempt.again) hello.holds.push_back(ref);
  // Not missing: what became of them follows.
  hello.holds.insert(hello.holds.end(), hand_back_displaced_.begin(), hand_back_displaced_.end());
  hello.unacknowledged = unacknowledged();
  hand_back_late_.clear();  // the hello does not name them: that says it
  // A new session brings functions and headers anew; what is held keeps its own.
  functions_.clear();
  headers_.clear();
  places_.clear();
  return hello;
}

void Core::on_down(Now now) {
  if (!up_) return;
  up_ = false;
  cut_off_seen_ = orphan_seen_ = false;
  silent_since_ = now.mono;
}

void Core::on_message(const wire::Message& message, Now now) {
  const auto handle = [&]<class Body>(auto&& action, const Body*) {
    auto body = wire::decode<Body>(message);
    if (body) return action(*body);
    effects_.push_back(Redial{body.error().message});
  };
  if (message.type == MessageType::kPilotWelcome)
    return handle([&](const auto& welcome) { on_welcome(welcome, now); },
                  static_cast<wire::PilotWelcome*>(nullptr));
  if (!up_) return;  // of a session that is not obeyed
  if (message.type == wire::Guests::kType)
    return handle([&](const auto& guests) { set_guests(guests.guests); },
                  static_cast<wire::Guests*>(nullptr));
  if (message.type == wire::Places::kType)
    return handle([&](const auto& places) { on_places(places); },
                  static_cast<wire::Places*>(nullptr));
  if (message.type == wire::Spawn::kType)
    return handle([&](const auto& spawn) { on_spawn(spawn); }, static_cast<wire::Spawn*>(nullptr));
  if (message.type == wire::Spawned::kType)
    return handle([&](const auto& spawned) { effects_.push_back(GuestEnded{spawned}); },
                  static_cast<wire::Spawned*>(nullptr));
  switch (message.type) {
    case MessageType::kDispatch:
      return on_dispatch(message, now);
    case MessageType::kCancelAttempts:
      return handle([&](const auto& cancel) { on_cancel(cancel, now); },
                    static_cast<wire::CancelAttempts*>(nullptr));
    case MessageType::kResultsAck:
      return handle([&](const auto& ack) { on_results_ack(ack); },
                    static_cast<wire::ResultsAck*>(nullptr));
    case MessageType::kStop:
      return handle(
          [&](const wire::Stop& stop) {
            begin_stop(stop.reason, std::chrono::milliseconds(stop.grace_ms), now);
          },
          static_cast<wire::Stop*>(nullptr));
    default:
      log_warn("a message of type {} is not for pilots: ignored", static_cast<int>(message.type));
  }
}

void Core::on_welcome(const wire::PilotWelcome& welcome, Now now) {
  if (welcome.epoch < epoch_) {
    effects_.push_back(
        Redial{fmt::format("an interchange of epoch {} answered, but epoch {} has taken over",
                           welcome.epoch, epoch_)});
    return;
  }
  epoch_ = welcome.epoch;
  if (welcome.heartbeat_ms > 0)
    settings_.heartbeat = std::chrono::milliseconds(welcome.heartbeat_ms);
  if (welcome.lost_timeout_ms > 0)
    settings_.lost_timeout = std::chrono::milliseconds(welcome.lost_timeout_ms);
  slots_ = welcome.slots;
  up_ = true;
  next_status_ = now.mono;
  next_running_report_ = now.mono;
  next_save_ = MonoTime::max();
  save_delay_ = Duration{0};
  reported_running_.clear();
  for (const AttemptRef& ref : welcome.abandon) {
    Attempt* attempt = find(ref);
    if (attempt == nullptr) continue;
    if (attempt->state == AttemptState::kQueued)
      drop_queued(ref);
    else
      kill(*attempt, EndReason::kAbandoned);
  }
  wire::Topology topology = settings_.topology.value_or(wire::Topology{});
  topology.guests = static_cast<std::uint32_t>(guests_.size());
  if (settings_.topology || topology.guests > 0) send(wire::make_message(topology));
  for (const auto& [number, batch] : batches_) send(batch.message);
}

void Core::on_dispatch(const wire::Message& message, Now now) {
  auto dispatch = wire::decode<wire::Dispatch>(message);
  const auto refuse = [&](std::string why) { effects_.push_back(Redial{std::move(why)}); };
  if (!dispatch) return refuse(dispatch.error().message);
  if (message.payload.size() != dispatch->functions.size() + 1)
    return refuse(fmt::format("a dispatch of {} functions has {} payload frames, expected {}",
                              dispatch->functions.size(), message.payload.size(),
                              dispatch->functions.size() + 1));
  for (std::size_t i = 0; i < dispatch->functions.size(); ++i)
    functions_[dispatch->functions[i].id] =
        std::make_shared<Function>(Function{std::move(dispatch->functions[i]), message.payload[i]});
  for (SubmissionHeader& header : dispatch->submissions) {
    const SubmissionId id = header.submission;
    headers_[id] = std::make_shared<SubmissionHeader>(std::move(header));
  }
  const Bytes& arguments = message.payload.back();
  std::size_t offset = 0;
  for (const wire::DispatchGroup& group : dispatch->groups) {
    auto header = headers_.find(group.submission);
    if (header == headers_.end())
      return refuse("a dispatch names submission " + group.submission.string() +
                    ", whose header never came");
    auto function = functions_.find(header->second->function);
    if (function == functions_.end())
      return refuse("a dispatch needs function " + header->second->function.string() +
                    ", which never came");
    for (const wire::TaskStart& task : group.tasks) {
      if (task.size > arguments.size() - offset)
        return refuse("a dispatch has fewer bytes of arguments than its tasks name");
      Assignment work{{group.submission, task.index, task.attempt},
                      function->second,
                      header->second,
                      arguments.slice(offset, task.size),
                      {},
                      nullptr};
      if (!places_.empty())
        if (auto place = places_.extract(work.ref); !place.empty()) work.place = place.mapped();
      offset += task.size;
      if (stopping_)
        hand_back_.push_back(work.ref);
      else
        enqueue(std::move(work), now);
    }
  }
}

void Core::on_places(wire::Places places) {
  for (wire::TaskPlace& place : places.places)
    if (!place.shares.empty())
      places_[place.attempt] = std::make_shared<const wire::TaskPlace>(std::move(place));
}

void Core::on_cancel(const wire::CancelAttempts& cancel, Now now) {
  for (const AttemptRef& ref : cancel.attempts) {
    Attempt* attempt = find(ref);
    if (attempt == nullptr) continue;  // its outcome is on its way
    if (attempt->state == AttemptState::kQueued) {
      deliver_own(*attempt, TaskState::kCancelled, FailureClass::kCancelled, now);
      drop_queued(ref);
    } else {
      kill(*attempt, EndReason::kCancelled);
    }
  }
}

void Core::on_terminate(const std::string& reason, Duration grace, Now now) {
  terminated_ = true;
  begin_stop(reason, grace, now);
}

void Core::begin_stop(const std::string& reason, Duration grace, Now now) {
  const MonoTime deadline = now.mono + grace;
  if (!stopping_) {
    log_info("stopping: {}: {} queued tasks go back, {} may run for {} ms", reason, queued(),
             running(), std::chrono::duration_cast<std::chrono::milliseconds>(grace).count());
    stop_reason_ = reason;
    stop_deadline_ = deadline;
  } else if (stop_deadline_ != MonoTime::max()) {
    stop_deadline_ = std::min(stop_deadline_, deadline);
  }
  stopping_ = true;
  while (queued() > 0) {
    const AttemptRef ref = queue_.empty() ? *waiting_.begin() : queue_.front();
    hand_back_.push_back(ref);
    drop_queued(ref);
  }
}

std::string Core::sanity_check() const {
  std::size_t queued_count = 0, handed = 0;
  for (const auto& [ref, attempt] : attempts_) {
    if (!(attempt.work.ref == ref)) return "an attempt is filed under another one's name";
    if (attempt.state == AttemptState::kGone) return "an attempt that is gone is still held";
    if (attempt.state == AttemptState::kQueued) {
      ++queued_count;
      continue;
    }
    ++handed;
    if (held_.contains(ref) == lined_up_refs_.contains(ref))
      return "a started attempt must hold cores or be lined up, and not both";
    if ((attempt.state == AttemptState::kEnding) != (attempt.end != EndReason::kNone))
      return "an attempt ends without a reason, or has one and does not end";
  }
  for (const AttemptRef& ref : waiting_)
    if (!attempts_.contains(ref)) return "an attempt that is not held waits for a blob";
  for (const auto& [hash, blob] : blobs_)
    for (const AttemptRef& ref : blob.holders)
      if (!attempts_.contains(ref)) return "a blob is kept for an attempt that is not held";
  if (queued_count != queued()) return "the queue and the queued attempts differ";
  for (const AttemptRef& ref : queue_)
    if (!attempts_.contains(ref)) return "the queue names an attempt that is not held";
  if (held_.size() + lined_up_refs_.size() != handed) return "something that is gone holds cores";
  std::uint64_t cores = 0;
  for (const auto& [ref, count] : held_) cores += count;
  if (cores != cores_used_) return "the cores in use do not add up";
  for (const auto& [end, ref] : walltimes_)
    if (!attempts_.contains(ref)) return "a walltime runs for an attempt that is not held";
  std::size_t fresh = 0;
  for (const auto& [submission, outcomes] : fresh_) fresh += outcomes.size();
  if (fresh != fresh_count_) return "the count of new outcomes is wrong";
  return "";
}

}  // namespace farcall::pilot
