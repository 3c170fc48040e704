// Cancelling: at once what was not delivered, as a durable wish what was.
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "send.h"

namespace farcall::relay {

namespace {
// docs/payloads.md, "Failures".
Bytes failure_payload(const std::string& type, const std::string& message) {
  const std::string text =
      nlohmann::json{{"type", type}, {"message", message}, {"class", "cancelled"}}.dump();
  std::string bytes = "E";
  for (int shift = 0; shift < 32; shift += 8)
    bytes += static_cast<char>((text.size() >> shift) & 0xff);
  return Bytes(bytes + text);
}
}  // namespace

void Core::Impl::record_cancelled(Submission& s, const RangeSet& tasks, const std::string& why) {
  auto row = std::make_shared<OutcomeRow>();
  row->submission = s.id();
  row->by_state[state_slot(TaskState::kCancelled)] = tasks;
  row->data = failure_payload("TaskCancelled", why);
  commit_row(s, std::move(row));
}

CancelCount Core::Impl::cancel(Submission& s, const RangeSet& wanted, bool force,
                               const std::string& why) {
  CancelCount count;
  const RangeSet known = wanted.intersection(s.received);
  count.finished = known.intersection(s.final).count();
  const RangeSet open = known.difference(s.final);
  const RangeSet away = open.intersection(s.delivered);
  const RangeSet at_once = force ? open : open.difference(away);
  const RangeSet wished = force ? RangeSet() : away;
  count.cancelled = at_once.count();
  count.requested = wished.count();
  if (!at_once.empty()) record_cancelled(s, at_once, why);
  if (!wished.difference(s.record.cancel_wished).empty()) {
    s.record.cancel_wished.insert(wished);
    write(PutSubmission{s.record});
  }
  if (!away.empty())
    after_commit([this, id = s.id(), endpoint = s.record.header.endpoint, away] {
      Endpoint* e = find_endpoint(endpoint);
      if (e != nullptr && e->ready) send(e->peer, wire::CancelTasks{{{id, away}}});
    });
  return count;
}

CancelCount Core::Impl::cancel_whole(Submission& s, bool force, const std::string& why) {
  if (!s.is_closed()) {
    s.record.aborted = true;
    write(PutSubmission{s.record});
    progress_changed(s);
  }
  const CancelCount count = cancel(s, s.received, force, why);
  note_if_finished(s);
  return count;
}

}  // namespace farcall::relay
