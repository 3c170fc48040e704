// The client's one I/O thread and what it owns. Only the sources of libfarcall see this.
#pragma once

#include <atomic>
#include <condition_variable>
#include <future>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <unordered_map>

#include "blobs/depot.h"
#include "credit_window.h"
#include "farcall/client.h"
#include "farcall/identity.h"
#include "upload.h"
#include "wire/blobs.h"
#include "wire/zmq/dialer.h"
#include "wire/zmq/loop.h"

namespace farcall {

// Shared between the writing threads and the I/O thread.
struct SubmissionWriter::Impl {
  Impl(SubmissionHeader header, SubmissionOptions options, std::weak_ptr<Client::Impl> client,
       const ClientOptions& limits, std::uint64_t size_max);

  // Any thread, without the mutex.
  void poke();
  // With the mutex.
  SubmissionState state_locked() const;
  bool over_locked() const;  // nothing of it will ever be sent again
  Result<void> wait_for_room(std::unique_lock<std::mutex>& lock);

  const SubmissionId id;
  const std::function<void(const SubmissionState&)> on_state;
  const std::weak_ptr<Client::Impl> client;
  const std::uint64_t window_bytes;
  const std::uint64_t argument_bytes_max;  // 0: not known
  const Duration timeout;

  mutable std::mutex mutex;
  std::condition_variable changed;
  client::Upload upload;       // guarded by mutex
  std::uint64_t progress = 0;  // guarded by mutex: counts acknowledgements
  bool client_gone = false;    // guarded by mutex
  bool abandoned = false;      // guarded by mutex: its writer is gone
  bool poked = false;          // guarded by mutex: the I/O thread will look at it
};

struct Client::Impl : std::enable_shared_from_this<Client::Impl> {
  using Done = std::function<void(Result<CallAnswer>)>;
  struct PendingCall {
    std::string what;
    wire::Message message;
    Done done;
    wire::Loop::TimerId timer = 0;
  };
  struct Watched {
    WatchId watch = 0;
    std::shared_ptr<const WatchHandlers> handlers;
    RangeSet have;
    bool outcomes = true;
    bool sent = false;  // in this session
  };

  using BlobReader = std::function<Result<Bytes>(std::uint64_t offset, std::size_t size)>;
  struct BlobUpload {
    std::uint64_t size = 0;
    BlobReader read;
    std::shared_ptr<std::atomic<std::uint64_t>> progress;  // counts what was asked for
    std::function<void(const Result<void>&)> done;
  };

  Impl(ClientOptions options, Identity identity);
  ~Impl();

  // --- any thread ---
  Result<void> start();
  void stop();
  bool post(std::function<void()> action);  // false: the client has stopped
  bool on_io_thread() const { return std::this_thread::get_id() == io_thread.load(); }
  Error explain(const Error& error) const;
  void request(std::string what, std::function<wire::Message(std::uint64_t)> make, Done done);
  Result<CallAnswer> wait_for(std::function<void(Done)> send);
  void release(std::uint64_t tasks, std::uint64_t bytes);
  Result<StoredBlob> store(const StoredBlob& blob, BlobReader read);
  Result<void> fetch_from_relay(const wire::BlobRef& blob);
  void add_upload(std::shared_ptr<SubmissionWriter::Impl> writer);

  // --- the I/O thread only ---
  void run();
  wire::Message hello() const;
  void on_message(const wire::Message& message);
  void on_welcome(const wire::Message& message);
  void on_down(const Error& error);
  void on_refused(const Error& error);
  void on_reply(const wire::Message& message);
  void on_submit_ack(const wire::Message& message);
  void on_results(const wire::Message& message);
  void deliver(wire::SubmissionOutcomes& group, const Bytes& data, std::size_t& offset,
               const std::shared_ptr<const void>& lease);
  void on_progress(const wire::Message& message);
  void damaged(const Error& error);
  void finish_call(std::uint64_t number, Result<CallAnswer> answer);
  void pump();  // sends what is waiting
  void pump_uploads();
  void pump_watches();
  void pump_collected();
  void pump_credit();
  void offer_blob(const wire::BlobRef& blob, BlobUpload upload);
  void offer_blobs_again();
  void on_blob_get(const wire::Message& message);
  void on_blob_state(const wire::Message& message);
  void end_blob(const std::string& hash, const Result<void>& outcome);
  Result<void> open_depot();
  void depot_up();
  void depot_down();
  void on_blob_chunk(const wire::Message& message);
  void close_depot();
  void drop_blob_upload(const std::string& hash, const void* owner);
  bool relay_knows(const SubmissionId& id) const;
  void fail_everything();

  // Set once, before the thread starts.
  const ClientOptions options;
  const Identity identity;
  const std::string address;

  std::filesystem::path cache;  // set by the I/O thread before the first fetch ends

  // Guarded by mutex.
  mutable std::mutex mutex;
  std::condition_variable changed;
  enum class Phase { kConnecting, kUp, kDown, kRefused, kStopped } phase = Phase::kConnecting;
  Error last_error{ErrorCode::kUnreachable, "not connected yet"};
  RelayInfo info;
  std::map<std::string, EndpointId> endpoints;
  std::set<FunctionId> registered;
  std::uint64_t released_tasks = 0, released_bytes = 0;
  bool release_posted = false;
  Rng rng = Rng::from_entropy();
  WatchId last_watch = 0;

  // The I/O thread's.
  wire::Loop loop;
  std::unique_ptr<wire::Dialer> dialer;
  bool welcomed = false;  // in this session
  std::uint64_t last_request = 0;
  std::map<std::uint64_t, PendingCall> calls;
  std::unordered_map<SubmissionId, std::shared_ptr<SubmissionWriter::Impl>> uploads;
  std::set<SubmissionId> uploads_to_send;
  std::map<std::string, std::vector<BlobUpload>> blob_uploads;  // by hash; all of the same bytes
  std::unique_ptr<blobs::Depot> depot;  // of large results; none until one is wanted
  std::map<std::uint64_t, std::shared_ptr<std::promise<Result<void>>>> fetches;
  std::uint64_t last_fetch = 0;
  std::unordered_map<SubmissionId, Watched> watched;
  std::set<SubmissionId> watches_to_send;
  // Told by the program; kept until a later call was answered, which proves that it arrived.
  std::map<SubmissionId, RangeSet> collected_to_send, collected_sent;
  std::uint64_t collected_mark = 0;
  client::CreditWindow credit;

  std::thread thread;
  std::atomic<std::thread::id> io_thread;
};

}  // namespace farcall
