// Progress and output of running tasks, on their way from an endpoint to whoever watches.
#include "send.h"

namespace farcall::relay {

namespace {
// Of one submission; tasks beyond that show no progress in `task status`.
constexpr std::size_t kProgressTasksMax = 10'000;
constexpr Duration kWindow = std::chrono::milliseconds(100);
constexpr std::size_t kWindowBytesMax = 256 << 10;  // to one client; what is more is dropped
constexpr std::size_t kNoteBytes = 64;              // that one costs without its texts
}  // namespace

void Core::Impl::notes(Peer& peer, const wire::Notes& m, const wire::Message& raw) {
  const std::string_view bytes = raw.payload.empty() ? std::string_view() : raw.payload[0].view();
  std::size_t offset = 0;
  for (const wire::SubmissionNotes& item : m.items) {
    const std::size_t first = offset;
    for (const wire::TaskNote& note : item.notes)
      offset += std::size_t{note.out_size} + note.err_size;
    if (offset > bytes.size()) return;  // damaged; nobody depends on it
    Submission* s = find_submission(item.submission);
    if (s == nullptr || s->record.header.endpoint != peer.endpoint) continue;
    for (const wire::TaskNote& note : item.notes) {
      if (!note.has_progress || !s->durable.contains(note.index) || s->final.contains(note.index))
        continue;
      if (s->progress.size() < kProgressTasksMax || s->progress.contains(note.index))
        s->progress[note.index] = note;
    }
    pass_on(*s, item.notes, bytes.substr(first, offset - first));
  }
}

void Core::Impl::pass_on(Submission& s, const std::vector<wire::TaskNote>& notes,
                         const std::string_view& bytes) {
  std::size_t cost = bytes.size();
  for (const wire::TaskNote& note : notes) cost += kNoteBytes + note.text.size();
  for (PeerId watcher : s.watchers) {
    Peer* peer = find_peer(watcher);
    if (peer == nullptr) continue;
    if (now_.mono >= peer->notes_window_ends) {
      peer->notes_window_ends = now_.mono + kWindow;
      peer->notes_bytes = 0;
    }
    if (peer->notes_bytes + cost > kWindowBytesMax && peer->notes_bytes > 0) continue;
    peer->notes_bytes += cost;
    send(watcher, wire::Notes{{{s.id(), notes}}}, {Bytes::copy_of(bytes)});
  }
}

}  // namespace farcall::relay
